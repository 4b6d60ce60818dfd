package holdfast_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
)

func TestReadersOfOneProcessShareAClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpy()
		c := clientOn(t, s, holdfast.Config{})
		rw := c.RWMutex("x")
		w, err := rw.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		leases := make(chan *holdfast.Lease, 50)
		for range 50 {
			go func() {
				l, err := rw.RLock(t.Context())
				if err != nil {
					t.Error(err)
				}
				leases <- l
			}()
		}
		synctest.Wait()
		time.Sleep(time.Millisecond)
		mustUnlock(t, w)
		synctest.Wait()
		if n := s.acquires.Load(); n != 2 {
			t.Errorf("%d requests for a writer and 50 readers, want 2", n)
		}
		fences := map[int64]bool{}
		for range 50 {
			l := <-leases
			if l.Fence() <= w.Fence() || fences[l.Fence()] {
				t.Errorf("fence %d after %d, or twice", l.Fence(), w.Fence())
			}
			fences[l.Fence()] = true
			if n := s.releases.Load(); n != 1 {
				t.Errorf("%d releases while readers are left", n)
			}
			mustUnlock(t, l)
		}
		if n := s.releases.Load(); n != 2 {
			t.Errorf("%d releases, want 2", n)
		}
	})
}

func TestWritersAndReadersExcludeEachOther(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{})
	var readers, writers atomic.Int32
	var group sync.WaitGroup
	for i := range 12 {
		rw := []*holdfast.Client{a, b}[i%2].RWMutex("x")
		group.Go(func() {
			for n := range 100 {
				if (n+i)%4 == 0 {
					l, err := rw.Lock(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					if w, r := writers.Add(1), readers.Load(); w != 1 || r != 0 {
						t.Errorf("%d writers beside %d readers", w, r)
					}
					writers.Add(-1)
					mustUnlock(t, l)
					continue
				}
				l, err := rw.RLock(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				readers.Add(1)
				if w := writers.Load(); w != 0 {
					t.Errorf("%d writers beside a reader", w)
				}
				readers.Add(-1)
				mustUnlock(t, l)
			}
		})
	}
	group.Wait()
}

// TestReadersDoNotStarveAWriter: readers that relieve each other within a process stop
// joining their claim once its window is over.
func TestReadersDoNotStarveAWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		stop := make(chan struct{})
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				for {
					select {
					case <-stop:
						return
					default:
					}
					l, err := a.RWMutex("x").RLock(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(200 * time.Millisecond)
					mustUnlock(t, l)
				}
			})
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		l, err := b.RWMutex("x").Lock(ctx)
		if err != nil {
			t.Errorf("the writer starved: %v", err)
		} else {
			mustUnlock(t, l)
		}
		close(stop)
		group.Wait()
	})
}

func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		ctx := t.Context()
		up, err := a.RWMutex("x").LockUpgradeable(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.RWMutex("x").TryLockUpgradeable(ctx); !errors.Is(err, holdfast.ErrHeld) {
			t.Fatalf("a second upgradeable reader: %v", err)
		}
		reader, err := b.RWMutex("x").TryRLock(ctx)
		if err != nil {
			t.Fatalf("no reader beside the upgradeable one: %v", err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		err = up.Upgrade(short)
		cancel()
		want(t, err, context.DeadlineExceeded, holdfast.ErrHeld)
		again, err := b.RWMutex("x").TryRLock(ctx)
		if err != nil {
			t.Fatalf("a failed upgrade keeps readers out: %v", err)
		}
		mustUnlock(t, again)

		upgraded := make(chan error)
		before := up.Fence()
		go func() { upgraded <- up.Upgrade(ctx) }()
		time.Sleep(time.Minute) // its renewals go on
		if _, err := b.RWMutex("x").TryRLock(ctx); !errors.Is(err, holdfast.ErrHeld) {
			t.Errorf("a new reader overtook the upgrade: %v", err)
		}
		mustUnlock(t, reader)
		if err := <-upgraded; err != nil {
			t.Fatal(err)
		}
		if up.Fence() <= reader.Fence() || up.Fence() <= before {
			t.Errorf("fence %d after the upgrade, %d of the reader", up.Fence(), reader.Fence())
		}
		if err := up.Upgrade(ctx); err != nil {
			t.Errorf("upgrading twice: %v", err)
		}
		for _, c := range []*holdfast.Client{a, b} {
			if _, err := c.RWMutex("x").TryRLock(ctx); !errors.Is(err, holdfast.ErrHeld) {
				t.Errorf("a reader beside the writer: %v", err)
			}
		}
		mustUnlock(t, up)
		l, err := b.RWMutex("x").TryLock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want(t, l.Upgrade(ctx), holdfast.ErrInvalid)
		mustUnlock(t, l)
	})
}

func TestSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		ctx := t.Context()
		two, err := a.Semaphore("s", 5).Acquire(ctx, 2)
		if err != nil {
			t.Fatal(err)
		}
		three, err := b.Semaphore("s", 5).TryAcquire(ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Semaphore("s", 5).TryAcquire(ctx, 1)
		want(t, err, holdfast.ErrHeld)
		_, err = b.Semaphore("s", 6).TryAcquire(ctx, 1)
		want(t, err, holdfast.ErrInvalid)
		_, err = b.Mutex("s").TryLock(ctx)
		want(t, err, holdfast.ErrHeld)
		mustUnlock(t, two)
		for range 2 {
			l, err := a.Semaphore("s", 5).TryAcquire(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer mustUnlock(t, l)
		}
		mustUnlock(t, three)
	})
}

func TestSemaphoreNeverExceedsItsLimit(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{})
	const limit = 4
	var held atomic.Int32
	var group sync.WaitGroup
	for i := range 16 {
		s := []*holdfast.Client{a, b}[i%2].Semaphore("s", limit)
		group.Go(func() {
			for n := range 100 {
				k := 1 + (n+i)%3
				l, err := s.Acquire(context.Background(), k)
				if err != nil {
					t.Error(err)
					return
				}
				if now := held.Add(int32(k)); now > limit {
					t.Errorf("%d permits of %d are held", now, limit)
				}
				held.Add(int32(-k))
				mustUnlock(t, l)
			}
		})
	}
	group.Wait()
}
