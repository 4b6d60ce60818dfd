package holdfast_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
)

// postman is a spy whose asynchronous releases wait until the test delivers them.
type postman struct {
	*spy
	letters chan func(error)
}

func newPostman() postman { return postman{newSpy(), make(chan func(error), 10)} }

func (p postman) ReleaseAsync(c driver.Claim, done func(error)) {
	p.letters <- func(err error) {
		if err == nil {
			err = p.spy.Engine.Release(context.Background(), c)
		}
		done(err)
	}
}

func TestAsyncUnlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPostman()
		c := clientOn(t, p, holdfast.Config{})
		m := c.Mutex("x", holdfast.WithAsyncUnlock())
		l := mustLock(t, m)
		want(t, l.Released(t.Context()), holdfast.ErrInvalid)
		ctx := l.Context()
		mustUnlock(t, l)
		if ctx.Err() == nil {
			t.Error("the lease's context goes on after Unlock")
		}
		want(t, l.Unlock(), holdfast.ErrNotHeld)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		want(t, l.Released(short), holdfast.ErrUnavailable, context.DeadlineExceeded)
		(<-p.letters)(nil)
		if err := l.Released(t.Context()); err != nil {
			t.Errorf("Released: %v", err)
		}
		mustLock(t, m).Unlock()
		(<-p.letters)(nil)
	})
}

// What went wrong with a release that nobody waited for is told by the lease, and repeated.
func TestAsyncUnlockFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPostman()
		c := clientOn(t, p, holdfast.Config{})
		m := c.Mutex("x", holdfast.WithAsyncUnlock())
		l := mustLock(t, m)
		mustUnlock(t, l)
		(<-p.letters)(errNoReply)
		want(t, l.Released(t.Context()), holdfast.ErrUnavailable)
		mustUnlock(t, mustLock(t, m)) // the clean-up has released it
		if p.releases.Load() != 1 {
			t.Errorf("%d releases by the clean-up, want 1", p.releases.Load())
		}
		(<-p.letters)(nil)

		l = mustLock(t, m)
		mustUnlock(t, l)
		(<-p.letters)(driver.Fail(driver.NotHeld, nil))
		want(t, l.Released(t.Context()), holdfast.ErrLost)
	})
}

// Without the ability Unlock waits, and a handle that waits never gets a claim whose release
// nobody waits for.
func TestAsyncUnlockWhereItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain := newClient(t, holdfast.Config{})
		l := mustLock(t, plain.Mutex("x", holdfast.WithAsyncUnlock()))
		mustUnlock(t, l)
		if err := l.Released(t.Context()); err != nil {
			t.Errorf("Released: %v", err)
		}

		p := newPostman()
		c := clientOn(t, p, holdfast.Config{})
		first := mustLock(t, c.Mutex("x", holdfast.WithAsyncUnlock()))
		second := make(chan *holdfast.Lease)
		go func() { second <- mustLock(t, c.Mutex("x")) }()
		synctest.Wait()
		mustUnlock(t, first)
		(<-p.letters)(nil)
		l = <-second
		mustUnlock(t, l)
		if p.acquires.Load() != 2 || p.releases.Load() != 1 {
			t.Errorf("%d requests and %d releases that were waited for, want 2 and 1", p.acquires.Load(), p.releases.Load())
		}
		if err := l.Released(t.Context()); err != nil {
			t.Errorf("Released: %v", err)
		}
	})
}
