package leaver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A caller whose context has ended is let go when the patience is over, and nobody else is.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = time.Second
		closing := make(chan struct{})
		left := 0 // guarded by w.mu
		w := New(closing, patience, func() { left++ })
		after := func(what string, d time.Duration, want bool) {
			t.Helper()
			w.mu.Lock()
			left = 0
			w.mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if (left > 0) != want {
				t.Errorf("%s: left %d times", what, left)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.Enter(ctx)
		after("a context that has not ended", time.Hour, false)
		cancel()
		after("within the patience", patience, false)
		after("beyond it", 2*every, true)
		w.Exit()
		after("the exchange is over", time.Hour, false)
		w.mu.Lock()
		if w.looks {
			t.Error("looks for nobody")
		}
		w.mu.Unlock()

		w.Enter(ctx)
		w.Exit()
		w.Enter(t.Context())
		after("another caller's context had ended", time.Hour, false)
		close(closing)
		after("closed", patience+2*every, true)
		w.Exit()
		time.Sleep(2 * every) // until nothing looks any more
	})
}
