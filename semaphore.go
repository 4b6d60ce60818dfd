package holdfast

import (
	"context"
	"fmt"

	"github.com/holdfast-go/holdfast/driver"
)

// Semaphore is a number of permits that holders share. It is a cheap handle and safe for
// concurrent use. All handles of one name use the same number of permits: while permits of
// another number are held or waited for, a request fails with ErrInvalid.
//
// A name is used for a Semaphore or for a Mutex, not for both: they exclude each other, but
// that is of no use.
type Semaphore struct {
	h handle // weight is filled in for each call
}

// Semaphore returns the handle of the semaphore of that name with n permits, 1 or more. See
// [Client.Mutex] for what is said of names and options there.
func (c *Client) Semaphore(name string, n int, opts ...Option) *Semaphore {
	s := &Semaphore{c.newHandle(name, driver.Permits, opts)}
	s.h.limit = n
	switch {
	case !c.caps.Permits:
		s.h.unsupported("permits for")
	case s.h.err != nil:
	case n < 1 || n > c.caps.MaxPermits:
		s.h.err = c.fail("handle", name, ErrInvalid,
			fmt.Errorf("a semaphore of %d permits: %s takes 1 to %d", n, c.caps.Engine, c.caps.MaxPermits))
	}
	return s
}

// Name returns the name of the semaphore.
func (s *Semaphore) Name() string { return s.h.name }

// Acquire waits until it holds k permits at once, 1 or more. They come and go together, as
// one lease. Where the engine keeps an order, a large request is not overtaken by small ones
// for ever; it holds them up instead.
func (s *Semaphore) Acquire(ctx context.Context, k int) (*Lease, error) {
	h, err := s.of("acquire", k)
	if err != nil {
		return nil, err
	}
	return h.client.acquire(ctx, "acquire", h, true)
}

// TryAcquire takes k permits, or fails with ErrHeld at once.
func (s *Semaphore) TryAcquire(ctx context.Context, k int) (*Lease, error) {
	h, err := s.of("tryacquire", k)
	if err != nil {
		return nil, err
	}
	return h.client.acquire(ctx, "tryacquire", h, false)
}

// of returns the handle for k permits.
func (s *Semaphore) of(op string, k int) (*handle, error) {
	if s.h.err == nil && (k < 1 || k > s.h.limit) {
		return nil, s.h.client.fail(op, s.h.name, ErrInvalid,
			fmt.Errorf("%d permits of %d: ask for 1 to %d", k, s.h.limit, s.h.limit))
	}
	h := s.h
	h.weight = k
	return &h, nil
}
