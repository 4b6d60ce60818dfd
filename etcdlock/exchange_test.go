package etcdlock

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// steps is a clock with one timer, whose call pass makes itself and waits for.
type steps struct {
	now driver.Instant
	due driver.Instant // of the timer; never when it is not set
	f   func()
}

func (s *steps) Now() driver.Instant { return s.now }

func (s *steps) AfterFunc(d time.Duration, f func()) driver.Timer {
	s.f, s.due = f, s.now.Add(d)
	return s
}

func (s *steps) Reset(d time.Duration) bool {
	was := s.due != never
	s.due = s.now.Add(d)
	return was
}

func (s *steps) Stop() bool {
	was := s.due != never
	s.due = never
	return was
}

func (s *steps) pass(d time.Duration) {
	for end := s.now.Add(d); s.now < end; {
		s.now = min(end, s.due)
		if s.now == s.due {
			s.due = never
			s.f()
		}
	}
}

// exchanging is an engine that has nothing but a clock and exchanges.
func exchanging(t *testing.T) (*Engine, *steps) {
	clock := &steps{due: never}
	e := &Engine{cfg: Config{Timeout: 4 * time.Second}, clock: clock}
	e.life, e.end = context.WithCancel(context.Background())
	t.Cleanup(e.end)
	e.exchanges.init(e)
	return e, clock
}

type key struct{}

// begun is the context of an exchange, and one that is derived from it, as the client has it.
func begun(t *testing.T, e *Engine, caller context.Context) (x, derived context.Context, end func()) {
	x, end = e.bound(caller)
	derived, cancel := context.WithCancel(context.WithValue(x, key{}, "the client's"))
	t.Cleanup(cancel)
	return x, derived, end
}

// TestExchangeEndsAtItsLimit: as with a deadline, but none that others see.
func TestExchangeEndsAtItsLimit(t *testing.T) {
	e, clock := exchanging(t)
	clock.pass(time.Hour)
	x, derived, end := begun(t, e, context.WithValue(context.Background(), key{}, "the caller's"))
	defer end()
	if _, has := x.Deadline(); has || x.Value(key{}) != "the caller's" {
		t.Errorf("a deadline: %v; the value %v", has, x.Value(key{}))
	}
	clock.pass(e.cfg.Timeout - e.exchanges.every)
	later, _, endLater := begun(t, e, context.Background())
	defer endLater()
	if x.Err() != nil || derived.Err() != nil {
		t.Fatalf("ended too early: %v", x.Err())
	}
	clock.pass(e.exchanges.every)
	<-derived.Done()
	if cause := context.Cause(derived); x.Err() != context.DeadlineExceeded || cause != context.DeadlineExceeded {
		t.Errorf("errors %v and %v", x.Err(), cause)
	}
	if later.Err() != nil {
		t.Errorf("one that has time left: %v", later.Err())
	}
}

// TestExchangeEndsAfterItsCaller: within a grace, of which all but the time between two looks is
// left to it; and with the engine.
func TestExchangeEndsAfterItsCaller(t *testing.T) {
	e, clock := exchanging(t)
	ctx, cancel := context.WithCancel(context.Background())
	x, derived, end := begun(t, e, ctx)
	defer end()
	clock.pass(e.exchanges.every * 3 / 2)
	cancel()
	clock.pass(grace - e.exchanges.every)
	if x.Err() != nil {
		t.Fatalf("ended too early: %v", x.Err())
	}
	clock.pass(e.exchanges.every)
	if x.Err() != context.Canceled || derived.Err() == nil {
		t.Errorf("errors %v and %v", x.Err(), derived.Err())
	}

	y, _, endOther := begun(t, e, context.Background())
	defer endOther()
	e.end()
	if y.Err() != context.Canceled {
		t.Errorf("in an engine that is closed: %v", y.Err())
	}
}

// TestCleaningUpOutlivesItsCaller: the time to clean up is no less because nobody waits.
func TestCleaningUpOutlivesItsCaller(t *testing.T) {
	e, clock := exchanging(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	x, end := e.patience(ctx)
	defer end()
	clock.pass(2*grace - e.exchanges.every)
	if x.Err() != nil {
		t.Errorf("ended too early: %v", x.Err())
	}
	clock.pass(e.exchanges.every)
	if !errors.Is(x.Err(), context.DeadlineExceeded) {
		t.Errorf("at its end: %v", x.Err())
	}
}

// TestExchangesRest: what is over is not kept, and then no timer is.
func TestExchangesRest(t *testing.T) {
	e, clock := exchanging(t)
	xs := &e.exchanges
	for range 3 {
		var under []context.Context
		var ends []func()
		for range 5 {
			x, _, end := begun(t, e, context.Background())
			under, ends = append(under, x), append(ends, end)
		}
		clock.pass(xs.every)
		if len(xs.all) != 5 || clock.due == never {
			t.Errorf("%d are under way, the next look is at %d", len(xs.all), clock.due)
		}
		for i, at := range []int{2, 4, 0, 1, 3} {
			ends[at]()
			if len(xs.all) != 4-i || under[at].Err() == nil {
				t.Errorf("%d are left of %d, and the error is %v", len(xs.all), 4-i, under[at].Err())
			}
		}
		clock.pass(xs.every)
		if len(xs.all) != 0 || clock.due != never {
			t.Errorf("%d are left, the next look is at %d", len(xs.all), clock.due)
		}
	}
}
