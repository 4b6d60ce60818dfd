package holdfast

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Extend counts the lease's TTL anew from now, with ttl in place of the one it had, and every
// later renewal asks for ttl as well. It never brings back a lease that has ended: that
// answers ErrLost or ErrNotHeld. A failure with ErrUnavailable leaves the lease as it was;
// its end may or may not have moved on the engine.
//
// A MaxHold still ends the lease. Leases of readers that share a claim are extended together.
func (l *Lease) Extend(ctx context.Context, ttl time.Duration) error {
	cl := l.claim
	c := cl.h.client
	if err := checkTTL(ttl, c.caps); err != nil {
		return c.fail("extend", cl.h.name, ErrInvalid, err)
	}
	claim, sent, err := l.beginExtend(ctx, ttl)
	if err != nil {
		return err
	}
	err = c.engine.Renew(ctx, []driver.Claim{claim})[0]

	cl.h.bucket.mu.Lock()
	cl.endRenewal()
	if err == nil && cl.state == live {
		cl.ttl = ttl
		if cl.renewEvery > 0 {
			cl.renewEvery = max(ttl/3, 1)
		}
	}
	err = cl.renewedFor(sent, claim.TTL, err)
	if cl.state == live && err == nil {
		c.renewer.schedule(cl, cl.nextDue(sent))
	}
	cl.h.bucket.mu.Unlock()
	if err == nil {
		return nil
	}
	if isLoss(err) {
		c.lose(cl, c.lossCause(cl, err))
	}
	e := c.wrap("extend", cl.h.name, err)
	if e.Kind == ErrNotHeld {
		e.Kind = ErrLost
	}
	return e
}

// beginExtend marks the claim as being renewed and returns what to ask for. At most one
// renewal of a claim is under way: their replies could be entered in the wrong order.
func (l *Lease) beginExtend(ctx context.Context, ttl time.Duration) (driver.Claim, driver.Instant, error) {
	cl := l.claim
	cl.h.bucket.mu.Lock()
	for cl.renewing {
		cl.h.bucket.mu.Unlock()
		if !cl.h.client.awaitRenewal(ctx, cl) {
			return driver.Claim{}, 0, cl.h.client.fail("extend", cl.h.name, ErrUnavailable, ctx.Err())
		}
		cl.h.bucket.mu.Lock()
	}
	defer cl.h.bucket.mu.Unlock()
	if err := l.check("extend"); err != nil {
		return driver.Claim{}, 0, err
	}
	sent := cl.h.client.clock.Now()
	claim := cl.driverClaim()
	claim.TTL = ttl
	if cl.holdUntil != forever {
		claim.TTL = max(cl.h.client.caps.MinTTL, min(ttl, ttlFor(cl.holdUntil.Sub(sent))))
	}
	cl.renewing = true
	return claim, sent, nil
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
	}
	req := driver.Request{
		Name: cl.h.name, Mode: driver.Exclusive, Token: cl.token, Owner: cl.h.owner,
		TTL: cl.ttl, Span: 1, Wait: true, Upgrade: true,
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	g, err := c.engine.Acquire(ctx, req)
	if err != nil {
		if isLoss(err) {
			c.lose(cl, c.lossCause(cl, err))
		}
		return c.wrap("upgrade", cl.h.name, err)
	}
	return l.upgradedTo(g, req.TTL)
}

// upgradedTo enters the exclusive grant into the books.
func (l *Lease) upgradedTo(g driver.Grant, ttl time.Duration) error {
	cl := l.claim
	c, b := cl.h.client, cl.h.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := l.check("upgrade"); err != nil {
		return err
	}
	cl.mode, l.upgraded, l.fence = driver.Exclusive, true, g.Fence
	cl.next, cl.top = g.Fence+1, g.Fence+int64(g.FenceSpan)-1
	if c.clock.Now() < cl.deadline() {
		cl.expiry = max(cl.expiry, g.Sent.Add(usable(ttl)))
	}
	cl.at.Value.excl = cl
	return nil
}
