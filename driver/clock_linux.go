package driver

import "golang.org/x/sys/unix"

// bootClockID counts suspension, see clock_gettime(2).
const bootClockID = unix.CLOCK_BOOTTIME
