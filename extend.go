package holdfast

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Extend counts the lease's TTL anew from now, with ttl in place of the one it had, and every
// later renewal asks for ttl as well. It never brings back a lease that has ended, before the
// call or during it: that answers ErrLost or ErrNotHeld. After a failure with ErrUnavailable
// the TTL is the old one, but the lease may end at the earlier of the two ends unless it is
// renewed: the engine may have been told.
//
// A MaxHold still ends the lease. Leases of readers that share a claim are extended together.
func (l *Lease) Extend(ctx context.Context, ttl time.Duration) error {
	cl := l.claim
	c, b := cl.h.client, cl.h.bucket
	if err := checkTTL(ttl, c.caps); err != nil {
		return c.fail("extend", cl.h.name, ErrInvalid, err)
	}
	claim, sent, patience, err := l.beginExtend(ctx, ttl)
	if err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	err = c.engine.Renew(asked, []driver.Claim{claim})[0]
	cancel()

	b.mu.Lock()
	cl.endRenewal()
	ended := l.check("extend")
	relied := claim.TTL
	switch {
	case err != nil:
	case ended != nil && cl.state == live:
		relied = 0 // it is another lease's by now, with settings of its own
	case ended == nil && c.clock.Now() < cl.deadline():
		cl.ttl = ttl
	}
	finish := cl.renewedFor(sent, relied, err)
	b.mu.Unlock()
	finish()
	b.mu.Lock()
	if ended == nil {
		ended = l.check("extend") // lost just now, perhaps
	}
	b.mu.Unlock()
	if ended != nil || err == nil {
		return ended
	}
	return c.wrap("extend", cl.h.name, err)
}

// renewEvery is how often a lease of that TTL is renewed.
func (c *Config) renewEvery(ttl time.Duration) time.Duration {
	if c.RenewInterval > 0 && c.RenewInterval < ttl/2 {
		return c.RenewInterval
	}
	return max(ttl/3, 1)
}

// beginExtend marks the claim as being renewed and returns what to ask for, and how long to
// wait for the answer: no longer than the renewal of the lease can wait for its turn. At most
// one renewal of a claim is under way: their replies could be entered in the wrong order.
func (l *Lease) beginExtend(ctx context.Context, ttl time.Duration) (claim driver.Claim, sent driver.Instant, patience time.Duration, err error) {
	cl := l.claim
	c := cl.h.client
	cl.h.bucket.mu.Lock()
	for cl.renewing {
		cl.h.bucket.mu.Unlock()
		if !c.awaitRenewal(ctx, cl) {
			return claim, 0, 0, c.fail("extend", cl.h.name, ErrUnavailable, ctx.Err())
		}
		cl.h.bucket.mu.Lock()
	}
	sent = c.clock.Now()
	if err = l.check("extend"); err == nil && sent >= cl.deadline() {
		cl.h.bucket.mu.Unlock()
		c.expire(cl)
		return claim, 0, 0, c.lostError("extend", c.lossCause(cl, errExpired))
	}
	defer cl.h.bucket.mu.Unlock()
	switch {
	case err != nil:
		return claim, 0, 0, err
	case ctx.Err() != nil:
		return claim, 0, 0, c.fail("extend", cl.h.name, nil, ctx.Err())
	}
	claim = cl.driverClaim()
	claim.TTL = cl.within(ttl, sent)
	cl.renewing = true
	if cl.asking(sent, claim.TTL) {
		c.renewer.schedule(cl, cl.nextDue(sent))
	}
	patience = cl.ttl
	if end := cl.deadline(); end != forever {
		patience = end.Sub(sent)
	}
	if cl.renewed {
		patience /= 2
	}
	return claim, sent, patience, nil
}

// check returns the error of a call on a lease that has ended. The bucket is locked.
func (l *Lease) check(op string) error {
	c := l.claim.h.client
	switch l.state {
	case leaseReleased:
		return c.fail(op, l.claim.h.name, ErrNotHeld, nil)
	case leaseLost:
		return c.lostError(op, l.cause)
	}
	return nil
}

// held returns the error of a call on a lease that has ended.
func (l *Lease) held(op string) error {
	b := l.claim.h.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.check(op)
}

// Upgrade turns the lease of an upgradeable reader into the exclusive lock: it waits until
// all plain readers have left, which new ones are kept from joining meanwhile, and gives the
// lease a new, larger fence. When it fails, the lease is still that of an upgradeable reader,
// unless the error is ErrLost. Upgrading an exclusive lease that came from an upgrade does
// nothing.
func (l *Lease) Upgrade(ctx context.Context) error {
	cl := l.claim
	c, b := cl.h.client, cl.h.bucket
	b.mu.Lock()
	err := l.check("upgrade")
	switch {
	case err != nil:
	case cl.mode == driver.Exclusive && l.upgraded:
		b.mu.Unlock()
		return nil
	case cl.mode != driver.Upgradeable:
		err = c.fail("upgrade", cl.h.name, ErrInvalid, errors.New("the lease is not one of LockUpgradeable"))
	case ctx.Err() != nil:
		err = c.fail("upgrade", cl.h.name, nil, ctx.Err())
	case cl.upgrading:
		err = c.fail("upgrade", cl.h.name, ErrInvalid, errors.New("an upgrade is under way already"))
	}
	if err != nil {
		b.mu.Unlock()
		return err
	}
	req := driver.Request{
		Name: cl.h.name, Mode: driver.Exclusive, Token: cl.token, Owner: cl.h.owner,
		TTL: cl.ttl, Span: 1, Wait: true, Upgrade: true,
	}
	// Whenever it is granted, the engine may count the TTL of the request from then on, in
	// place of a longer one that the lease was extended by before or meanwhile.
	cl.upgrading, cl.atMost = true, cl.ttl
	if now := c.clock.Now(); cl.asking(now, cl.ttl) {
		c.renewer.schedule(cl, cl.nextDue(now))
	}
	cl.at.Value.readers = nil // which this process's readers could join
	b.mu.Unlock()
	g, err := c.engine.Acquire(ctx, req)
	return l.upgradedTo(g, err)
}

// upgradedTo enters the answer to an upgrade into the books.
func (l *Lease) upgradedTo(g driver.Grant, err error) error {
	cl := l.claim
	c, b := cl.h.client, cl.h.bucket
	var failure *Error
	if err != nil {
		failure = c.wrap("upgrade", cl.h.name, err)
	}
	b.mu.Lock()
	cl.upgrading = false
	if failure == nil || failure.Outcome != Unknown {
		cl.atMost = 0
	}
	ended, late := l.check("upgrade"), false
	if failure == nil && ended == nil {
		if late = c.clock.Now() >= cl.deadline(); !late {
			cl.mode, l.upgraded, l.fence = driver.Exclusive, true, g.Fence
			cl.next, cl.left = g.Fence+1, 0 // one was asked for
			cl.at.Value.excl = cl
		}
	}
	b.mu.Unlock()
	switch {
	case ended != nil:
		return ended
	case late:
		c.expire(cl)
		return c.lostError("upgrade", c.lossCause(cl, errExpired))
	case failure == nil:
		return nil
	case isLoss(err):
		c.lose(cl, c.lossCause(cl, err))
	}
	return failure
}
