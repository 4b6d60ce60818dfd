package holdfast

import (
	"context"
	"sync"
)

// Once makes something that all processes use and one of them has to make first: a cache that
// is filled, a table that is created, a token that is fetched. It looks, locks, looks again
// and makes it (double-checked locking), so that it costs a lock only while it is missing.
//
// Goroutines of this process that ask at the same moment share one look and one result. When
// the one that makes it fails or dies, the next one tries: it is made once at a time, not
// once for ever. Whether it is there is for load to say, every time; Once keeps nothing.
//
// A process that was paused while it made something may go on when its lease has ended and
// another one has made it: what build stores should be written with the lease's fence, or
// do no harm when it is written twice. Once is safe for concurrent use.
type Once[T any] struct {
	lock  *Mutex
	load  func(context.Context) (T, bool, error)
	build func(context.Context, *Lease) (T, error)

	mu     sync.Mutex
	flight *flight[T]
}

// flight is one look on behalf of all who ask meanwhile.
type flight[T any] struct {
	landed chan struct{}
	value  T
	err    error
}

// NewOnce returns a Once under the lock of that name. load returns what is there already, and
// whether it is there. build makes it and has it stored where load finds it; it runs under
// the lease, and its context ends when the lock is lost.
func NewOnce[T any](
	c *Client, name string,
	load func(ctx context.Context) (T, bool, error),
	build func(ctx context.Context, l *Lease) (T, error),
	opts ...Option,
) *Once[T] {
	return &Once[T]{lock: c.Mutex(name, opts...), load: load, build: build}
}

// Get returns what is there, or makes it. Match the errors of load and build with errors.Is; those
// of the lock are an [*Error], and may come along with a value: that was made, but the lock was lost
// or not given back. load and build must not call Get: it would wait for itself.
func (o *Once[T]) Get(ctx context.Context) (T, error) {
	for {
		o.mu.Lock()
		f := o.flight
		if f == nil {
			f = &flight[T]{landed: make(chan struct{})}
			o.flight = f
			o.mu.Unlock()
			return o.fly(ctx, f)
		}
		o.mu.Unlock()
		select {
		case <-f.landed:
			if f.err == nil {
				return f.value, nil
			}
			// It failed, perhaps because its caller's context ended: the next one tries.
		case <-ctx.Done():
			var none T
			return none, o.lock.h.client.fail("once", o.lock.Name(), nil, ctx.Err())
		}
	}
}

// fly looks, for everybody who comes before it lands.
func (o *Once[T]) fly(ctx context.Context, f *flight[T]) (T, error) {
	f.err = errPanicked
	defer func() {
		o.mu.Lock()
		o.flight = nil
		o.mu.Unlock()
		close(f.landed)
	}()
	f.value, f.err = o.get(ctx)
	return f.value, f.err
}

// errPanicked stands for the result of a look that ended in a panic. Nobody gets to see it.
var errPanicked = &Error{Op: "once"}

func (o *Once[T]) get(ctx context.Context) (value T, err error) {
	value, found, err := o.load(ctx)
	if found || err != nil {
		return value, err
	}
	err = o.lock.Do(ctx, func(ctx context.Context, l *Lease) (err error) {
		if value, found, err = o.load(ctx); found || err != nil {
			return err
		}
		value, err = o.build(ctx, l)
		return err
	})
	return value, err
}
