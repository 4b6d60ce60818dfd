package holdfast

import (
	"context"
	"errors"

	"github.com/holdfast-go/holdfast/driver"
)

// WithAsyncUnlock lets Unlock return without waiting for the engine's answer: the release
// travels with what this process sends next, or microseconds later by itself. That saves a
// round trip for each lock. The lease has ended when Unlock returns, as ever; whether the
// lock is free by then nobody knows, and what became of the release is told by
// [Lease.Released], to the Metrics hook and, where it is repeated in the background in vain,
// to the Logger. Close waits for it.
//
// On an engine without this ability, and while a renewal is under way, Unlock waits all the
// same.
func WithAsyncUnlock() Option {
	return func(h *handle) error {
		h.async = h.client.async != nil
		return nil
	}
}

// giveBackAsync is giveBack for those who do not wait.
func (c *Client) giveBackAsync(l *Lease, share *driver.Claim) {
	end := func(error) {}
	if c.cfg.Tracer != nil {
		_, end = c.cfg.Tracer.Start(context.WithoutCancel((*releaseContext)(l)), "unlock", share.Name)
	}
	answer := &deadline{done: make(chan struct{})}
	l.claim.release.Store(answer)
	claim := *share
	held := c.clock.Now().Sub(l.began)
	c.async.ReleaseAsync(claim, func(err error) {
		failure := c.released(&claim, err, false)
		if m := c.cfg.Metrics; m != nil {
			m.Released(claim.Name, held, failure)
		}
		end(failure)
		answer.end(failure)
	})
}

// Released waits until the release that Unlock began has been answered, and returns what
// Unlock would have returned had it waited: nil too where Unlock did wait, or passed the lock
// on within the process. It fails with ErrInvalid before Unlock, and with ErrUnavailable when
// ctx ends first.
func (l *Lease) Released(ctx context.Context) error {
	cl := l.claim
	c, b := cl.h.client, cl.h.bucket
	b.mu.Lock()
	state, last := l.state, cl.state == closed
	b.mu.Unlock()
	if state == leaseHeld {
		return c.fail("unlock", cl.h.name, ErrInvalid, errors.New("the lease has not been unlocked"))
	}
	answer := cl.release.Load()
	if !cl.h.async || !last || answer == nil {
		return nil
	}
	select {
	case <-answer.done:
	case <-ctx.Done():
		return c.fail("unlock", cl.h.name, ErrUnavailable, ctx.Err())
	}
	var failure *Error
	if errors.As(answer.err, &failure) {
		return failure
	}
	return nil // the context of an Unlock that waited
}
