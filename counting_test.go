package holdfast_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

// slowly has the engine answer calls for a counter after so long.
func slowly(store *memlock.Store, names map[string]time.Duration) {
	store.Inject(func(call memlock.Call) memlock.Fault { return memlock.Fault{Delay: names[call.Name]} })
}

// add counts in a goroutine, and answers how that ended.
func add(ctx context.Context, c *holdfast.Client, name string) <-chan error {
	over := make(chan error, 1)
	go func() {
		_, err := c.Counter(name, time.Hour).Add(ctx, 1)
		over <- err
	}()
	synctest.Wait()
	return over
}

// A call that the engine never answers does not hold up the others for ever, though its caller
// would wait.
func TestCountingBesideOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c, _ := twoClients(t, holdfast.Config{})
		slowly(store, map[string]time.Duration{"counter:hangs": 24 * time.Hour})
		hangs := add(t.Context(), c, "hangs")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := <-add(ctx, c, "other"); err != nil {
			t.Error(err)
		}
		want(t, <-hangs, holdfast.ErrUnavailable)
	})
}

// The end of a call that several share is not taken for that of a caller's context.
func TestCountingTogetherEnds(t *testing.T) {
	for what, ending := range map[string]struct {
		act  func(*holdfast.Client)
		want error
	}{
		"timeout": {func(*holdfast.Client) { time.Sleep(time.Minute) }, holdfast.ErrUnavailable},
		"close":   {func(c *holdfast.Client) { c.Close() }, holdfast.ErrClosed},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, c, _ := twoClients(t, holdfast.Config{})
				slowly(store, map[string]time.Duration{"counter:first": time.Second, "counter:hangs": 24 * time.Hour})
				first, one, two := add(t.Context(), c, "first"), add(t.Context(), c, "hangs"), add(t.Context(), c, "hangs")
				if err := <-first; err != nil {
					t.Error(err)
				}
				synctest.Wait()
				ending.act(c)
				for _, over := range []<-chan error{one, two} {
					err := <-over
					if !errors.Is(err, ending.want) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("error is %v, want %v", err, ending.want)
					}
				}
			})
		})
	}
}

// Nobody waits for a limit to let them pass when the client is closed.
func TestLimiterWaitEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, holdfast.Config{})
		l := c.Limiter("x", holdfast.FixedWindow(1, time.Hour))
		if err := l.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		over, began := make(chan error), time.Now()
		go func() { over <- l.Wait(t.Context(), 1) }()
		synctest.Wait()
		c.Close()
		want(t, <-over, holdfast.ErrClosed)
		if took := time.Since(began); took >= time.Hour {
			t.Errorf("it ended after %v", took)
		}
	})
}
