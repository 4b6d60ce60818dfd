package driver

import "golang.org/x/sys/unix"

// bootClockID counts suspension: on macOS CLOCK_MONOTONIC goes on during sleep, and it is
// CLOCK_UPTIME_RAW that stands still, see clock_gettime(3).
const bootClockID = unix.CLOCK_MONOTONIC
