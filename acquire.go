package holdfast

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/namemap"
)

// acquire takes the share that h describes: from another goroutine of this process where
// that is possible, from the engine otherwise.
func (c *Client) acquire(ctx context.Context, op string, h *handle, wait bool) (*Lease, error) {
	if !c.hooked() {
		l, _, err := c.take(ctx, op, h, wait)
		return l, err
	}
	ctx, end := c.started(ctx, op, h.name)
	l, how, err := c.take(ctx, op, h, wait)
	end(how, err)
	return l, err
}

func (c *Client) take(ctx context.Context, op string, h *handle, wait bool) (*Lease, Acquisition, error) {
	if err := c.admit(ctx, op, h); err != nil {
		return nil, "", err
	}
	b := h.bucket
	b.mu.Lock()
	at := b.names.Open(h.name)
	q := &at.Value
	if h.mode == driver.Shared && q.readers != nil {
		if l := c.joinNow(ctx, q, h); l != nil {
			b.names.Close(at)
			b.mu.Unlock()
			return l, Joined, nil
		}
	}
	if !wait {
		if q.excl != nil {
			err := c.fail(op, h.name, ErrHeld, nil)
			err.Holder = q.excl.holder(c.clock.Now())
			b.names.Close(at)
			b.mu.Unlock()
			return nil, "", err
		}
		l, err := c.ask(ctx, op, at, h, false)
		return l, FromEngine, err
	}
	if q.mustWait() {
		l, how, err := c.queueUp(ctx, op, at, h)
		if l != nil || err != nil {
			return l, how, err
		}
		b.mu.Lock() // it is this goroutine's turn at the engine
		lease, err := c.ask(ctx, op, at, h, true)
		return lease, FromEngine, blameHolder(ctx, err)
	}
	q.asking = true
	l, err := c.ask(ctx, op, at, h, true)
	return l, FromEngine, err
}

// blameHolder corrects the error of a request that stood in the local queue until its
// context ended, and then was not even asked of the engine: it was not the engine that did
// not answer, the lock was held.
func blameHolder(ctx context.Context, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Kind == ErrUnavailable && e.Outcome == NotApplied && ctx.Err() != nil && errors.Is(e.Err, ctx.Err()) {
		e.Kind = ErrHeld
	}
	return err
}

// admit refuses calls that must not begin. Nothing is sent for them.
func (c *Client) admit(ctx context.Context, op string, h *handle) error {
	if h.err != nil {
		return h.err
	}
	if c.closed.Load() {
		return c.fail(op, h.name, ErrClosed, nil)
	}
	if err := ctx.Err(); err != nil {
		return c.fail(op, h.name, nil, err)
	}
	return nil
}

// joinNow lets a reader join the shared claim that q has, unless somebody came before.
func (c *Client) joinNow(ctx context.Context, q *queue, h *handle) *Lease {
	if q.waiters.n > 0 || q.asking {
		return nil
	}
	now := c.clock.Now()
	if !q.readers.joinable(h, now) {
		return nil
	}
	return q.readers.newLease(ctx, now)
}

// queueUp waits in the local queue. It returns a lease, an error, or neither when it is this
// goroutine's turn to ask the engine. It is called with the bucket locked and q in use, and
// returns with the bucket unlocked and, but for a turn, q no longer in use.
func (c *Client) queueUp(ctx context.Context, op string, at *namemap.Entry[queue], h *handle) (*Lease, Acquisition, error) {
	b := h.bucket
	w := c.newWaiter(ctx, h)
	at.Value.waiters.push(w)
	b.mu.Unlock()
	defer w.free()
	select {
	case <-w.ready:
	case <-ctx.Done():
		if err := c.leave(ctx, op, at, w); err != nil {
			return nil, "", err
		}
	}
	switch {
	case w.turn:
		return nil, "", nil
	case w.closed:
		b.mu.Lock()
		b.names.Close(at)
		b.mu.Unlock()
		return nil, "", c.fail(op, h.name, ErrClosed, nil)
	}
	return w.lease, w.how, nil
}

// leave takes a waiter whose context ended out of the queue. What it was given in the same
// instant, a lease or the turn at the engine, goes on to the next.
func (c *Client) leave(ctx context.Context, op string, at *namemap.Entry[queue], w *waiter) error {
	b, q := w.h.bucket, &at.Value
	b.mu.Lock()
	err := c.fail(op, w.h.name, ErrHeld, ctx.Err())
	if q.excl != nil {
		err.Holder = q.excl.holder(c.clock.Now())
	}
	if w.queued {
		q.waiters.remove(w)
	} else {
		<-w.ready // was signalled under the lock that is held here
	}
	if w.turn {
		q.asking = false
		q.promote()
	}
	if w.lease == nil {
		b.names.Close(at)
	}
	b.mu.Unlock()
	if w.lease != nil {
		go w.lease.Unlock() // a failure is the business of the clean-up
	}
	return err
}

// ask asks the engine. It is called with the bucket locked and q in use, and returns with
// the bucket unlocked and q no longer in use.
func (c *Client) ask(ctx context.Context, op string, at *namemap.Entry[queue], h *handle, wait bool) (*Lease, error) {
	b, q := h.bucket, &at.Value
	var req driver.Request
	h.describe(&req)
	req.Wait, req.Span = wait, 1+min(q.waiters.n, c.cfg.MaxLocalHandovers)
	b.mu.Unlock()

	g, err := c.engine.Acquire(ctx, req)
	if err == nil {
		return c.granted(ctx, op, at, h, &req, g)
	}
	b.mu.Lock()
	c.stepBack(b, at, wait)
	b.mu.Unlock()
	failure := c.wrap(op, h.name, err)
	if failure.Outcome != NotApplied {
		c.janitor.clean(req.Claim(g), h.ttl)
	}
	return nil, failure
}

// describe writes to req what h asks the engine for, under a token of its own. It is filled in
// place: see claim.describe.
func (h *handle) describe(req *driver.Request) {
	drawToken(&req.Token)
	req.Name, req.Mode, req.Weight, req.Limit = h.name, h.mode, h.weight, h.limit
	req.Owner, req.TTL = h.owner, h.ttl
}

// stepBack leaves the place at the engine to the next, and the queue. The bucket is locked.
func (c *Client) stepBack(b *bucket, at *namemap.Entry[queue], waited bool) {
	if waited {
		at.Value.asking = false
		at.Value.promote()
	}
	b.names.Close(at)
}

// granted turns the engine's grant into a lease. A grant that is no good any more, because
// it is too old, the caller is gone or the client was closed, goes back.
func (c *Client) granted(ctx context.Context, op string, at *namemap.Entry[queue], h *handle, req *driver.Request, g driver.Grant) (*Lease, error) {
	b := h.bucket
	var failure *Error
	if c.isLate(g, h.ttl) || g.Lives(h.ttl) < h.ttl && !h.renewed {
		failure = c.verify(ctx, op, req, &g)
	}
	b.mu.Lock()
	switch {
	case failure != nil:
	case ctx.Err() != nil:
		failure = c.fail(op, h.name, ErrHeld, ctx.Err())
	case c.closed.Load():
		failure = c.fail(op, h.name, ErrClosed, nil)
	}
	if failure != nil {
		c.stepBack(b, at, req.Wait)
		b.mu.Unlock()
		c.janitor.clean(req.Claim(g), h.ttl)
		failure.Outcome = Unknown // until that is done
		return nil, failure
	}
	l := c.begin(ctx, at, h, req, g)
	c.stepBack(b, at, req.Wait)
	b.mu.Unlock()
	return l, nil
}

// isLate reports whether a grant of ttl reached us so late that it needs a proof.
func (c *Client) isLate(g driver.Grant, ttl time.Duration) bool {
	return c.remote && c.clock.Now().Sub(g.Sent) > g.Lives(ttl)/2
}

// begin enters into the books what the engine granted, and puts a lease on it that carries the
// values of ctx. The bucket is locked.
func (c *Client) begin(ctx context.Context, at *namemap.Entry[queue], h *handle, req *driver.Request, g driver.Grant) *Lease {
	cl := c.newClaim(at, h, req, g)
	l := cl.newLease(ctx, g.Sent)
	if h.mode == driver.Shared && at.Value.waiters.n > 0 {
		at.Value.joinReaders(g.Sent)
	}
	c.renewer.watch(cl, cl.nextDue(g.Sent))
	return l
}

// verify renews a grant that reached us late, and with that proves that it still stands: the
// time that passed may have eaten up its TTL. It also gives a lease that is not to be renewed
// the TTL that was asked for, where the engine granted a shorter one first.
func (c *Client) verify(ctx context.Context, op string, req *driver.Request, g *driver.Grant) *Error {
	sent := c.clock.Now()
	if err := c.engine.Renew(ctx, []driver.Claim{req.Claim(*g)})[0]; err != nil {
		return c.fail(op, req.Name, ErrUnavailable, errors.Join(errors.New("the grant came too late to be relied on"), err))
	}
	if c.clock.Now().Sub(sent) > req.TTL/2 {
		return c.fail(op, req.Name, ErrUnavailable, errors.New("the engine answers too slowly for this TTL"))
	}
	g.Sent, g.TTL = sent, 0
	return nil
}
