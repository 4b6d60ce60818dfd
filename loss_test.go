package holdfast_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

var errCut = errors.New("network cut")

// cutRenewals makes every renewal fail from now on.
func cutRenewals(store *memlock.Store) {
	store.Inject(func(c memlock.Call) memlock.Fault {
		if c.Op == memlock.OpRenew {
			return memlock.Fault{Refuse: errCut}
		}
		return memlock.Fault{}
	})
}

func TestRenewalKeepsALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		for range 100 {
			time.Sleep(7 * time.Second)
			if l.Context().Err() != nil || l.Remaining() < 5*time.Second {
				t.Fatalf("lease is not renewed: %v left", l.Remaining())
			}
			if _, err := b.Mutex("x").TryLock(t.Context()); !errors.Is(err, holdfast.ErrHeld) {
				t.Fatalf("somebody else got it: %v", err)
			}
		}
		mustUnlock(t, l)
	})
}

func TestLossIsToldBeforeTheServerEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		cutRenewals(store)
		<-l.Context().Done()
		want(t, context.Cause(l.Context()), holdfast.ErrLost)
		if _, err := b.Mutex("x").TryLock(t.Context()); !errors.Is(err, holdfast.ErrHeld) {
			t.Fatalf("somebody else could have it before its holder was told: %v", err)
		}
		begin := time.Now()
		l2 := mustLock(t, b.Mutex("x"))
		if waited := time.Since(begin); waited < 500*time.Millisecond || waited > 5*time.Second {
			t.Errorf("the next holder waited %v after the loss was told", waited)
		}
		want(t, l.Unlock(), holdfast.ErrLost)
		mustUnlock(t, l2)
	})
}

func TestALeaseOutlivesShortFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		for range 10 {
			cutRenewals(store)
			time.Sleep(4 * time.Second)
			store.Inject(nil)
			time.Sleep(4 * time.Second)
			if err := l.Context().Err(); err != nil {
				t.Fatal(context.Cause(l.Context()))
			}
		}
		mustUnlock(t, l)
	})
}

func TestALostLeaseNeverComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		store.Lose("x")
		time.Sleep(4 * time.Second) // a renewal finds out, though nobody else wants it
		want(t, context.Cause(l.Context()), holdfast.ErrLost)
		want(t, l.Extend(t.Context(), time.Minute), holdfast.ErrLost)
		info, err := b.Inspect(t.Context(), "x")
		if err != nil || len(info.Holders) > 0 {
			t.Errorf("it is held again: %+v, %v", info, err)
		}
		want(t, l.Unlock(), holdfast.ErrLost)
		want(t, l.Unlock(), holdfast.ErrNotHeld)
	})
}

func TestOneRenewalOfAClaimAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpy()
		c := clientOn(t, s, holdfast.Config{})
		l := mustLock(t, c.Mutex("x"))
		var under atomic.Int32
		s.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			if under.Add(1) != 1 {
				t.Error("two renewals of one claim at once")
			}
			defer under.Add(-1)
			time.Sleep(time.Second)
			return next()
		})
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				if err := l.Extend(t.Context(), 20*time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		group.Wait()
		mustUnlock(t, l)
	})
}

func TestWithoutRenewalEndsAtItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x", holdfast.WithoutRenewal(), holdfast.WithTTL(5*time.Second)))
		time.Sleep(4 * time.Second)
		if l.Context().Err() != nil {
			t.Fatal("it ended too early")
		}
		if err := l.Extend(t.Context(), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if l.Context().Err() != nil {
			t.Fatal("Extend had no effect")
		}
		time.Sleep(time.Second)
		want(t, context.Cause(l.Context()), holdfast.ErrLost)
		mustUnlock(t, mustLock(t, b.Mutex("x")))
	})
}

func TestMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x", holdfast.WithMaxHold(time.Minute)))
		begin := time.Now()
		<-l.Context().Done()
		want(t, context.Cause(l.Context()), holdfast.ErrLost)
		if held := time.Since(begin); held < 55*time.Second || held > time.Minute {
			t.Errorf("held for %v, want just under a minute", held)
		}
		mustUnlock(t, mustLock(t, b.Mutex("x")))
		if held := time.Since(begin); held > 63*time.Second {
			t.Errorf("others waited until %v", held)
		}
	})
}

func TestASuspendedMachineWakesUpWithoutItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &sleepyClock{Clock: driver.MonotonicClock()}
		c := clientOn(t, memlock.New(memlock.Config{Clock: clock}), holdfast.Config{TTL: time.Hour})
		l := mustLock(t, c.Mutex("x"))
		ctx := l.Context()
		clock.suspend(2 * time.Hour)
		if l.Remaining() != 0 {
			t.Errorf("%v left right after waking up", l.Remaining())
		}
		time.Sleep(1100 * time.Millisecond)
		want(t, context.Cause(ctx), holdfast.ErrLost)
	})
}

func TestBreakIsToldToTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{Owner: "a"})
		l := mustLock(t, a.Mutex("x"))
		_, err := b.Break(t.Context(), "x", holdfast.Break{Fence: l.Fence() + 1, Reason: "test"})
		want(t, err, holdfast.ErrStale)
		_, err = b.Break(t.Context(), "x", holdfast.Break{})
		want(t, err, holdfast.ErrInvalid)
		info, err := b.Break(t.Context(), "x", holdfast.Break{Fence: l.Fence(), Reason: "test"})
		if err != nil || len(info.Holders) != 1 || info.Holders[0].Owner != "a" {
			t.Fatalf("broke %+v, %v", info, err)
		}
		l2 := mustLock(t, b.Mutex("x"))
		if l2.Fence() <= l.Fence() {
			t.Errorf("fence %d after %d was broken", l2.Fence(), l.Fence())
		}
		<-l.Context().Done()
		want(t, context.Cause(l.Context()), holdfast.ErrLost)
		_, err = b.Break(t.Context(), "free", holdfast.Break{Reason: "test"})
		want(t, err, holdfast.ErrNotHeld)
		mustUnlock(t, l2)
	})
}

func TestUnlockDoesNotOvertakeARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpy()
		c := clientOn(t, s, holdfast.Config{})
		var renewing atomic.Bool
		s.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			renewing.Store(true)
			defer renewing.Store(false)
			time.Sleep(900 * time.Millisecond) // Unlock waits for a second
			return next()
		})
		s.onRelease(func(_ context.Context, _ driver.Claim, next func() error) error {
			if renewing.Load() {
				t.Error("released while a renewal was under way")
			}
			return next()
		})
		l := mustLock(t, c.Mutex("x"))
		for !renewing.Load() {
			time.Sleep(time.Millisecond)
		}
		mustUnlock(t, l)
		if renewing.Load() {
			t.Error("Unlock came back before the renewal")
		}
	})
}

// TestUnlockBehindARenewalThatHangs: it waits for half of its time, and releases then.
func TestUnlockBehindARenewalThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		s := &spy{Engine: store.Engine()}
		c, other := clientOn(t, s, holdfast.Config{}), clientOn(t, store.Engine(), holdfast.Config{})
		s.onRenew(func(ctx context.Context, claims []driver.Claim, _ func() []error) []error {
			<-ctx.Done()
			return failAll(claims, errNoReply)
		})
		l := mustLock(t, c.Mutex("x"))
		for s.renewals.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		begin := time.Now()
		mustUnlock(t, l)
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("Unlock took %v", took)
		}
		if _, err := other.Mutex("x").TryLock(t.Context()); err != nil {
			t.Errorf("it is still held: %v", err)
		}
		time.Sleep(time.Minute)
		if n := s.releases.Load(); n != 2 {
			t.Errorf("%d releases, want one more after the renewal was given up", n)
		}
	})
}

func TestTenThousandLeasesRenewInAFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpy()
		c := clientOn(t, s, holdfast.Config{})
		const leases = 10_000
		for i := range leases {
			mustLock(t, c.Mutex("x"+string(rune('a'+i%26))+time.Duration(i).String()))
		}
		time.Sleep(100 * time.Second)
		calls, renewed := s.renewals.Load(), s.renewed.Load()
		if renewed < 30*leases || renewed > 40*leases {
			t.Errorf("%d renewals of %d leases in 100 s, want one each 2.8 to 3.3 s", renewed, leases)
		}
		if calls > 100*4 {
			t.Errorf("%d calls in 100 s, want at most 4 a second", calls)
		}
	})
}
