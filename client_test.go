package holdfast_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

func TestCloseReleasesAndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		a, err := holdfast.New(store.Engine(), holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		b := clientOn(t, store.Engine(), holdfast.Config{})
		held := mustLock(t, a.Mutex("x"))
		permits, err := a.Semaphore("s", 3).Acquire(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		other := mustLock(t, b.Mutex("y"))
		var group sync.WaitGroup
		for _, name := range []string{"x", "x", "y", "y"} {
			group.Go(func() {
				_, err := a.Mutex(name).Lock(t.Context())
				want(t, err, holdfast.ErrClosed)
			})
		}
		synctest.Wait()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		want(t, context.Cause(held.Context()), holdfast.ErrClosed)
		want(t, held.Unlock(), holdfast.ErrClosed)
		want(t, permits.Unlock(), holdfast.ErrClosed)
		for _, name := range []string{"x", "s"} {
			if l, err := b.Mutex(name).TryLock(t.Context()); err != nil {
				t.Errorf("%s is still held after Close: %v", name, err)
			} else {
				mustUnlock(t, l)
			}
		}
		mustUnlock(t, other)
		_, err = a.Mutex("z").Lock(t.Context())
		want(t, err, holdfast.ErrClosed)
		_, err = a.Inspect(t.Context(), "z")
		want(t, err, holdfast.ErrClosed)
		if err := a.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
	})
}

// TestUnknownOutcomesAreCleanedUp: a reply that never came may still have granted.
func TestUnknownOutcomesAreCleanedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		drop := func(op memlock.Op) {
			store.Inject(func(c memlock.Call) memlock.Fault { return memlock.Fault{DropReply: c.Op == op} })
		}
		drop(memlock.OpAcquire)
		_, err := a.Mutex("x").Lock(t.Context())
		want(t, err, holdfast.ErrUnavailable)
		var e *holdfast.Error
		if !errors.As(err, &e) || e.Outcome != holdfast.Unknown {
			t.Fatalf("outcome of %v is not unknown", err)
		}
		store.Inject(nil)
		synctest.Wait()
		l, err := b.Mutex("x").TryLock(t.Context())
		if err != nil {
			t.Fatalf("the grant nobody heard of still holds the lock: %v", err)
		}
		mustUnlock(t, l)

		// A release that fails is repeated.
		l = mustLock(t, a.Mutex("x"))
		store.Inject(func(c memlock.Call) memlock.Fault {
			if c.Op == memlock.OpRelease {
				return memlock.Fault{Refuse: errCut}
			}
			return memlock.Fault{}
		})
		want(t, l.Unlock(), holdfast.ErrUnavailable, errCut)
		time.Sleep(3 * time.Second)
		store.Inject(nil)
		time.Sleep(5 * time.Second) // less than the TTL
		mustUnlock(t, mustLock(t, b.Mutex("x")))

		// A release whose reply was lost has freed the lock all the same.
		l = mustLock(t, a.Mutex("x"))
		drop(memlock.OpRelease)
		want(t, l.Unlock(), holdfast.ErrUnavailable)
		store.Inject(nil)
		mustUnlock(t, mustLock(t, b.Mutex("x")))
	})
}

func TestUnlockHasItsOwnDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		l, err := a.Mutex("x").Lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		mustUnlock(t, l) // the caller's context ended long ago
		mustUnlock(t, mustLock(t, b.Mutex("x")))

		l = mustLock(t, a.Mutex("x"))
		store.Inject(func(c memlock.Call) memlock.Fault {
			if c.Op == memlock.OpRelease {
				return memlock.Fault{Delay: time.Hour}
			}
			return memlock.Fault{}
		})
		begin := time.Now()
		want(t, l.Unlock(), holdfast.ErrUnavailable, context.DeadlineExceeded)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("Unlock took %v", took)
		}
		store.Inject(nil)
	})
}

func TestEngineErrorsFailFast(t *testing.T) {
	store, a, _ := twoClients(t, holdfast.Config{})
	store.Inject(func(memlock.Call) memlock.Fault { return memlock.Fault{Refuse: errCut} })
	_, err := a.Mutex("x").Lock(context.Background())
	want(t, err, holdfast.ErrUnavailable, errCut)
	store.Inject(nil)
	mustUnlock(t, mustLock(t, a.Mutex("x")))
}

func TestLockAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		other := newClient(t, holdfast.Config{}) // another engine
		ctx := t.Context()
		all, err := holdfast.LockAll(ctx, a.Mutex("b"), a.Mutex("a"), other.Mutex("a"), a.RWMutex("r").RLocker())
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"b", "a", "a", "r"} {
			if l := all.All()[i]; l.Name() != name || l.Fence() <= 0 {
				t.Errorf("lease %d is of %s", i, l.Name())
			}
		}
		// All or nothing: the last one is held, so the others are released.
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err = holdfast.LockAll(short, b.Mutex("0"), b.Mutex("1"), b.Mutex("b"))
		cancel()
		want(t, err, holdfast.ErrHeld, context.DeadlineExceeded)
		for _, name := range []string{"0", "1"} {
			if _, err := a.Mutex(name).TryLock(ctx); err != nil {
				t.Errorf("%s was left behind: %v", name, err)
			}
		}
		if all.Context().Err() != nil {
			t.Error("ended too early")
		}
		if err := all.Unlock(); err != nil {
			t.Error(err)
		}
		if all.Context().Err() == nil {
			t.Error("the context goes on after Unlock")
		}
		_, err = holdfast.LockAll(ctx, a.Mutex("q"), b.Mutex("p"), a.Mutex("q"))
		want(t, err, holdfast.ErrInvalid)
		_, err = holdfast.LockAll(ctx, a.Mutex("q"), nil)
		want(t, err, holdfast.ErrInvalid)
		_, err = holdfast.LockAll(ctx, a.Mutex("q"), a.Mutex(""))
		want(t, err, holdfast.ErrInvalid)
	})
}

func TestLockAllEndsWithTheFirstLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := twoClients(t, holdfast.Config{})
		all, err := holdfast.LockAll(t.Context(), a.Mutex("a"), a.Mutex("b"))
		if err != nil {
			t.Fatal(err)
		}
		store.Lose("b")
		<-all.Context().Done()
		want(t, context.Cause(all.Context()), holdfast.ErrLost)
		want(t, all.Unlock(), holdfast.ErrLost)
	})
}

func TestLockAllInAnyOrderDoesNotDeadlock(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{})
	var group sync.WaitGroup
	for i := range 8 {
		c := []*holdfast.Client{a, b}[i%2]
		group.Go(func() {
			for n := range 50 {
				x, y := c.Mutex("x"), c.Mutex("y")
				if (n+i)%2 == 0 {
					x, y = y, x
				}
				all, err := holdfast.LockAll(context.Background(), x, y)
				if err != nil {
					t.Error(err)
					return
				}
				if err := all.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestListAndInspect(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{Owner: "me"})
	ctx := context.Background()
	for _, name := range []string{"app:2", "app:1", "other"} {
		defer mustUnlock(t, mustLock(t, a.Mutex(name)))
	}
	infos, err := b.List(ctx, "app:", 10)
	if err != nil || len(infos) != 2 || infos[0].Name != "app:1" || infos[1].Name != "app:2" {
		t.Errorf("list is %+v, %v", infos, err)
	}
	if infos, _ := b.List(ctx, "", 1); len(infos) != 1 {
		t.Errorf("%d names, want 1", len(infos))
	}
	_, err = b.List(ctx, "", 0)
	want(t, err, holdfast.ErrInvalid)
	info, err := b.Inspect(ctx, "other")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Owner != "me" || info.Fence != info.Holders[0].Fence {
		t.Errorf("info is %+v, %v", info, err)
	}
	_, err = b.Inspect(ctx, "")
	want(t, err, holdfast.ErrInvalid)
	c := clientOn(t, struct{ driver.Engine }{memlock.New(memlock.Config{})}, holdfast.Config{})
	_, err = c.Inspect(ctx, "x")
	want(t, err, holdfast.ErrUnsupported, errors.ErrUnsupported)
}

func TestOpen(t *testing.T) {
	ctx := context.Background()
	c, err := holdfast.Open(ctx, "mem://?ttl=7s&owner=me&max-local-handovers=3", holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := mustLock(t, c.Mutex("x"))
	if left := l.Remaining(); left > 7*time.Second || left < 5*time.Second {
		t.Errorf("%v left, want almost 7s", left)
	}
	mustUnlock(t, l)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for url, part := range map[string]string{
		"mem://?ttl=1":                    `parameter "ttl"`,
		"mem://?ttl=1s&ttl=2s":            "given 2 times",
		"mem://?bogus=1":                  `parameter "bogus" is not known`,
		"mem://?ttl=-5s":                  "TTL is -5s",
		"nope://host":                     `scheme "nope" is not known`,
		"":                                "scheme",
		"mem://user:secret@host/path?x=1": "parameter",
		"mem://user:secret@host":          "no user",
		"://secret":                       "URL",
		"mem://%zz:secret@":               "URL",
	} {
		_, err := holdfast.Open(ctx, url, holdfast.Config{})
		want(t, err, holdfast.ErrInvalid)
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// recorder is a Metrics and a Tracer that writes down its calls.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *recorder) Acquired(name string, how holdfast.Acquisition, _ time.Duration, err error) {
	r.add("acquired %s %s %v", name, how, err == nil)
}
func (r *recorder) Released(name string, _ time.Duration, err error) {
	r.add("released %s %v", name, err == nil)
}
func (r *recorder) Renewed(claims, failed int, _ time.Duration) {
	r.add("renewed %d %d", claims, failed)
}
func (r *recorder) Lost(name string, cause error) {
	r.add("lost %s %v", name, errors.Is(cause, holdfast.ErrLost))
}
func (r *recorder) Start(ctx context.Context, op, name string) (context.Context, func(error)) {
	r.add("start %s %s", op, name)
	return ctx, func(err error) { r.add("end %s %v", op, err == nil) }
}

func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		var log strings.Builder
		cfg := holdfast.Config{Metrics: &r, Tracer: &r, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		store, a, _ := twoClients(t, cfg)
		l := mustLock(t, a.Mutex("x"))
		a.Mutex("x").TryLock(t.Context())
		time.Sleep(4 * time.Second)
		mustUnlock(t, l)
		l = mustLock(t, a.Mutex("y"))
		store.Lose("y")
		<-l.Context().Done()
		synctest.Wait()
		want := []string{
			"start lock x", "acquired x engine true", "end lock true",
			"start trylock x", "acquired x  false", "end trylock false",
			"renewed 1 0",
			"start unlock x", "end unlock true", "released x true",
			"start lock y", "acquired y engine true", "end lock true",
			"lost y true", "renewed 1 1",
		}
		if got := strings.Join(r.lines, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("hooks were called as\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
		if !strings.Contains(log.String(), "lock lost") {
			t.Errorf("log is %q", log.String())
		}
	})
}
