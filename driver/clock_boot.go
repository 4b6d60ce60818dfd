//go:build linux || darwin

package driver

import (
	"time"

	"golang.org/x/sys/unix"
)

type bootClock struct{ monotonic }

func (bootClock) Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(bootClockID, &ts); err != nil {
		// The clock exists on every kernel that Go supports, and its identifier is a
		// constant: there is no state in which this call fails now and succeeds later.
		panic("holdfast: reading the boot clock: " + err.Error())
	}
	return Instant(time.Duration(ts.Nano()))
}
