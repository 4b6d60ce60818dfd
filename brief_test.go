package holdfast_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// brief makes the engine grant for d only, as one does that grants to waiters which may be
// gone.
func brief(e *spy, d time.Duration) {
	e.onAcquire(func(ctx context.Context, req driver.Request, _ func() (driver.Grant, error)) (driver.Grant, error) {
		req.TTL = min(req.TTL, d)
		g, err := e.Engine.Acquire(ctx, req)
		g.TTL = d
		return g, err
	})
}

// A grant for less than was asked for is relied on for that long only, and the first renewal
// comes in time and asks for the whole TTL.
func TestBriefGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		brief(e, 3*time.Second)
		c := clientOn(t, e, holdfast.Config{TTL: 10 * time.Second})
		l := mustLock(t, c.Mutex("x"))
		if left := l.Remaining(); left > 3*time.Second || left < 2*time.Second {
			t.Errorf("remaining is %v, want nearly 3s", left)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if left := l.Remaining(); left < 8*time.Second || e.renewed.Load() != 1 {
			t.Errorf("remaining is %v after %d renewals, want nearly 9s after one", left, e.renewed.Load())
		}
		time.Sleep(time.Minute)
		mustUnlock(t, l)
	})
}

// One whose renewals fail ends with what was granted, not with what was asked for.
func TestBriefGrantIsNotBelievedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		e := &spy{Engine: store.Engine()}
		brief(e, 3*time.Second)
		e.onRenew(func(_ context.Context, claims []driver.Claim, _ func() []error) []error {
			return failAll(claims, errNoReply)
		})
		a := clientOn(t, e, holdfast.Config{TTL: 10 * time.Second})
		b := clientOn(t, store.Engine(), holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		l.Context()
		believed(t, l, b.Mutex("x"))
		l.Unlock()
	})
}

// A lease that is not to be renewed gets its whole TTL before it is handed out.
func TestBriefGrantWithoutRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		brief(e, 3*time.Second)
		c := clientOn(t, e, holdfast.Config{TTL: 10 * time.Second})
		l := mustLock(t, c.Mutex("x", holdfast.WithoutRenewal()))
		if left := l.Remaining(); left < 9*time.Second || e.renewed.Load() != 1 {
			t.Errorf("remaining is %v after %d renewals, want nearly 10s after one", left, e.renewed.Load())
		}
		mustUnlock(t, l)
	})
}

// A brief grant is handed over within the process like any other.
func TestBriefGrantIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{TTL: 10 * time.Second})
		first := mustLock(t, c.Mutex("x"))
		brief(e, 3*time.Second)
		done := make(chan struct{})
		for range 4 {
			go func() {
				mustUnlock(t, mustLock(t, c.Mutex("x")))
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		first.Unlock()
		for range 4 {
			<-done
		}
		// The first grant's span was one number, the second one serves those that wait.
		if n := e.acquires.Load(); n != 2 {
			t.Errorf("%d requests to the engine, want 2", n)
		}
	})
}
