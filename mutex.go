package holdfast

import (
	"context"
	"errors"

	"github.com/holdfast-go/holdfast/driver"
)

// Mutex is a lock that one holder has at a time. It is a cheap handle: making one does no
// I/O, and any number of handles of one name, in any number of processes, are the same lock.
// It is safe for concurrent use.
//
// A Mutex is not reentrant: a goroutine that locks a name it holds waits for itself until
// its context ends.
type Mutex struct {
	h handle
}

// Mutex returns the handle of the lock of that name. The name has 1 to 512 bytes of UTF-8
// without control characters. A name or option that is wrong is reported by every use of the
// handle, as an ErrInvalid that lists all violations.
func (c *Client) Mutex(name string, opts ...Option) *Mutex {
	return &Mutex{c.newHandle(name, driver.Exclusive, opts)}
}

// Name returns the name of the lock.
func (m *Mutex) Name() string { return m.h.name }

// Lock waits until it holds the lock or ctx ends; then the error matches both ErrHeld and
// ctx.Err(). When the engine does not answer, it fails with ErrUnavailable at once and does
// not wait for it to come back.
//
// Goroutines of this process are served in the order in which they came, and take turns with
// other processes as Config.MaxLocalHandovers and LocalHandoverWindow say.
func (m *Mutex) Lock(ctx context.Context) (*Lease, error) {
	return m.h.client.acquire(ctx, "lock", &m.h, true)
}

// TryLock takes the lock if it is free, and otherwise fails with ErrHeld at once: the error's
// Holder says who has it, as far as the engine knows.
func (m *Mutex) TryLock(ctx context.Context) (*Lease, error) {
	return m.h.client.acquire(ctx, "trylock", &m.h, false)
}

// Do runs f while it holds the lock. The context that f gets ends when ctx does and when the
// lock is lost, then with cause ErrLost; f must not touch what the lock protects after that.
// The lock is released when f returns or panics. Do returns the error of f, joined with that
// of the release: a loss that f did not notice is reported as ErrLost.
func (m *Mutex) Do(ctx context.Context, f func(ctx context.Context, l *Lease) error) error {
	l, err := m.Lock(ctx)
	if err != nil {
		return err
	}
	return l.while(ctx, f)
}

// while runs f under the lease and releases it.
func (l *Lease) while(ctx context.Context, f func(context.Context, *Lease) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	held := l.Context()
	stop := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
	defer func() {
		stop()
		err = errors.Join(err, l.Unlock())
		cancel(nil)
	}()
	return f(ctx, l)
}
