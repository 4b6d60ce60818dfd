package holdfast_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

// TestStress: goroutines of three clients do everything at random on a few names, with
// replies lost, calls refused, locks broken, and contexts cancelled at any moment. Nobody who
// is told that he holds the lock does so beside another, and when everybody has stopped the
// names are free and nobody is left waiting.
func TestStress(t *testing.T) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		stress(t, uint64(round))
	}
}

func stress(t *testing.T, seed uint64) {
	before := runtime.NumGoroutine()
	store := memlock.NewStore(memlock.Config{})
	var clients []*holdfast.Client
	for range 3 {
		c, err := holdfast.New(store.Engine(), holdfast.Config{TTL: 200 * time.Millisecond, ReleaseTimeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	var faults atomic.Bool
	faults.Store(true)
	store.Inject(func(c memlock.Call) memlock.Fault {
		if !faults.Load() {
			return memlock.Fault{}
		}
		switch rand.IntN(40) {
		case 0:
			return memlock.Fault{DropReply: true}
		case 1:
			return memlock.Fault{Refuse: errCut}
		case 2:
			return memlock.Fault{Delay: time.Duration(rand.IntN(3000)) * time.Microsecond}
		}
		return memlock.Fault{}
	})
	names := []string{"a", "b", "c", "sem"}
	books := map[string]*stressBook{}
	for _, n := range names {
		books[n] = &stressBook{held: map[*holdfast.Lease]stressShare{}, seen: map[int64]bool{}}
	}
	stop := time.Now().Add(2500 * time.Millisecond)
	var group sync.WaitGroup
	var ok, failed atomic.Int64
	for g := range 48 {
		r := rand.New(rand.NewPCG(seed, uint64(g)))
		c := clients[g%3]
		group.Go(func() {
			for time.Now().Before(stop) {
				name := names[r.IntN(len(names))]
				b := books[name]
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(20000))*time.Microsecond)
				opts := [][]holdfast.Option{nil, nil, nil, {holdfast.WithTTL(400 * time.Millisecond)}, {holdfast.WithoutRenewal()}, {holdfast.WithMaxHold(250 * time.Millisecond)}, {holdfast.WithOwner("other")}}[r.IntN(7)]
				var l *holdfast.Lease
				var err error
				var w, rd, p int
				rw := c.RWMutex(name, opts...)
				if name == "sem" {
					p = 1 + r.IntN(3)
					if r.IntN(4) == 0 {
						l, err = c.Semaphore(name, 4, opts...).TryAcquire(ctx, p)
					} else {
						l, err = c.Semaphore(name, 4, opts...).Acquire(ctx, p)
					}
				} else {
					switch r.IntN(9) {
					case 0, 1, 2:
						l, err = rw.Lock(ctx)
						w = 1
					case 3:
						l, err = rw.TryLock(ctx)
						w = 1
					case 4, 5:
						l, err = rw.RLock(ctx)
						rd = 1
					case 6:
						l, err = rw.TryRLock(ctx)
						rd = 1
					default:
						l, err = rw.LockUpgradeable(ctx)
						rd = 1
						if err == nil && r.IntN(2) == 0 {
							short, stop := context.WithTimeout(context.Background(), time.Duration(r.IntN(5000))*time.Microsecond)
							if l.Upgrade(short) == nil {
								w, rd = 1, 0
							}
							stop()
						}
					}
				}
				if (l == nil) == (err == nil) {
					t.Errorf("lease %v and error %v", l, err)
				}
				cancel()
				if err != nil {
					failed.Add(1)
					var e *holdfast.Error
					if !errors.As(err, &e) {
						t.Errorf("%T %v", err, err)
					}
					continue
				}
				ok.Add(1)
				if err := b.enter(l, stressShare{w, rd, p}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if r.IntN(8) == 0 {
					l.Extend(context.Background(), time.Duration(50+r.IntN(500))*time.Millisecond)
				}
				if r.IntN(10) == 0 {
					time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
				}
				b.leave(l)
				if r.IntN(20) == 0 {
					go l.Unlock()
				}
				l.Unlock()
			}
		})
	}
	group.Wait()
	faults.Store(false)
	time.Sleep(50 * time.Millisecond)
	for _, name := range names {
		for i, c := range clients {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			l, err := c.Mutex(name).Lock(ctx)
			cancel()
			if err != nil {
				t.Fatalf("client %d cannot have %s any more: %v", i, name, err)
			}
			if n := holdfast.LocalWaitersForTest(c, name); n > 0 {
				t.Errorf("%d waiters are left", n)
			}
			mustUnlock(t, l)
		}
	}
	for _, c := range clients {
		if n := holdfast.NamesForTest(c); n > len(names) {
			t.Errorf("%d names", n)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	goroutinesBackTo(t, before)
	t.Log(fmt.Sprint(ok.Load(), " leases, ", failed.Load(), " failures"))
}

// stressBook is who was told that he holds a name.
type stressBook struct {
	mu   sync.Mutex
	held map[*holdfast.Lease]stressShare
	top  int64 // the highest fence of an exclusive lease
	seen map[int64]bool
}

type stressShare struct{ writers, readers, permits int }

// enter enters a lease and reports what must not be. Others count as long as their leases are
// good: a holder that is held up beyond that knows when it comes back. They are looked at
// before the new one: if that is good still, all were at the same moment.
func (b *stressBook) enter(l *holdfast.Lease, s stressShare) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[l.Fence()] {
		return fmt.Errorf("fence %d twice", l.Fence())
	}
	b.seen[l.Fence()] = true
	all := s
	for other, share := range b.held {
		if other.Remaining() > 0 {
			all.writers += share.writers
			all.readers += share.readers
			all.permits += share.permits
		}
	}
	if l.Remaining() == 0 {
		return nil
	}
	b.held[l] = s
	if all.writers > 1 || all.writers == 1 && all.readers > 0 || all.permits > 4 {
		return fmt.Errorf("%d writers, %d readers, %d permits", all.writers, all.readers, all.permits)
	}
	if s.writers == 1 {
		if l.Fence() <= b.top {
			return fmt.Errorf("fence %d after %d", l.Fence(), b.top)
		}
		b.top = l.Fence()
	}
	return nil
}

func (b *stressBook) leave(l *holdfast.Lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, l)
}
