package memlock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

func TestManualClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memlock.NewManualClock()
		start := c.Now()
		fired := make(map[string]int)
		timer := func(name string, d time.Duration) driver.Timer {
			return c.AfterFunc(d, func() { fired[name]++ })
		}
		want := func(name string, n int) {
			t.Helper()
			synctest.Wait()
			if fired[name] != n {
				t.Errorf("timer %s fired %d times, want %d", name, fired[name], n)
			}
		}
		timer("now", 0)
		want("now", 1)
		timer("minute", time.Minute)
		stopped := timer("stopped", time.Minute)
		moved := timer("moved", time.Minute)
		time.Sleep(time.Hour) // not this clock's
		want("minute", 0)
		if !stopped.Stop() || stopped.Stop() {
			t.Error("Stop does not report whether it was in time")
		}
		if !moved.Reset(time.Hour) {
			t.Error("Reset of a pending timer reports that it was not")
		}
		c.Advance(time.Minute - 1)
		want("minute", 0)
		c.Advance(1)
		want("minute", 1)
		want("stopped", 0)
		want("moved", 0)
		c.Advance(time.Hour)
		want("moved", 1)
		want("minute", 1)
		if moved.Reset(time.Second) {
			t.Error("Reset of a timer that fired reports that it was pending")
		}
		c.Advance(2 * time.Second)
		want("moved", 2)
		if d := c.Now().Sub(start); d != time.Hour+time.Minute+2*time.Second {
			t.Errorf("the clock moved by %v", d)
		}
	})
}

func TestManualClockEndsShares(t *testing.T) {
	clock := memlock.NewManualClock()
	s := memlock.NewStore(memlock.Config{Clock: clock})
	e := s.Engine()
	c := take(t, e, request("n", driver.Exclusive))
	clock.Advance(time.Hour - 1)
	_, err := e.Acquire(t.Context(), request("n", driver.Exclusive))
	wantKind(t, err, driver.Held, driver.NotApplied)
	clock.Advance(1)
	wantKind(t, e.Renew(t.Context(), []driver.Claim{c})[0], driver.Lost, driver.NotApplied)
	take(t, e, request("n", driver.Exclusive))
}
