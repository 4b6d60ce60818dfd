package driver

import "time"

// Instant is a reading of a [Clock]: time since a fixed point that means nothing outside the
// process. It may be negative, so no value of it stands for "none".
type Instant time.Duration

// Add returns the instant d after i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Clock is what leases are timed by. It is never set or stepped; whether it goes on while
// the machine is suspended is up to the clock.
type Clock interface {
	// Now reads the clock.
	Now() Instant

	// AfterFunc calls f in a goroutine of its own once d has passed. A timer may be late,
	// and after a suspension it usually is: who acts on one reads Now again.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a call that is yet to come.
type Timer interface {
	// Stop calls it off and reports whether it was in time to.
	Stop() bool
	// Reset sets it to d from now and reports whether it was still to come.
	Reset(d time.Duration) bool
}

// MonotonicClock returns Go's monotonic clock, which stands still while the machine is
// suspended. It is right for engines whose state is suspended along with the holder, and it
// follows the fake time of testing/synctest.
func MonotonicClock() Clock { return monotonic{} }

type monotonic struct{}

var origin = time.Now()

func (monotonic) Now() Instant { return Instant(time.Since(origin)) }

func (monotonic) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// BootClock returns the clock for engines whose servers go on while this machine sleeps:
// CLOCK_BOOTTIME on Linux and its counterpart on macOS, which count the time of a
// suspension, so that a machine wakes up knowing that its leases have ended. Elsewhere it is
// [MonotonicClock].
//
// Its timers run on Go's clock and come late after a suspension; the core therefore never
// sleeps longer than a second while it watches over leases.
func BootClock() Clock { return bootClock{} }
