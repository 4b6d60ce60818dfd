package holdfast_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// The patience with a renewal is a third of its own TTL, not of the shortest in the batch.
func TestShortTTLsDoNotPoisonTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		e.onRenew(func(ctx context.Context, claims []driver.Claim, next func() []error) []error {
			for _, cl := range claims {
				if end, _ := ctx.Deadline(); cl.Name == "healthy" && time.Until(end) < time.Second {
					t.Errorf("a lease of 10s has %v for its renewal", time.Until(end))
				}
			}
			return next()
		})
		for range 20 {
			l := mustLock(t, c.Mutex("healthy"))
			time.Sleep(2999 * time.Millisecond)
			hasty := mustLock(t, c.Mutex("hasty", holdfast.WithTTL(100*time.Millisecond)))
			time.Sleep(time.Second)
			mustUnlock(t, hasty)
			mustUnlock(t, l)
		}
	})
}

// Short leases keep the timer busy; others must not be renewed at each of its ticks.
func TestRenewalsOfMixedTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpy()
		c := clientOn(t, s, holdfast.Config{})
		for i := range 100 {
			mustLock(t, c.Mutex(fmt.Sprint(i), holdfast.WithTTL(time.Second)))
		}
		mustLock(t, c.Mutex("x", holdfast.WithTTL(10*time.Millisecond)))
		time.Sleep(10 * time.Second)
		if n := s.renewed.Load(); n > 100*10*4+10*400 {
			t.Errorf("%d renewals in 10 s of 100 leases of 1s and one of 10ms, want about 7000", n)
		}
	})
}

// What could not be released in time is forgotten, and not tried once the TTL is over.
func TestTheJanitorForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		var down atomic.Bool
		var late atomic.Int64
		down.Store(true)
		e.onAcquire(func(context.Context, driver.Request, func() (driver.Grant, error)) (driver.Grant, error) {
			return driver.Grant{}, errNoReply
		})
		e.onRelease(func(ctx context.Context, _ driver.Claim, next func() error) error {
			if down.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			late.Add(1)
			return next()
		})
		for i := range 5000 {
			c.Mutex(fmt.Sprint(i)).TryLock(t.Context())
		}
		time.Sleep(time.Minute) // all TTLs are over
		down.Store(false)
		time.Sleep(time.Minute)
		if n := late.Load(); n > 10 {
			t.Errorf("%d releases were kept and sent after their TTL", n)
		}
	})
}

// "Applied: it took effect, though the call failed": then somebody has to release it.
func TestAnAppliedFailureIsCleanedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{TTL: time.Hour})
		e.onAcquire(func(_ context.Context, _ driver.Request, next func() (driver.Grant, error)) (driver.Grant, error) {
			next()
			return driver.Grant{}, &driver.Error{Kind: driver.Unavailable, Outcome: driver.Applied, Err: errors.New("granted, and then this")}
		})
		_, err := c.Mutex("x").Lock(t.Context())
		want(t, err, holdfast.ErrUnavailable)
		e.onAcquire(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l, err := c.Mutex("x").Lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, l)
	})
}

// Close beside calls whose outcome becomes unknown. Run with -race.
func TestCloseBesideUnknownOutcomes(t *testing.T) {
	for range 50 {
		e := newSpy()
		e.onAcquire(func(_ context.Context, _ driver.Request, next func() (driver.Grant, error)) (driver.Grant, error) {
			next()
			time.Sleep(100 * time.Microsecond)
			return driver.Grant{}, errNoReply
		})
		e.onRelease(func(_ context.Context, _ driver.Claim, next func() error) error {
			time.Sleep(50 * time.Microsecond)
			return next()
		})
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for i := range 32 {
			group.Go(func() {
				for n := range 20 {
					c.Mutex(fmt.Sprint(i, "/", n)).TryLock(context.Background())
				}
			})
		}
		time.Sleep(time.Millisecond)
		c.Close()
		group.Wait()
	}
}

type causeKey struct{}

// The context of a release has the values of the acquire call's, and nothing else of it.
func TestCauseOfTheReleaseContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		var once sync.Once
		e.onRelease(func(ctx context.Context, _ driver.Claim, next func() error) error {
			once.Do(func() {
				if ctx.Value(causeKey{}) != "value" {
					t.Error("the values are gone")
				}
				sub, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				<-sub.Done()
				for _, ctx := range []context.Context{ctx, sub} {
					if err := context.Cause(ctx); err != context.DeadlineExceeded {
						t.Errorf("the cause of the end is %v, want that the deadline was exceeded", err)
					}
				}
			})
			return next()
		})
		ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), causeKey{}, "value"))
		l, err := c.Mutex("x").Lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel(errors.New("the request of the user is over"))
		l.Unlock()
	})
}

// spareReader returns a reader's lease on a claim that one more reader could join.
func spareReader(t *testing.T, rw *holdfast.RWMutex) *holdfast.Lease {
	t.Helper()
	w, err := rw.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *holdfast.Lease)
	go func() { l, _ := rw.RLock(t.Context()); got <- l }()
	synctest.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	go rw.Lock(ctx) // stands behind the reader: a number is reserved for it in vain
	synctest.Wait()
	mustUnlock(t, w)
	l := <-got
	cancel()
	synctest.Wait()
	return l
}

// While an upgrade waits, new readers are kept from joining, those of this process as well.
func TestReadersDoNotJoinWhileAnUpgradeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rw := newClient(t, holdfast.Config{}).RWMutex("x")
		reader := spareReader(t, rw)
		up, err := rw.LockUpgradeable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- up.Upgrade(t.Context()) }()
		synctest.Wait()
		if l, err := rw.TryRLock(t.Context()); err == nil {
			t.Error("a reader joined while an upgrade waits")
			mustUnlock(t, l)
		}
		mustUnlock(t, reader)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, up)
	})
}

// An upgradeable lease is unlocked while its Upgrade is on its way: what the engine made
// exclusive must not be handed on as upgradeable.
func TestUnlockDuringAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		e := &spy{Engine: store.Engine()}
		a, b := clientOn(t, e, holdfast.Config{}), clientOn(t, store.Engine(), holdfast.Config{})
		rw := a.RWMutex("x")
		w, err := rw.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan *holdfast.Lease)
		for range 3 { // the first gets it, the second waits on the engine, the third here
			go func() {
				l, err := rw.LockUpgradeable(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- l
			}()
			synctest.Wait()
		}
		e.onAcquire(func(_ context.Context, req driver.Request, next func() (driver.Grant, error)) (driver.Grant, error) {
			g, err := next()
			if req.Upgrade {
				time.Sleep(100 * time.Millisecond) // the reply is slow
			}
			return g, err
		})
		mustUnlock(t, w)
		up := <-got
		done := make(chan error)
		go func() { done <- up.Upgrade(t.Context()) }()
		synctest.Wait()
		mustUnlock(t, up)
		for range 2 {
			heir := <-got
			info, err := b.Inspect(t.Context(), "x")
			if err != nil || len(info.Holders) != 1 || info.Holders[0].Mode != driver.Upgradeable {
				t.Errorf("an upgradeable lease is this on the engine: %+v, %v", info.Holders, err)
			}
			mustUnlock(t, heir)
		}
		if err := <-done; err == nil {
			t.Error("upgraded a lease that was released")
		}
	})
}

// A cancelled call comes back when its context ends, not when the engine answers.
func TestACancelledWaiterIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		var slow atomic.Bool
		e.onRelease(func(_ context.Context, _ driver.Claim, next func() error) error {
			if slow.Load() {
				time.Sleep(time.Second)
			}
			return next()
		})
		m := c.Mutex("x")
		for range 100 {
			slow.Store(false)
			warm := mustLock(t, m)
			first := make(chan *holdfast.Lease)
			go func() { first <- mustLock(t, m) }()
			synctest.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			back := make(chan time.Duration)
			go func() {
				l, err := m.Lock(ctx)
				back <- time.Since(time.Unix(0, 0))
				if err == nil {
					l.Unlock()
				}
			}()
			synctest.Wait()
			mustUnlock(t, warm)
			l := <-first
			slow.Store(true)
			begin := time.Since(time.Unix(0, 0))
			cancel()
			l.Unlock()
			if took := <-back - begin; took > 0 {
				t.Fatalf("Lock came back %v after its context had ended", took)
			}
			time.Sleep(2 * time.Second)
		}
	})
}
