package memlock

import (
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// ManualClock is a clock that moves when it is told to, for tests that want leases to run
// out without waiting. It is safe for concurrent use.
type ManualClock struct {
	mu     sync.Mutex
	now    driver.Instant
	timers map[*manualTimer]struct{}
}

var _ driver.Clock = (*ManualClock)(nil)

// NewManualClock returns a clock that stands still.
func NewManualClock() *ManualClock {
	return &ManualClock{timers: make(map[*manualTimer]struct{})}
}

// Now implements driver.Clock.
func (c *ManualClock) Now() driver.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d and starts every timer that is due by then, in no particular
// order and each in a goroutine of its own. It does not wait for what they set off.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for t := range c.timers {
		c.fireIfDue(t)
	}
}

// AfterFunc implements driver.Clock.
func (c *ManualClock) AfterFunc(d time.Duration, f func()) driver.Timer {
	t := &manualTimer{clock: c, f: f}
	t.Reset(d)
	return t
}

func (c *ManualClock) fireIfDue(t *manualTimer) {
	if t.at <= c.now {
		delete(c.timers, t)
		go t.f()
	}
}

type manualTimer struct {
	clock *ManualClock
	at    driver.Instant
	f     func()
}

func (t *manualTimer) Stop() bool {
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	_, pending := c.timers[t]
	delete(c.timers, t)
	return pending
}

func (t *manualTimer) Reset(d time.Duration) bool {
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	_, pending := c.timers[t]
	t.at = c.now.Add(d)
	c.timers[t] = struct{}{}
	c.fireIfDue(t)
	return pending
}
