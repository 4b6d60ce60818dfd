package filelock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// result is what an Acquire answered.
type result struct {
	grant driver.Grant
	err   error
}

func acquireAsync(ctx context.Context, e driver.Engine, r driver.Request) <-chan result {
	c := make(chan result, 1)
	go func() {
		g, err := e.Acquire(ctx, r)
		c <- result{g, err}
	}()
	return c
}

func await(t *testing.T, c <-chan result) result {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(liveness):
		t.Fatal("the call does not return")
		panic("unreachable")
	}
}

// descriptors counts what the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestQueueIsServedInOrder(t *testing.T) {
	folder := t.TempDir()
	holder := open(t, folder)
	r := request("a")
	g := acquire(t, holder, r)
	const n = 6
	var reqs [n]driver.Request
	var results [n]<-chan result
	var engines [n]*filelock.Engine
	for i := range n {
		engines[i] = open(t, folder)
		reqs[i] = waiting(request("a"))
		results[i] = acquireAsync(patient(t), engines[i], reqs[i])
		awaitWaiters(t, holder, "a", i+1)
	}
	release(t, holder, r.Claim(g))
	last := g.Fence
	for i := range n {
		res := await(t, results[i])
		if res.err != nil || res.grant.Fence <= last {
			t.Fatalf("waiter %d: fence %d after %d, %v", i, res.grant.Fence, last, res.err)
		}
		last = res.grant.Fence
		for j := i + 1; j < n; j++ {
			select {
			case r := <-results[j]:
				t.Fatalf("waiter %d came before %d: %v", j, i, r.err)
			default:
			}
		}
		release(t, engines[i], reqs[i].Claim(res.grant))
	}
}

// A wait that is cancelled leaves nothing behind: no entry, goroutine or descriptor.
func TestCancelledWaitLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	holder, e, next := open(t, folder), open(t, folder), open(t, folder)
	r := request("a")
	g := acquire(t, holder, r)
	cancelOne := func() {
		ctx, cancel := context.WithCancel(t.Context())
		c := acquireAsync(ctx, e, waiting(request("a")))
		awaitWaiters(t, holder, "a", 1)
		cancel()
		res := await(t, c)
		if !errors.Is(res.err, context.Canceled) {
			t.Fatalf("error %v", res.err)
		}
		var d *driver.Error
		if !errors.As(res.err, &d) || d.Outcome != driver.NotApplied {
			t.Fatalf("outcome of %v", res.err)
		}
	}
	cancelOne() // opens the inbox, which the engine keeps
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for range 20 {
		cancelOne()
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors, %d before", now, files)
	}
	if e.Waiting() != 0 {
		t.Errorf("%d calls are entered as waiting", e.Waiting())
	}
	awaitWaiters(t, holder, "a", 0)
	c := acquireAsync(patient(t), next, waiting(request("a")))
	awaitWaiters(t, holder, "a", 1)
	release(t, holder, r.Claim(g))
	if res := await(t, c); res.err != nil {
		t.Error(res.err)
	}
}

// A waiter that leaves lets those behind it through: readers behind a writer that gave up.
func TestCancelledWriterLetsReadersThrough(t *testing.T) {
	folder := t.TempDir()
	reader, writer, late := open(t, folder), open(t, folder), open(t, folder)
	acquire(t, reader, inMode(request("a"), driver.Shared))
	ctx, cancel := context.WithCancel(t.Context())
	w := acquireAsync(ctx, writer, waiting(request("a")))
	awaitWaiters(t, reader, "a", 1)
	_, err := late.Acquire(patient(t), inMode(request("a"), driver.Shared))
	wantKind(t, err, driver.Held) // it must not overtake
	l := acquireAsync(patient(t), late, waiting(inMode(request("a"), driver.Shared)))
	awaitWaiters(t, reader, "a", 2)
	cancel()
	await(t, w)
	if res := await(t, l); res.err != nil {
		t.Error(res.err)
	}
}

// Cancelling races with the grant: whatever wins, the lock is with somebody who knows.
func TestCancelRacesWithGrant(t *testing.T) {
	folder := t.TempDir()
	a, b, c := open(t, folder), open(t, folder), open(t, folder)
	for range 100 {
		r := request("a")
		g := acquire(t, a, r)
		ctx, cancel := context.WithCancel(t.Context())
		w := waiting(request("a"))
		res := acquireAsync(ctx, b, w)
		awaitWaiters(t, a, "a", 1)
		var both sync.WaitGroup
		both.Go(func() { release(t, a, r.Claim(g)) })
		both.Go(cancel)
		both.Wait()
		if got := await(t, res); got.err == nil {
			release(t, b, w.Claim(got.grant))
		}
		cycle(t, c, "a")
	}
}

func TestUpgrade(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	up := inMode(request("a"), driver.Upgradeable)
	g := acquire(t, a, up)
	reader := inMode(request("a"), driver.Shared)
	rg := acquire(t, b, reader)
	upgrade := waiting(up)
	upgrade.Mode, upgrade.Upgrade = driver.Exclusive, true
	ctx, cancel := context.WithCancel(t.Context())
	c := acquireAsync(ctx, a, upgrade)
	awaitWaiters(t, b, "a", 1)
	cancel()
	if res := await(t, c); !errors.Is(res.err, context.Canceled) {
		t.Fatal(res.err)
	}
	if err := a.Renew(patient(t), []driver.Claim{up.Claim(g)})[0]; err != nil {
		t.Fatalf("the upgradeable share is gone: %v", err)
	}
	c = acquireAsync(patient(t), a, upgrade)
	awaitWaiters(t, b, "a", 1)
	release(t, b, reader.Claim(rg))
	res := await(t, c)
	if res.err != nil || res.grant.Fence <= rg.Fence {
		t.Fatalf("fence %d after %d, %v", res.grant.Fence, rg.Fence, res.err)
	}
	_, err := b.Acquire(patient(t), reader)
	wantKind(t, err, driver.Held)
	release(t, a, upgrade.Claim(res.grant))
	_, err = a.Acquire(patient(t), upgrade)
	wantKind(t, err, driver.Lost)
}

func TestPermits(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	permits := func(weight, limit int) driver.Request {
		r := inMode(request("a"), driver.Permits)
		r.Weight, r.Limit = weight, limit
		return r
	}
	two := permits(2, 3)
	g := acquire(t, a, two)
	acquire(t, b, permits(1, 3))
	_, err := a.Acquire(patient(t), permits(1, 3))
	wantKind(t, err, driver.Held)
	_, err = a.Acquire(patient(t), permits(1, 4))
	wantKind(t, err, driver.Invalid)
	_, err = a.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Held)
	_, err = a.Acquire(patient(t), permits(1, filelock.MaxPermits+1))
	wantKind(t, err, driver.Invalid)
	c := acquireAsync(patient(t), b, waiting(permits(2, 3)))
	awaitWaiters(t, a, "a", 1)
	release(t, a, two.Claim(g))
	if res := await(t, c); res.err != nil {
		t.Error(res.err)
	}
}

// A member that ends frees what it holds, and what it waits for goes to the next.
func TestCloseFrees(t *testing.T) {
	folder := t.TempDir()
	holder, waiter, next := open(t, folder), open(t, folder), open(t, folder)
	g := acquire(t, holder, request("a"))
	w := acquireAsync(patient(t), waiter, waiting(request("a")))
	awaitWaiters(t, next, "a", 1)
	n := acquireAsync(patient(t), next, waiting(request("a")))
	awaitWaiters(t, next, "a", 2)
	waiter.Close()
	wantKind(t, await(t, w).err, driver.Closed)
	holder.Close()
	if res := await(t, n); res.err != nil || res.grant.Fence <= g.Fence {
		t.Errorf("fence %d after %d, %v", res.grant.Fence, g.Fence, res.err)
	}
	_, err := holder.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Closed)
	for _, err := range holder.Renew(patient(t), make([]driver.Claim, 2)) {
		wantKind(t, err, driver.Closed)
	}
	if files, _ := os.ReadDir(filepath.Join(folder, "members")); len(files) != 2 {
		t.Errorf("members: %v, want next and its inbox", files)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for range 10 {
		a, b := open(t, folder), open(t, folder)
		for i := range 2 * filelock.MaxIdle {
			cycle(t, a, "n"+itoa(i))
		}
		if n := a.OpenFiles(); n > filelock.MaxIdle {
			t.Errorf("%d files are kept open", n)
		}
		acquire(t, a, request("a"))
		c := acquireAsync(patient(t), b, waiting(request("a")))
		awaitWaiters(t, a, "a", 1)
		b.Close()
		wantKind(t, await(t, c).err, driver.Closed)
		a.Close()
		a.Close()
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors, %d before", now, files)
	}
	if left, _ := os.ReadDir(filepath.Join(folder, "members")); len(left) != 0 {
		t.Errorf("left in members: %v", left)
	}
}

// An uncontended lock starts no goroutine.
func TestUncontendedStartsNothing(t *testing.T) {
	e := open(t, t.TempDir())
	before := runtime.NumGoroutine()
	acquire(t, e, request("a"))
	if now := runtime.NumGoroutine(); now > before+1 { // one for the context of the call
		t.Errorf("%d goroutines, %d before", now, before)
	}
}

// Somebody who is frozen in a section holds up changes, but no context and no renewal.
func TestFrozenInSection(t *testing.T) {
	folder := t.TempDir()
	e, other := open(t, folder), open(t, folder)
	r := request("a")
	g := acquire(t, e, r)
	waitCtx, cancelWait := context.WithCancel(t.Context())
	w := acquireAsync(waitCtx, other, waiting(request("a")))
	awaitWaiters(t, e, "a", 1)
	goOn, err := e.HoldGuard("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Renew(patient(t), []driver.Claim{r.Claim(g)})[0]; err != nil {
		t.Errorf("renewal: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = e.Acquire(ctx, request("a"))
	wantKind(t, err, driver.Unavailable)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("error %v", err)
	}
	cancelWait()
	var d *driver.Error
	if res := await(t, w); !errors.As(res.err, &d) || d.Outcome != driver.Unknown || !errors.Is(res.err, context.Canceled) {
		t.Errorf("the wait could not be taken back: %v", res.err)
	}
	goOn()
	release(t, e, r.Claim(g))
}

func TestFrozenInSectionAndClose(t *testing.T) {
	e := open(t, t.TempDir())
	cycle(t, e, "a")
	goOn, err := e.HoldGuard("a")
	if err != nil {
		t.Fatal(err)
	}
	defer goOn()
	c := acquireAsync(context.Background(), e, request("a"))
	e.Close()
	wantKind(t, await(t, c).err, driver.Closed)
}

func TestReleaseWithdraws(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	r := request("a")
	g := acquire(t, a, r)
	w := waiting(request("a"))
	ctx, cancel := context.WithCancel(t.Context())
	c := acquireAsync(ctx, b, w)
	awaitWaiters(t, a, "a", 1)
	wantKind(t, b.Release(patient(t), w.Claim(driver.Grant{})), driver.NotHeld)
	cancel()
	await(t, c)
	release(t, a, r.Claim(g))
	wantKind(t, a.Release(patient(t), r.Claim(g)), driver.NotHeld)
	wantKind(t, a.Release(patient(t), request("never seen").Claim(g)), driver.NotHeld)
}

func TestSpan(t *testing.T) {
	e := open(t, t.TempDir())
	last := int64(0)
	for range 20 {
		r := request("a")
		r.Span = 64
		g := acquire(t, e, r)
		if g.Fence <= last || g.FenceSpan < 1 || g.FenceSpan > 64 {
			t.Fatalf("%+v after %d", g, last)
		}
		last = g.Fence + int64(g.FenceSpan) - 1
		release(t, e, r.Claim(g))
	}
}
