package memlock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// only injects fault into calls of one operation.
func only(op memlock.Op, fault memlock.Fault) func(memlock.Call) memlock.Fault {
	return func(c memlock.Call) memlock.Fault {
		if c.Op == op {
			return fault
		}
		return memlock.Fault{}
	}
}

func TestInjectSeesTheCall(t *testing.T) {
	s := memlock.NewStore(memlock.Config{})
	e := s.Engine()
	var seen []memlock.Call
	s.Inject(func(c memlock.Call) memlock.Fault {
		seen = append(seen, c)
		return memlock.Fault{}
	})
	req := request("n", driver.Exclusive)
	req.Wait = true
	c := take(t, e, req)
	e.Renew(t.Context(), []driver.Claim{c})
	release(t, e, c)
	s.Inject(nil)
	release(t, e, take(t, e, request("n", driver.Exclusive)))
	want := []memlock.Call{
		{Op: memlock.OpAcquire, Name: "n", Owner: "test", Wait: true},
		{Op: memlock.OpRenew, Name: "n", Owner: "test"},
		{Op: memlock.OpRelease, Name: "n", Owner: "test"},
	}
	if len(seen) != len(want) {
		t.Fatalf("saw %v, want %v", seen, want)
	}
	for i := range want {
		if seen[i] != want[i] {
			t.Errorf("saw %+v, want %+v", seen[i], want[i])
		}
	}
}

func TestRefuse(t *testing.T) {
	s := memlock.NewStore(memlock.Config{})
	e := s.Engine()
	cause := errors.New("no route")
	c := take(t, e, request("n", driver.Exclusive))

	s.Inject(only(memlock.OpRelease, memlock.Fault{Refuse: cause}))
	err := e.Release(t.Context(), c)
	wantKind(t, err, driver.Unavailable, driver.NotApplied)
	if !errors.Is(err, cause) {
		t.Errorf("%v hides its cause", err)
	}
	_, err = e.Acquire(t.Context(), request("n", driver.Exclusive))
	wantKind(t, err, driver.Held, driver.NotApplied)

	s.Inject(only(memlock.OpRenew, memlock.Fault{Refuse: driver.Fail(driver.Lost, nil)}))
	wantKind(t, e.Renew(t.Context(), []driver.Claim{c})[0], driver.Lost, driver.NotApplied)

	s.Inject(only(memlock.OpAcquire, memlock.Fault{Refuse: cause}))
	_, err = e.Acquire(t.Context(), request("free", driver.Exclusive))
	wantKind(t, err, driver.Unavailable, driver.NotApplied)
	s.Inject(nil)
	take(t, e, request("free", driver.Exclusive))
	release(t, e, c)
}

func TestDropReply(t *testing.T) {
	s := memlock.NewStore(memlock.Config{})
	e := s.Engine()
	req := request("n", driver.Exclusive)
	s.Inject(only(memlock.OpAcquire, memlock.Fault{DropReply: true}))
	_, err := e.Acquire(t.Context(), req)
	wantKind(t, err, driver.Unavailable, driver.Unknown)
	s.Inject(nil)
	_, err = e.Acquire(t.Context(), request("n", driver.Exclusive))
	wantKind(t, err, driver.Held, driver.NotApplied)
	c := take(t, e, req) // the retry finds the share

	s.Inject(only(memlock.OpRelease, memlock.Fault{DropReply: true}))
	wantKind(t, e.Release(t.Context(), c), driver.Unavailable, driver.Unknown)
	s.Inject(nil)
	wantKind(t, e.Release(t.Context(), c), driver.NotHeld, driver.NotApplied)
}

func TestDropReplyOfRenewal(t *testing.T) {
	clock := memlock.NewManualClock()
	s := memlock.NewStore(memlock.Config{Clock: clock})
	e := s.Engine()
	c := take(t, e, request("n", driver.Exclusive))
	clock.Advance(40 * time.Minute)
	s.Inject(only(memlock.OpRenew, memlock.Fault{DropReply: true}))
	wantKind(t, e.Renew(t.Context(), []driver.Claim{c})[0], driver.Unavailable, driver.Unknown)
	s.Inject(nil)
	clock.Advance(40 * time.Minute)
	release(t, e, c) // the renewal counted
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memlock.NewStore(memlock.Config{})
		e := s.Engine()
		s.Inject(only(memlock.OpAcquire, memlock.Fault{Delay: time.Minute}))
		start := time.Now()
		c := take(t, e, request("n", driver.Exclusive))
		if d := time.Since(start); d != time.Minute {
			t.Errorf("a call delayed by a minute took %v", d)
		}
		release(t, e, c)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Acquire(ctx, request("n", driver.Exclusive)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("delayed call past its deadline: %v", err)
		}
		late := later(t, e, request("n", driver.Exclusive))
		synctest.Wait()
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		wantKind(t, <-late, driver.Closed, driver.NotApplied)
		if n := s.BooksForTest(); n != 0 {
			t.Errorf("calls that never began left %d names behind", n)
		}
	})
}

func TestLose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memlock.NewStore(memlock.Config{})
		e := s.Engine()
		if n := s.Lose("n"); n != 0 {
			t.Errorf("Lose of a free name: %d shares", n)
		}
		a := take(t, e, request("n", driver.Shared))
		b := take(t, e, request("n", driver.Shared))
		waiting := later(t, e, request("n", driver.Exclusive))
		synctest.Wait()
		if n := s.Lose("n"); n != 2 {
			t.Errorf("Lose took %d shares, want 2", n)
		}
		if err := <-waiting; err != nil {
			t.Errorf("who waited for a lost share: %v, want a grant", err)
		}
		for _, err := range e.Renew(t.Context(), []driver.Claim{a, b}) {
			wantKind(t, err, driver.Lost, driver.NotApplied)
		}
		wantKind(t, e.Release(t.Context(), a), driver.NotHeld, driver.NotApplied)
	})
}

// TestBreakEndsUpgrade: an upgrade that waits has lost what it would upgrade, and is told so
// without waiting for its TTL.
func TestBreakEndsUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memlock.New(memlock.Config{})
		take(t, e, request("n", driver.Shared))
		req := request("n", driver.Upgradeable)
		take(t, e, req)
		req.Mode, req.Upgrade = driver.Exclusive, true
		waiting := later(t, e, req)
		synctest.Wait()
		start := time.Now()
		if _, err := e.Break(t.Context(), driver.BreakRequest{Name: "n"}); err != nil {
			t.Fatal(err)
		}
		wantKind(t, <-waiting, driver.Lost, driver.NotApplied)
		if d := time.Since(start); d > 0 {
			t.Errorf("the upgrade learnt of the break %v late", d)
		}
	})
}
