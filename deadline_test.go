package holdfast_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// believed fails the test if l is still believed held although b could take the lock.
func believed(t *testing.T, l *holdfast.Lease, m *holdfast.Mutex) {
	t.Helper()
	other := mustLock(t, m)
	if l.Context().Err() == nil || l.Remaining() > 0 {
		t.Errorf("two holders: fence %d has %v left, fence %d was granted", l.Fence(), l.Remaining(), other.Fence())
	}
	mustUnlock(t, other)
}

// An Extend to a shorter TTL is applied, its reply is lost, the engine is cut off.
func TestExtendToAShorterTTLWithoutReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		l.Context()
		store.Inject(func(c memlock.Call) memlock.Fault { return memlock.Fault{DropReply: c.Op == memlock.OpRenew} })
		want(t, l.Extend(t.Context(), 500*time.Millisecond), holdfast.ErrUnavailable)
		cutRenewals(store)
		believed(t, l, b.Mutex("x"))
		l.Unlock()
	})
}

// The same while the reply is still on its way.
func TestExtendToAShorterTTLWithALateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		e := &spy{Engine: store.Engine()}
		a, b := clientOn(t, e, holdfast.Config{}), clientOn(t, store.Engine(), holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		l.Context()
		e.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			errs := next()
			time.Sleep(3 * time.Second)
			return errs
		})
		done := make(chan error)
		go func() { done <- l.Extend(t.Context(), 500*time.Millisecond) }()
		synctest.Wait()
		believed(t, l, b.Mutex("x"))
		if err := <-done; err == nil {
			t.Error("Extend succeeded on a lease that had ended")
		}
		l.Unlock()
	})
}

// A claim with a long TTL is handed to a lease with a short one; its first renewal is applied
// on the engine, the reply is lost and the engine is cut off.
func TestHandOverToAShorterTTLThenCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		warm := mustLock(t, a.Mutex("x"))
		got := make(chan *holdfast.Lease)
		for _, ttl := range []time.Duration{time.Minute, time.Second} {
			go func() { got <- mustLock(t, a.Mutex("x", holdfast.WithTTL(ttl))) }()
			synctest.Wait()
		}
		mustUnlock(t, warm)
		mustUnlock(t, <-got) // the minute, handed over
		short := <-got
		short.Context()
		var first atomic.Bool
		store.Inject(func(c memlock.Call) memlock.Fault {
			if c.Op != memlock.OpRenew {
				return memlock.Fault{}
			}
			if first.CompareAndSwap(false, true) {
				return memlock.Fault{DropReply: true}
			}
			return memlock.Fault{Refuse: errCut}
		})
		time.Sleep(400 * time.Millisecond)
		if !first.Load() {
			t.Fatal("no renewal yet")
		}
		believed(t, short, b.Mutex("x"))
		short.Unlock()
	})
}

// Extend to an hour is answered while an Upgrade with the old TTL waits on the engine.
func TestUpgradeAfterExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		ctx := t.Context()
		up, err := a.RWMutex("x").LockUpgradeable(ctx)
		if err != nil {
			t.Fatal(err)
		}
		up.Context()
		reader, err := b.RWMutex("x").RLock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- up.Upgrade(ctx) }()
		synctest.Wait()
		if err := up.Extend(ctx, time.Hour); err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, reader)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		cutRenewals(store)
		believed(t, up, b.Mutex("x"))
		up.Unlock()
	})
}

// The engine renews in time, its answer comes after the lease had ended.
func TestExtendAnsweredAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		l := mustLock(t, c.Mutex("x", holdfast.WithoutRenewal()))
		e.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			errs := next()
			time.Sleep(9900 * time.Millisecond)
			return errs
		})
		time.Sleep(9 * time.Second)
		err := l.Extend(t.Context(), 10*time.Second)
		if l.Context().Err() == nil {
			t.Error("the lease came back")
		}
		if !errors.Is(err, holdfast.ErrLost) {
			t.Errorf("Extend of a lease that has ended answered %v", err)
		}
	})
}

// Extend races Unlock: it must not report success for a lease that was given up, nor change
// the settings of the lease that came after it.
func TestExtendRacesHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		warm := mustLock(t, c.Mutex("x"))
		got := make(chan *holdfast.Lease)
		for range 2 {
			go func() { got <- mustLock(t, c.Mutex("x", holdfast.WithoutRenewal())) }()
			synctest.Wait()
		}
		mustUnlock(t, warm)
		l := <-got
		e.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			time.Sleep(100 * time.Millisecond)
			return next()
		})
		done := make(chan error)
		go func() { done <- l.Extend(t.Context(), time.Hour) }()
		synctest.Wait()
		mustUnlock(t, l)
		heir := <-got
		if err := <-done; err == nil {
			t.Error("Extend of a lease that was released answered nil")
		}
		if left := heir.Remaining(); left > 10*time.Second {
			t.Errorf("a lease of 10s without renewal has %v left", left)
		}
		mustUnlock(t, heir)
	})
}

// A renewal of the predecessor is under way when the claim goes to a lease that is not to be
// renewed.
func TestRenewalUnderWayAtHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{RenewInterval: 500 * time.Millisecond, LocalHandoverWindow: 900 * time.Millisecond})
		warm := mustLock(t, c.Mutex("x"))
		got := make(chan *holdfast.Lease)
		for _, opts := range [][]holdfast.Option{nil, {holdfast.WithoutRenewal(), holdfast.WithTTL(2 * time.Second)}} {
			go func() { got <- mustLock(t, c.Mutex("x", opts...)) }()
			synctest.Wait()
		}
		mustUnlock(t, warm)
		l := <-got
		var under atomic.Bool
		e.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			under.Store(true)
			time.Sleep(200 * time.Millisecond)
			return next()
		})
		for !under.Load() {
			time.Sleep(time.Millisecond)
		}
		mustUnlock(t, l)
		short := <-got
		began := time.Now()
		<-short.Context().Done()
		if held := time.Since(began); held > 2*time.Second {
			t.Errorf("a lease of 2s without renewal was held for %v", held)
		}
	})
}

// Extend fails while a renewal is due: the renewals must go on.
func TestRenewalsGoOnAfterAFailedExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		l := mustLock(t, c.Mutex("x"))
		l.Context()
		var hang atomic.Bool
		e.onRenew(func(ctx context.Context, claims []driver.Claim, next func() []error) []error {
			if hang.Load() {
				<-ctx.Done()
				return failAll(claims, ctx.Err())
			}
			return next()
		})
		time.Sleep(2900 * time.Millisecond)
		hang.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
		defer cancel()
		want(t, l.Extend(ctx, 10*time.Second), holdfast.ErrUnavailable, context.DeadlineExceeded)
		hang.Store(false)
		time.Sleep(time.Minute)
		if l.Context().Err() != nil {
			t.Fatalf("lost though the engine answered again after 0.6 s: %v", context.Cause(l.Context()))
		}
		mustUnlock(t, l)
	})
}

// An Extend that hangs must not keep the lease from being renewed.
func TestAHangingExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		l := mustLock(t, c.Mutex("x"))
		l.Context()
		var calls atomic.Int32
		e.onRenew(func(ctx context.Context, claims []driver.Claim, next func() []error) []error {
			if calls.Add(1) == 1 { // one lost packet
				<-ctx.Done()
				return failAll(claims, ctx.Err())
			}
			return next()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := l.Extend(ctx, 10*time.Second)
		if l.Context().Err() != nil {
			t.Fatalf("lost behind an Extend that hung (%v): %v", err, context.Cause(l.Context()))
		}
		mustUnlock(t, l)
	})
}

// A renewal that is answered after the local deadline leaves a share on the engine that
// nobody holds.
func TestALateRenewalLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &sleepyClock{Clock: driver.MonotonicClock()}
		store := memlock.NewStore(memlock.Config{Clock: clock})
		e := &spy{Engine: store.Engine()}
		a, b := clientOn(t, e, holdfast.Config{}), clientOn(t, store.Engine(), holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		e.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			errs := next()
			clock.suspend(9600 * time.Millisecond) // the lease is over here
			return errs
		})
		want(t, l.Extend(t.Context(), 12*time.Hour), holdfast.ErrLost)
		want(t, l.Unlock(), holdfast.ErrLost)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		other, err := b.Mutex("x").Lock(ctx)
		if err != nil {
			t.Fatalf("nobody holds it, nobody gets it: %v", err)
		}
		mustUnlock(t, other)
	})
}

func TestALongMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		e.onRenew(func(_ context.Context, claims []driver.Claim, next func() []error) []error {
			if claims[0].TTL != 10*time.Second {
				t.Errorf("a renewal asks for %v", claims[0].TTL)
				return failAll(claims, errCut)
			}
			return next()
		})
		l := mustLock(t, c.Mutex("x", holdfast.WithMaxHold(3*365*24*time.Hour)))
		time.Sleep(4 * time.Second)
		mustUnlock(t, l)
	})
	c := newClient(t, holdfast.Config{}) // in real time: the clock reads more than 0
	l := mustLock(t, c.Mutex("x", holdfast.WithMaxHold(1<<63-1)))
	if l.Remaining() == 0 {
		t.Error("the largest MaxHold is over at once")
	}
	mustUnlock(t, l)
}

// On an engine that keeps shares until they are released, a lease with a MaxHold has to find
// out that its lock was broken as well.
func TestBreakOfALeaseWithMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		keep := func(caps *driver.Capabilities) { caps.Expires = false }
		e := &spy{Engine: store.Engine(), caps: keep}
		c := clientOn(t, e, holdfast.Config{})
		l := mustLock(t, c.Mutex("x", holdfast.WithMaxHold(time.Hour)))
		ctx := l.Context()
		store.Lose("x")
		time.Sleep(5 * time.Second)
		if ctx.Err() == nil {
			t.Error("a lease with a MaxHold was not told that its lock is gone")
		}
		l.Unlock()
	})
}

// WithoutRenewal promises the TTL less the hand-over window at most.
func TestWithoutRenewalIsHandedEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, holdfast.Config{})
		warm := mustLock(t, c.Mutex("x"))
		got := make(chan *holdfast.Lease)
		for _, ttl := range []time.Duration{10 * time.Second, 25 * time.Second} {
			go func() { got <- mustLock(t, c.Mutex("x", holdfast.WithoutRenewal(), holdfast.WithTTL(ttl))) }()
			synctest.Wait()
		}
		mustUnlock(t, warm)
		mustUnlock(t, <-got)
		l := <-got
		if left := l.Remaining(); left < 20*time.Second {
			t.Errorf("a lease of 25s without renewal began with %v left", left)
		}
		mustUnlock(t, l)
	})
}
