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
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// TestCloseAtAnyPoint closes clients in the middle of everything: every call comes back,
// with ErrClosed or a lease that has ended, and other processes get the locks.
func TestCloseAtAnyPoint(t *testing.T) {
	before := runtime.NumGoroutine()
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for range rounds {
		store := memlock.NewStore(memlock.Config{})
		c, err := holdfast.New(store.Engine(), holdfast.Config{TTL: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for g := range 16 {
			group.Go(func() {
				for {
					rw := c.RWMutex([]string{"a", "b"}[rand.IntN(2)])
					lock := []func(context.Context) (*holdfast.Lease, error){rw.Lock, rw.RLock, rw.LockUpgradeable, rw.TryLock, rw.TryRLock}[rand.IntN(5)]
					l, err := lock(context.Background())
					if errors.Is(err, holdfast.ErrClosed) {
						return
					}
					if err != nil {
						if !errors.Is(err, holdfast.ErrHeld) {
							t.Errorf("%v", err)
						}
						runtime.Gosched()
						continue
					}
					if g%4 == 0 {
						l.Context()
						l.Extend(context.Background(), 30*time.Millisecond)
						l.Upgrade(context.Background())
					}
					if err := l.Unlock(); err != nil && !errors.Is(err, holdfast.ErrClosed) && !errors.Is(err, holdfast.ErrLost) {
						t.Errorf("%v", err)
					}
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
		other, err := holdfast.New(store.Engine(), holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			l, err := other.Mutex(name).Lock(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			mustUnlock(t, l)
		}
		other.Close()
	}
	goroutinesBackTo(t, before)
}

// Close takes at most about twice the ReleaseTimeout on an engine that does not answer.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newSpy()
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		mustLock(t, c.Mutex("held"))
		e.onRelease(func(ctx context.Context, _ driver.Claim, _ func() error) error {
			<-ctx.Done()
			return ctx.Err()
		})
		e.onAcquire(func(context.Context, driver.Request, func() (driver.Grant, error)) (driver.Grant, error) {
			return driver.Grant{}, errNoReply
		})
		for i := range 12 {
			c.Mutex("x" + string(rune('a'+i))).TryLock(t.Context())
			time.Sleep(300 * time.Millisecond)
		}
		begin := time.Now()
		c.Close()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("Close took %v, want about 4s at most", took)
		}
	})
}
