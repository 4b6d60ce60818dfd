package holdfast_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

// TestHandOverBounds: a process passes a lock on among its goroutines as often in a row as it
// may, and then other processes get their turn.
func TestHandOverBounds(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  holdfast.Config
		hold time.Duration
		most int // leases of one process in a row while another waits
	}{
		{"count", holdfast.Config{MaxLocalHandovers: 5}, time.Millisecond, 6},
		{"off", holdfast.Config{MaxLocalHandovers: -1}, time.Millisecond, 1},
		{"window", holdfast.Config{LocalHandoverWindow: 100 * time.Millisecond}, 30 * time.Millisecond, 5},
		{"default count", holdfast.Config{}, time.Millisecond, 65},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b := twoClients(t, tc.cfg)
				var order []byte
				var highest int64
				var group sync.WaitGroup
				first := mustLock(t, a.Mutex("x"))
				contend := func(c *holdfast.Client, who byte) {
					group.Go(func() {
						for range 10 {
							l := mustLock(t, c.Mutex("x"))
							order = append(order, who)
							if l.Fence() <= highest {
								t.Errorf("fence %d after %d", l.Fence(), highest)
							}
							highest = l.Fence()
							time.Sleep(tc.hold)
							mustUnlock(t, l)
						}
					})
				}
				for range 20 {
					contend(a, 'a')
					contend(b, 'b')
				}
				time.Sleep(time.Millisecond)
				mustUnlock(t, first)
				group.Wait()
				if row := longestRow(order); row > tc.most {
					t.Errorf("%d leases in a row, want at most %d: %s", row, tc.most, order)
				}
			})
		})
	}
}

// longestRow is the longest run of one process while the other still waited.
func longestRow(order []byte) int {
	left := map[byte]int{}
	for _, who := range order {
		left[who]++
	}
	longest, row := 0, 0
	for i, who := range order {
		if row++; i > 0 && order[i-1] != who {
			row = 1
		}
		left[who]--
		if left['a'] > 0 && left['b'] > 0 {
			longest = max(longest, row)
		}
	}
	return longest
}

func TestHandOverSkipsTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpy()
		c := clientOn(t, s, holdfast.Config{})
		var group sync.WaitGroup
		first := mustLock(t, c.Mutex("x"))
		for range 65 {
			group.Go(func() { mustUnlock(t, mustLock(t, c.Mutex("x"))) })
		}
		synctest.Wait()
		mustUnlock(t, first)
		group.Wait()
		// The first lease reserved no numbers for anybody; the second did for 64 others.
		if n := s.acquires.Load(); n != 2 {
			t.Errorf("%d requests for 66 leases, want 2", n)
		}
	})
}

// TestHandOverLeavesEnoughTime: a claim is not handed to a waiter whose TTL it cannot serve a
// third of.
func TestHandOverLeavesEnoughTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := twoClients(t, holdfast.Config{})
		warm := mustLock(t, a.Mutex("x"))
		var group sync.WaitGroup
		group.Go(func() {
			l := mustLock(t, a.Mutex("x", holdfast.WithTTL(time.Second)))
			time.Sleep(800 * time.Millisecond)
			mustUnlock(t, l)
		})
		synctest.Wait()
		group.Go(func() {
			l := mustLock(t, a.Mutex("x"))
			if l.Remaining() < 10*time.Second/3 {
				t.Errorf("a lease of 10s began with %v left", l.Remaining())
			}
			mustUnlock(t, l)
		})
		synctest.Wait()
		cutRenewals(store)
		mustUnlock(t, warm)
		group.Wait()
	})
}

func TestHandOverTakesOverTheSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		ctx := t.Context()
		warm, next := mustLock(t, a.Mutex("x")), make(chan *holdfast.Lease)
		wait := func(opts ...holdfast.Option) {
			go func() { next <- mustLock(t, a.Mutex("x", opts...)) }()
			synctest.Wait()
		}
		wait()
		wait(holdfast.WithTTL(time.Minute))
		wait(holdfast.WithMaxHold(20 * time.Second))
		mustUnlock(t, warm)
		mustUnlock(t, <-next)
		long := <-next
		time.Sleep(10 * time.Second) // the renewal asks for the longer TTL
		if left := long.Remaining(); left < 40*time.Second {
			t.Errorf("%v left of a minute", left)
		}
		mustUnlock(t, long)
		bounded := <-next
		time.Sleep(21 * time.Second)
		want(t, context.Cause(bounded.Context()), holdfast.ErrLost)
		if _, err := b.Mutex("x").TryLock(ctx); err != nil && !errors.Is(err, holdfast.ErrHeld) {
			t.Error(err)
		}
	})
}

// TestHandOverFromABoundedLease: a claim that was renewed for a short rest of MaxHold is
// renewed in time for the next holder, who has no such bound.
func TestHandOverFromABoundedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := twoClients(t, holdfast.Config{LocalHandoverWindow: 4900 * time.Millisecond})
		warm := mustLock(t, a.Mutex("x"))
		var group sync.WaitGroup
		group.Go(func() {
			l := mustLock(t, a.Mutex("x", holdfast.WithMaxHold(10*time.Second)))
			time.Sleep(4800 * time.Millisecond)
			mustUnlock(t, l)
		})
		synctest.Wait()
		group.Go(func() {
			l := mustLock(t, a.Mutex("x", holdfast.WithTTL(12*time.Second)))
			time.Sleep(time.Minute)
			mustUnlock(t, l)
		})
		synctest.Wait()
		mustUnlock(t, warm)
		group.Wait()
	})
}

// TestLossReachesTheLatestHolder: when a claim is lost that was handed over, it is its latest
// holder that is told, and nothing is passed on any more.
func TestLossReachesTheLatestHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		warm := mustLock(t, a.Mutex("x"))
		got := make(chan *holdfast.Lease)
		for range 3 {
			go func() { got <- mustLock(t, a.Mutex("x")) }()
			synctest.Wait()
		}
		mustUnlock(t, warm)
		first := <-got
		mustUnlock(t, first)
		second := <-got // handed over
		store.Lose("x")
		other := mustLock(t, b.Mutex("x"))
		<-second.Context().Done()
		want(t, context.Cause(second.Context()), holdfast.ErrLost)
		want(t, second.Unlock(), holdfast.ErrLost)
		synctest.Wait()
		select {
		case l := <-got:
			t.Fatalf("lease %d was handed on after the loss", l.Fence())
		default:
		}
		want(t, first.Unlock(), holdfast.ErrNotHeld)
		mustUnlock(t, other)
		third := <-got
		if third.Fence() <= other.Fence() {
			t.Errorf("fence %d after %d", third.Fence(), other.Fence())
		}
		mustUnlock(t, third)
	})
}

// TestCancelledWaiters cancels waiters at random, many of them in the instant of the grant.
func TestCancelledWaiters(t *testing.T) {
	before := runtime.NumGoroutine()
	store := memlock.NewStore(memlock.Config{})
	clients := make([]*holdfast.Client, 2)
	for i := range clients {
		var err error
		if clients[i], err = holdfast.New(store.Engine(), holdfast.Config{}); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	var inside int
	rounds := 2000
	if testing.Short() {
		rounds = 200
	}
	for i := range 16 {
		group.Go(func() {
			m := clients[i%2].Mutex("x")
			for range rounds {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(40))*time.Microsecond)
				l, err := m.Lock(ctx)
				if err == nil {
					inside++ // the race detector watches
					if inside != 1 {
						t.Error("two holders at once")
					}
					inside--
					if err := l.Unlock(); err != nil {
						t.Error(err)
					}
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	group.Wait()
	for _, c := range clients {
		mustUnlock(t, mustLock(t, c.Mutex("x")))
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	goroutinesBackTo(t, before)
}

// goroutinesBackTo waits until no more goroutines exist than before.
func goroutinesBackTo(t *testing.T, before int) {
	t.Helper()
	for range 500 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
}

// TestTenThousandWaiters: they cost the engine one waiter and little memory, and leave
// nothing behind when they are cancelled.
func TestTenThousandWaiters(t *testing.T) {
	const waiters = 10_000
	store, a, b := twoClients(t, holdfast.Config{})
	l := mustLock(t, a.Mutex("x"))
	before := runtime.NumGoroutine()
	heap := heapInUse()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	m := b.Mutex("x")
	for range waiters {
		group.Go(func() {
			_, err := m.Lock(ctx)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, holdfast.ErrHeld) {
				t.Errorf("cancelled waiter got %v", err)
			}
		})
	}
	for holdfast.LocalWaitersForTest(b, "x") < waiters-1 {
		time.Sleep(time.Millisecond)
	}
	info, err := a.Inspect(ctx, "x")
	if err != nil || info.Waiters != 1 {
		t.Errorf("%d waiters on the engine, want 1 (%v)", info.Waiters, err)
	}
	t.Logf("%d bytes a waiter, stack included", (heapInUse()-heap)/waiters)
	cancel()
	group.Wait()
	goroutinesBackTo(t, before)
	mustUnlock(t, l)
	if n := holdfast.NamesForTest(b); n > 64*4 {
		t.Errorf("%d names are remembered", n)
	}
	_ = store
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
