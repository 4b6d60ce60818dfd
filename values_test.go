package holdfast_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
)

type valueKey struct{}

func withValue(ctx context.Context, v string) context.Context {
	return context.WithValue(ctx, valueKey{}, v)
}

// A lease that was handed over carries the values of its own acquire call, and so does the
// release that it ends with. The context of a lease may be asked for meanwhile.
func TestValuesOfALeaseHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{})
		m := c.Mutex("x")
		before := mustLock(t, m) // asks for one number: it goes back to the engine
		var waiting sync.WaitGroup
		var order []string
		for _, v := range []string{"first", "second"} {
			waiting.Go(func() {
				l, err := m.Lock(withValue(t.Context(), v))
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond)
				order = append(order, v)
				if got := l.Context().Value(valueKey{}); got != v {
					t.Errorf("the lease of %q has the value %v", v, got)
				}
				mustUnlock(t, l)
			})
			synctest.Wait()
		}
		var released []any
		var asking sync.WaitGroup
		e.onRelease(func(ctx context.Context, _ driver.Claim, next func() error) error {
			asking.Go(func() { before.Context() })
			released = append(released, ctx.Value(valueKey{}))
			return next()
		})
		mustUnlock(t, before)
		waiting.Wait()
		asking.Wait()
		if len(order) != 2 || order[0] != "first" || len(released) != 2 || released[0] != nil || released[1] != "second" {
			t.Errorf("held by %v, released with the values %v", order, released)
		}
	})
}

// An engine that grants more numbers than were asked for does not stretch the hand-overs.
func TestMoreNumbersThanAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c := clientOn(t, e, holdfast.Config{MaxLocalHandovers: 1})
		e.onAcquire(func(_ context.Context, req driver.Request, next func() (driver.Grant, error)) (driver.Grant, error) {
			if req.Span > 2 {
				t.Errorf("asked for %d numbers with one hand-over allowed", req.Span)
			}
			g, err := next()
			g.FenceSpan += 10
			return g, err
		})
		m := c.Mutex("x")
		l := mustLock(t, m)
		var waiting sync.WaitGroup
		for range 6 {
			waiting.Go(func() { mustUnlock(t, mustLock(t, m)) })
		}
		synctest.Wait()
		mustUnlock(t, l)
		waiting.Wait()
		// The first, and six in pairs.
		if n := e.acquires.Load(); n != 4 {
			t.Errorf("%d calls to the engine, want 4", n)
		}
	})
}
