package holdfast

import (
	"context"
	"math"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Lease is a lock that is held. It is safe for concurrent use.
//
// A lease does not prove that nobody else acts on what it protects: its holder may be paused
// at any moment, and wake up when the lock is somebody else's. What must not go wrong even
// then has to check [Lease.Fence] at the resource.
type Lease struct {
	claim *claim
	fence int64
	began driver.Instant

	values context.Context // of the acquire call; a *leaseContext with them once that was made

	state    leaseState
	upgraded bool   // by Upgrade, from an upgradeable reader's
	cause    *Error // why it was lost, nil if it was not

	prev, next *Lease // in the claim's list, of which its first lease is the head
}

// leaseContext is the context of a lease, which is made when it is first asked for.
type leaseContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

type leaseState uint8

const (
	leaseHeld leaseState = iota
	leaseLost
	leaseReleased
)

// Name returns the name of the lock.
func (l *Lease) Name() string { return l.claim.h.name }

// Fence returns the number of this lease: no other lease of the same name has it, and it is
// larger than that of every lease before it that could not be held at the same time, on
// every engine and across hand-overs within the process. Among leases that are held side by
// side, those of readers and of permits, the numbers of different processes are in no
// particular order. It is positive and below 2^53. After [Lease.Upgrade] it is the number of
// the exclusive lock.
//
// What keeps the order after the engine lost its data is in Capabilities.FenceSource.
func (l *Lease) Fence() int64 {
	b := l.claim.h.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.fence
}

// Context returns a context that carries the values of the one the lease was acquired with,
// but not its deadline or cancellation. It ends when the lease does: with cause [ErrLost]
// when it was lost, before the engine can give the lock to somebody else by the local clock;
// with context.Canceled after Unlock; with [ErrClosed] when the client was closed.
//
// Timers run on Go's clock. On a machine that was suspended the context ends within a second
// of waking up; Remaining is exact at once.
func (l *Lease) Context() context.Context {
	b := l.claim.h.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	made := l.made()
	if made == nil {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(l.values))
		made = &leaseContext{ctx, cancel}
		l.values = made
		switch {
		case l.cause != nil: // lost, and perhaps released since
			cancel(l.cause)
		case l.state == leaseReleased:
			cancel(nil)
		}
	}
	return made.Context
}

// made returns the lease's context if somebody has asked for it. Nobody outside ever sees a
// *leaseContext, so the acquire call cannot have come with one. The bucket is locked.
func (l *Lease) made() *leaseContext {
	ctx, _ := l.values.(*leaseContext)
	return ctx
}

// Remaining returns for how long the lease can be relied on by the local clock, should no
// renewal succeed: 0 for one that ended, and the largest Duration on an engine that keeps
// locks until they are released.
func (l *Lease) Remaining() time.Duration {
	b := l.claim.h.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	end := l.claim.deadline()
	switch {
	case l.state != leaseHeld:
		return 0
	case end == forever:
		return math.MaxInt64
	}
	return max(0, end.Sub(l.claim.h.client.clock.Now()))
}

// Unlock gives the lock back: to the next goroutine of this process that waits for it, or to
// the engine. It takes no context, so that a lock is not left behind because the caller's
// context ended; it takes at most about Config.ReleaseTimeout. When the engine does not
// answer by then, the error is ErrUnavailable, and the release is repeated in the background
// until the lock's TTL is over.
//
// A lease that was lost before answers ErrLost, and one that was unlocked before ErrNotHeld;
// neither touches a lock that somebody else holds by now. See WithAsyncUnlock for an Unlock
// that does not wait.
func (l *Lease) Unlock() error {
	cl := l.claim
	c, b := cl.h.client, cl.h.bucket
	b.mu.Lock()
	if err := l.end(); err != nil {
		b.mu.Unlock()
		return err
	}
	var next succession
	ctx, gone, renewing := l.made(), c.passOn(cl, &next), cl.renewing
	var share driver.Claim
	if gone {
		cl.describe(&share)
	}
	b.mu.Unlock()
	if ctx != nil {
		ctx.cancel(nil)
	}
	var err error
	switch {
	case gone && cl.h.async && !renewing:
		c.giveBackAsync(l, &share)
		return nil
	case gone:
		err = c.giveBack(l, &share, renewing, &next)
	}
	if m := c.cfg.Metrics; m != nil {
		m.Released(cl.h.name, c.clock.Now().Sub(l.began), err)
	}
	return err
}

// end marks the lease as released and takes it off its claim. The bucket is locked.
func (l *Lease) end() error {
	cl := l.claim
	err := l.check("unlock")
	l.state = leaseReleased
	if err != nil {
		return err
	}
	cl.drop(l)
	return nil
}

// lostError tells the holder why its lease is gone.
func (c *Client) lostError(op string, cause *Error) error {
	return c.fail(op, cause.Name, cause.Kind, cause.Err)
}

// passOn finds the claim a new holder within the process, or closes it and reports that it
// has to go back to the engine, and whether by way of a succession. The bucket is locked.
func (c *Client) passOn(cl *claim, next *succession) (gone bool) {
	if cl.held() {
		return false // other readers hold it still
	}
	if cl.at.Value.waiters.n > 0 {
		if now := c.clock.Now(); now < cl.deadline() {
			if w := cl.heir(now); w != nil {
				cl.handOver(w, now)
				return false
			}
			*next = c.succeed(cl)
		}
	}
	cl.state = closed
	c.renewer.forget(cl)
	c.retire(cl)
	return true
}

// giveBack releases the share of a closed claim on the engine.
func (c *Client) giveBack(l *Lease, share *driver.Claim, renewing bool, next *succession) error {
	cl := l.claim
	ctx := context.Context((*releaseContext)(l))
	var end func(error)
	if c.cfg.Tracer != nil {
		ctx, end = c.cfg.Tracer.Start(ctx, "unlock", cl.h.name)
	}
	// A renewal that is still under way must not reach the engine after the release: after
	// a failover it could enter the lock again. One that does not end in time is followed
	// by a second release.
	late := renewing && !c.awaitBriefly(ctx, cl)
	var err error
	if next.to != nil {
		err = c.pass(ctx, share, next)
	} else {
		err = c.engine.Release(ctx, *share)
	}
	(*releaseContext)(l).stop()
	failure := c.released(share, err, late)
	if end != nil {
		end(failure)
	}
	return failure
}

// released turns the engine's answer to a release into what Unlock returns, and has the
// release repeated where it may not have been the last word.
func (c *Client) released(share *driver.Claim, err error, again bool) error {
	var failure error
	if err != nil {
		e := c.wrap("unlock", share.Name, err)
		if e.Kind == ErrNotHeld {
			e.Kind = ErrLost // it was held, or there would be no claim
		}
		failure = e
		again = again || e.Outcome != NotApplied || e.Kind == ErrUnavailable
	}
	if again {
		c.janitor.clean(*share, share.TTL)
	}
	return failure
}

// awaitBriefly waits for the renewal under way, for half of the time that a release has: the
// other half is for the release.
func (c *Client) awaitBriefly(ctx context.Context, cl *claim) bool {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ReleaseTimeout/2)
	defer cancel()
	return c.awaitRenewal(ctx, cl)
}

// retire makes way for the next claim on the name: whoever is next asks the engine, and waits
// there until the share of this one has come back. The bucket is locked.
func (c *Client) retire(cl *claim) {
	q := &cl.at.Value
	if q.readers == cl {
		q.readers = nil
	}
	if q.excl == cl {
		q.excl = nil
	}
	q.promote()
	cl.h.bucket.names.Close(cl.at)
}

// lose ends a claim before its holders released it, and with it the leases that hold it. It
// reports whether the claim was live until then. cause is what contexts end with.
func (c *Client) lose(cl *claim, cause *Error) bool {
	b := cl.h.bucket
	b.mu.Lock()
	if cl.state != live {
		b.mu.Unlock()
		return false
	}
	cl.state = lost
	c.renewer.forget(cl)
	var ctxs []*leaseContext
	for l := &cl.first; l != nil; l = l.next {
		if l.state != leaseHeld {
			continue // the first, which stays in the list
		}
		l.state, l.cause = leaseLost, cause
		if ctx := l.made(); ctx != nil {
			ctxs = append(ctxs, ctx)
		}
	}
	c.retire(cl)
	b.mu.Unlock()
	for _, ctx := range ctxs {
		ctx.cancel(cause)
	}
	if cause.Kind == ErrLost {
		c.reportLoss(cl.h.name, cause)
	}
	return true
}

func (c *Client) reportLoss(name string, cause error) {
	if c.cfg.Logger != nil {
		c.cfg.Logger.Warn("lock lost", "name", name, "engine", c.caps.Engine, "cause", cause)
	}
	if c.cfg.Metrics != nil {
		c.cfg.Metrics.Lost(name, cause)
	}
}
