package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// keep renews what is held until the returned function is called, which fails the test if it
// was lost.
func (x *onCluster) keep(e *redislock.Engine, claims ...driver.Claim) (stop func()) {
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var lost error
		for {
			for _, err := range e.Renew(context.Background(), claims) {
				if kind, _ := kindOf(err); err != nil && kind != driver.Unavailable {
					lost = errors.Join(lost, err)
				}
			}
			select {
			case <-done:
				ended <- lost
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() {
		x.Helper()
		close(done)
		if err := <-ended; err != nil {
			x.Errorf("what was held has been lost: %v", err)
		}
		ctx, cancel := bounded()
		defer cancel()
		for i, err := range e.Renew(ctx, claims) {
			if err != nil {
				x.Errorf("%v share of %q: %v", claims[i].Mode, claims[i].Name, err)
			}
		}
	}
}

// TestClusterMoveSlot: a slot goes to another node while shares of every kind are held and
// waited for. Holders keep them, and those who wait get theirs.
func TestClusterMoveSlot(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	a, b := x.engine(ungated), x.engine(ungated)
	const slot = 77
	tag := slotNames()[slot]
	request := func(name string, mode driver.Mode) driver.Request {
		req := ask(tag+name, 20*time.Second)
		if req.Mode = mode; mode == driver.Permits {
			req.Weight, req.Limit = 2, 3
		}
		return req
	}
	for i, to := range []*testserver.RedisServer{x.Nodes()[1], x.Nodes()[0]} {
		lock := x.take(a, request("lock", driver.Exclusive))
		readers := []driver.Claim{x.take(a, request("read", driver.Shared)), x.take(a, request("read", driver.Shared))}
		permits := x.take(a, request("permits", driver.Permits))
		first := x.wait(b, request("lock", driver.Exclusive))
		second := x.wait(b, request("lock", driver.Exclusive))
		writer := x.wait(b, request("read", driver.Exclusive))
		permit := x.wait(b, request("permits", driver.Permits))
		kept := x.keep(a, append([]driver.Claim{lock, permits}, readers...)...)
		x.MoveSlot(slot, to)
		kept()
		for _, w := range []*waiting{first, second, writer, permit} {
			if len(w.err) > 0 {
				t.Fatalf("move %d: a waiting %v request for %q ended: %v", i, w.req.Mode, w.req.Name, <-w.err)
			}
		}
		x.release(a, lock)
		// The first may have lost its turn to the second, which heard of its new node earlier.
		next, last := first, second
		x.until("one of the two has the lock", func() bool {
			if len(second.err) > 0 {
				next, last = second, first
			}
			return len(next.err) > 0
		})
		claim := next.granted()
		if len(last.err) > 0 {
			t.Error("two hold a lock")
		}
		x.release(b, claim)
		x.release(b, last.granted())
		x.release(a, readers[0])
		if info := x.inspect(b, tag+"read"); len(info.Holders) != 1 || info.Holders[0].Mode != driver.Shared {
			t.Errorf("one reader is left, Inspect says %+v", info)
		}
		x.release(a, readers[1])
		x.release(b, writer.granted())
		x.release(a, permits)
		x.release(b, permit.granted())
	}
}

// watch sees whether two hold one exclusive lock at the same time.
type watch struct {
	clock driver.Clock
	mu    sync.Mutex
	until driver.Instant // of the lease that was granted last, as its holder believes
	holds bool
	fence int64

	grants atomic.Int64
}

func (w *watch) granted(t *testing.T, g driver.Grant, ttl time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Now()
	until := g.Sent.Add(g.Lives(ttl))
	if now >= until {
		return // it was over when it came
	}
	if w.holds && now < w.until {
		t.Errorf("granted %v before the lease of another holder ends", w.until.Sub(now))
	}
	if g.Fence <= w.fence {
		t.Errorf("fence %d after %d", g.Fence, w.fence)
	}
	w.holds, w.until, w.fence = true, until, g.Fence
	w.grants.Add(1)
}

// returned is called before the lock is given back.
func (w *watch) returned(fence int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fence == fence {
		w.holds = false
	}
}

// contend has the engines take and give back a lock, by waiting and by trying, until stop is
// closed. What fails fails for lack of a server.
func contend(t *testing.T, w *watch, name string, ttl time.Duration, stop <-chan struct{}, engines ...*redislock.Engine) *sync.WaitGroup {
	var all sync.WaitGroup
	for i := range 3 * len(engines) {
		e := engines[i%len(engines)]
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				req := ask(name, ttl)
				req.Wait = i%3 > 0
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(3000))*time.Millisecond)
				g, err := e.Acquire(ctx, req)
				cancel()
				if err != nil {
					if kind, _ := kindOf(err); kind != driver.Held && kind != driver.Unavailable {
						t.Errorf("Acquire: %v", err)
					}
					time.Sleep(time.Millisecond)
					continue
				}
				w.granted(t, g, ttl)
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
				w.returned(g.Fence)
				ctx, cancel = bounded()
				err = e.Release(ctx, req.Claim(g))
				cancel()
				if kind, _ := kindOf(err); err != nil && kind != driver.NotHeld && kind != driver.Unavailable {
					t.Errorf("Release: %v", err)
				}
			}
		})
	}
	return &all
}

// TestClusterMoveSlotContended: nobody gets in beside a holder while the slot of a lock goes
// from node to node, and it goes on being granted.
func TestClusterMoveSlotContended(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	for _, cfg := range []redislock.Config{ungated, {Safety: redislock.CrashSafe, MaxTTL: 500 * time.Millisecond}} {
		const slot = 99
		w := &watch{clock: driver.BootClock()}
		stop := make(chan struct{})
		name := slotNames()[slot] + cfg.Safety.String()
		all := contend(t, w, name, 500*time.Millisecond, stop, x.engine(cfg), x.engine(cfg))
		grants := func(n int64) {
			t.Helper()
			from := w.grants.Load()
			x.until("the lock is granted", func() bool { return w.grants.Load() >= from+n })
		}
		grants(20)
		for _, to := range []int{1, 2, 1, 0} {
			x.MoveSlot(slot, x.Nodes()[to])
			grants(20)
		}
		close(stop)
		all.Wait()
	}
}

// TestClusterSlotUnderWay: while the keys of a slot are partly here, partly there, requests
// fail without effect, and who waits goes on waiting.
func TestClusterSlotUnderWay(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	a, b := x.engine(ungated), x.engine(ungated)
	const slot = 123
	name := slotNames()[slot]
	held := x.take(a, ask(name, time.Minute))
	w := x.wait(b, ask(name, time.Minute))
	from, to := x.Nodes()[0], x.Nodes()[1]
	x.BeginMove(slot, to)
	reply, err := from.Do("CLUSTER", "GETKEYSINSLOT", "123", "100")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range reply.([]any) {
		if key := k.(string); strings.HasSuffix(key, ":"+name) && !strings.HasPrefix(key, "holdfast.") {
			x.MoveKeys(to, key) // the lock, but not its queue
		}
	}
	ctx, cancel := bounded()
	defer cancel()
	for _, other := range []string{name, name + "new"} {
		_, err := a.Acquire(ctx, ask(other, time.Minute))
		if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied {
			t.Errorf("request for %q while it is under way: %v (%v)", other, err, outcome)
		}
	}
	err = a.Renew(ctx, []driver.Claim{held})[0]
	if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied {
		t.Errorf("renewal while it is under way: %v (%v)", err, outcome)
	}
	x.EndMove(slot, to)
	if err := a.Renew(ctx, []driver.Claim{held})[0]; err != nil {
		t.Errorf("renewal: %v", err)
	}
	if len(w.err) > 0 {
		t.Fatalf("the waiting request ended: %v", <-w.err)
	}
	x.release(a, held)
	x.release(b, w.granted())
}

// TestClusterGivenUpDuringMove: a request that its caller gave up while it looked for its slot
// is not made any more.
func TestClusterGivenUpDuringMove(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	ctx, cancel := bounded()
	defer cancel()
	e, err := redislock.Open(ctx, "redis+cluster://"+strings.Join(x.Addrs(), ","), ungated)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const slot = 250
	var names []string
	for round := range 4 {
		to := x.Nodes()[(round+1)%2]
		x.BeginMove(slot, to)
		var all sync.WaitGroup
		for i := range 8 {
			name := fmt.Sprint(slotNames()[slot], round, "-", i)
			names = append(names, name)
			all.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, time.Duration(50+20*i)*time.Millisecond)
				defer cancel()
				_, err := e.Acquire(ctx, ask(name, time.Minute))
				if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied {
					t.Errorf("%q: %v (%v)", name, err, outcome)
				}
			})
		}
		all.Wait()
		x.EndMove(slot, to)
	}
	time.Sleep(time.Second) // for what must not happen
	for _, name := range names {
		if info := x.inspect(e, name); len(info.Holders) > 0 {
			t.Errorf("%q was taken for a caller who had given up: %+v", name, info)
		}
	}
}

// TestClusterCloseDuringMove: Close ends calls that look for their slot, and leaves nothing
// behind.
func TestClusterCloseDuringMove(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	const slot = 200
	name := slotNames()[slot]
	holder := x.engine(ungated)
	x.take(holder, ask(name, time.Minute))
	x.BeginMove(slot, x.Nodes()[1])
	for round := range 10 {
		pprof.Do(context.Background(), pprof.Labels("round", name), func(context.Context) {
			e, err := redislock.Open(context.Background(), "redis+cluster://"+strings.Join(x.Addrs(), ","), ungated)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(100))*time.Millisecond)
					defer cancel()
					req := ask(name, time.Minute)
					req.Wait = i%2 == 0
					if g, err := e.Acquire(ctx, req); err == nil {
						t.Errorf("granted %+v", g)
					}
				})
			}
			time.Sleep(time.Duration(round*15) * time.Millisecond)
			if err := e.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			all.Wait()
		})
	}
	x.until("no goroutine is left", func() bool {
		var stacks strings.Builder
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
			if strings.Contains(stack, `"round":"`+name) && strings.Contains(stack, "redislock.") {
				return false
			}
		}
		return true
	})
}
