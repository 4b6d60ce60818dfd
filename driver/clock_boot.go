//go:build linux || darwin

package driver

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bootClock is Go's monotonic clock and how long the machine was suspended so far.
//
// Asking the kernel for the boot clock is a system call, about ten times as dear as what Go
// reads without one, the wall clock and the monotonic clock. So the kernel is asked only when
// those two have moved apart: a suspension moves the wall clock on, in the same step of the
// kernel as the boot clock, and leaves the monotonic clock where it was. A wall clock that is
// set or slewed makes for a question too many, no more.
type bootClock struct{ monotonic }

// asleep is an answer of the kernel: the boot clock and the wall clock, each less the
// monotonic clock.
type asleep struct{ boot, wall time.Duration }

const (
	// apart is by how much the clocks may have moved apart since: much less than anything
	// that a suspension could be mistaken for.
	apart = time.Millisecond

	// blur is how exactly the boot clock has to be known. It is far below the 2 ms that leases
	// allow for clocks.
	blur = 50 * time.Microsecond
)

var lastAsleep atomic.Pointer[asleep]

func (bootClock) Now() Instant { return bootNow(time.Now, &lastAsleep, kernelBootTime) }

func bootNow(read func() time.Time, last *atomic.Pointer[asleep], kernel func() time.Duration) Instant {
	now := read()
	monotonic := now.Sub(origin)
	wall := time.Duration(now.UnixNano()) - monotonic
	a := last.Load()
	if a != nil && wall-a.wall <= apart && a.wall-wall <= apart {
		return Instant(monotonic + a.boot)
	}
	boot := kernel()
	// A thread that was held up around the question knows the time, but not by how much the
	// clocks are apart. If the machine slept in between, the wall clock tells the next reader.
	if read().Sub(origin)-monotonic <= blur {
		last.Store(&asleep{boot: boot - monotonic, wall: wall})
	}
	return Instant(boot)
}

func kernelBootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(bootClockID, &ts); err != nil {
		// The clock exists on every kernel that Go supports, and its identifier is a
		// constant: there is no state in which this call fails now and succeeds later.
		panic("holdfast: reading the boot clock: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
