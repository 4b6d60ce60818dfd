package holdfast_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

func TestTryLockNamesTheHolder(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{Owner: "host-a/1"})
	l := mustLock(t, a.Mutex("x"))
	for _, c := range []*holdfast.Client{a, b} {
		_, err := c.Mutex("x").TryLock(context.Background())
		want(t, err, holdfast.ErrHeld)
		var e *holdfast.Error
		if !errors.As(err, &e) || e.Holder == nil {
			t.Fatalf("%v does not name the holder", err)
		}
		h := e.Holder
		if h.Owner != "host-a/1" || h.Fence != l.Fence() || h.Mode != driver.Exclusive {
			t.Errorf("holder is %+v, want host-a/1 with fence %d", h, l.Fence())
		}
		if time.Since(h.Since) > time.Minute || time.Until(h.Until) <= 0 || time.Until(h.Until) > 11*time.Second {
			t.Errorf("holder since %v until %v", h.Since, h.Until)
		}
		if e.Outcome != holdfast.NotApplied || e.Op != "trylock" || e.Name != "x" || e.Engine != "memlock" {
			t.Errorf("error is %+v", e)
		}
		if text := err.Error(); !strings.HasPrefix(text, `holdfast: trylock "x" on memlock: held by "host-a/1" since `) {
			t.Errorf("text is %s", text)
		}
	}
	mustUnlock(t, l)
	l2, err := b.Mutex("x").TryLock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if l2.Fence() <= l.Fence() {
		t.Errorf("fence %d after %d", l2.Fence(), l.Fence())
	}
	mustUnlock(t, l2)
}

func TestUnlockTwice(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	first := mustLock(t, c.Mutex("x"))
	mustUnlock(t, first)
	second := mustLock(t, c.Mutex("x"))
	want(t, first.Unlock(), holdfast.ErrNotHeld)
	if _, err := c.Mutex("x").TryLock(context.Background()); !errors.Is(err, holdfast.ErrHeld) {
		t.Errorf("a second Unlock freed somebody else's lock: %v", err)
	}
	mustUnlock(t, second)
	if first.Context().Err() == nil || context.Cause(first.Context()) != context.Canceled {
		t.Error("the context of an unlocked lease goes on")
	}
	if first.Remaining() != 0 {
		t.Error("an unlocked lease has time left")
	}
}

func TestLockEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		l := mustLock(t, a.Mutex("x"))
		// One waits on the engine, one in the local queue behind it, one in the holder's.
		for _, c := range []*holdfast.Client{b, b, a} {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := c.Mutex("x").Lock(ctx)
				want(t, err, holdfast.ErrHeld, context.DeadlineExceeded)
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		mustUnlock(t, l)
		mustUnlock(t, mustLock(t, b.Mutex("x")))
	})
}

func TestDoneContextAsksNothing(t *testing.T) {
	s := newSpy()
	c := clientOn(t, s, holdfast.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Mutex("x").Lock(ctx)
	want(t, err, context.Canceled)
	_, err = c.Mutex("x").TryLock(ctx)
	want(t, err, context.Canceled)
	if n := s.acquires.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestInvalidHandlesSayEverythingAndSendNothing(t *testing.T) {
	s := newSpy()
	c := clientOn(t, s, holdfast.Config{})
	ctx := context.Background()
	_, err := c.Mutex("a\nb", holdfast.WithTTL(-1), holdfast.WithMaxHold(0), holdfast.WithOwner(strings.Repeat("o", 200))).Lock(ctx)
	want(t, err, holdfast.ErrInvalid)
	for _, part := range []string{"control character", "TTL is -1ns", "MaxHold is 0s", "owner has 200 bytes"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	sem := c.Semaphore("s", 3)
	for _, bad := range []func() (*holdfast.Lease, error){
		func() (*holdfast.Lease, error) { return c.Mutex("").Lock(ctx) },
		func() (*holdfast.Lease, error) { return c.Mutex(strings.Repeat("x", 513)).TryLock(ctx) },
		func() (*holdfast.Lease, error) { return c.Mutex("\xff").TryLock(ctx) },
		func() (*holdfast.Lease, error) { return c.RWMutex("\x00").RLock(ctx) },
		func() (*holdfast.Lease, error) { return sem.Acquire(ctx, 0) },
		func() (*holdfast.Lease, error) { return sem.Acquire(ctx, 4) },
		func() (*holdfast.Lease, error) { return sem.TryAcquire(ctx, -1) },
		func() (*holdfast.Lease, error) { return c.Semaphore("s", 0).Acquire(ctx, 1) },
		func() (*holdfast.Lease, error) { return c.Mutex("x", holdfast.WithTTL(1<<62)).Lock(ctx) },
		func() (*holdfast.Lease, error) { return c.Mutex("x", holdfast.WithMaxHold(time.Second)).Lock(ctx) },
		func() (*holdfast.Lease, error) { return c.Mutex("x", holdfast.WithOwner("a\x1bb")).Lock(ctx) },
	} {
		l, err := bad()
		want(t, err, holdfast.ErrInvalid)
		if l != nil {
			t.Error("a lease and an error")
		}
	}
	if n := s.acquires.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	engine := memlock.New(memlock.Config{})
	defer engine.Close()
	_, err := holdfast.New(engine, holdfast.Config{
		TTL: time.Millisecond, RenewInterval: time.Second, Owner: "\n",
		LocalHandoverWindow: -1, ReleaseTimeout: -1,
	})
	want(t, err, holdfast.ErrInvalid)
	for _, part := range []string{"TTL is 1ms", "RenewInterval is 1s", "owner", "LocalHandoverWindow", "ReleaseTimeout"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if _, err := holdfast.New(nil, holdfast.Config{}); !errors.Is(err, holdfast.ErrInvalid) {
		t.Errorf("a nil engine: %v", err)
	}
}

func TestDoReleasesWhenItPanics(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	func() {
		defer func() { recover() }()
		c.Mutex("x").Do(context.Background(), func(context.Context, *holdfast.Lease) error { panic("oh") })
	}()
	mustUnlock(t, mustLock(t, c.Mutex("x")))
}

func TestDoTellsOfALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		err := a.Mutex("x").Do(t.Context(), func(ctx context.Context, l *holdfast.Lease) error {
			store.Lose("x")
			mustLock(t, b.Mutex("x"))
			<-ctx.Done()
			want(t, context.Cause(ctx), holdfast.ErrLost)
			return nil
		})
		want(t, err, holdfast.ErrLost)
	})
}

func TestDoEndsWithTheCallersContext(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "v"))
	err := c.Mutex("x").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		if ctx.Value(key{}) != "v" || l.Context().Value(key{}) != "v" {
			t.Error("values are gone")
		}
		cancel()
		<-ctx.Done()
		if l.Context().Err() != nil {
			t.Error("the lease ended with the caller's context")
		}
		return ctx.Err()
	})
	want(t, err, context.Canceled)
	mustUnlock(t, mustLock(t, c.Mutex("x")))
}

func TestGoroutinesExcludeEachOther(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{})
	var (
		counter, inside int
		highest         int64
		group           sync.WaitGroup
	)
	const goroutines, rounds = 16, 200
	for i := range goroutines {
		c := []*holdfast.Client{a, b}[i%2]
		group.Go(func() {
			m := c.Mutex("x")
			for range rounds {
				l, err := m.Lock(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				inside++
				if inside != 1 {
					t.Error("two holders at once")
				}
				if l.Fence() <= highest {
					t.Errorf("fence %d after %d", l.Fence(), highest)
				}
				highest = l.Fence()
				counter++
				inside--
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if counter != goroutines*rounds {
		t.Errorf("%d increments, want %d", counter, goroutines*rounds)
	}
}
