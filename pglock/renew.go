package pglock

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// renewal is a session's part of one call of Renew.
type renewal struct {
	session *session
	request *request
	claims  []int // their places in the call
}

// Renew implements driver.Engine: one short statement for each session that the claims live
// in, which are one and those that were waited in.
func (e *Engine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	if err := e.enterCall(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer e.leave()
	shares := make([]*share, len(claims))
	var renewals []*renewal
	e.mu.Lock()
	now := e.clock.Now()
	for i, c := range claims {
		sh := e.living(c, now)
		if sh == nil {
			errs[i] = driver.Fail(driver.Lost, nil)
			continue
		}
		shares[i] = sh
		renewals = join(renewals, sh.book.home, i, c.TTL)
	}
	e.mu.Unlock()
	for _, r := range renewals {
		r.session.submit(r.request)
	}
	for _, r := range renewals {
		answered := e.await(ctx, r.session, r.request)
		for _, i := range r.claims {
			errs[i] = e.renewed(ctx, shares[i], claims[i], r.request, answered)
		}
	}
	return errs
}

// living returns the share of a claim that can be renewed, or nil. e.mu is locked.
func (e *Engine) living(c driver.Claim, now driver.Instant) *share {
	sh := e.shares[c.Token]
	if sh == nil || sh.name != c.Name || sh.leaving || sh.until <= now {
		return nil
	}
	return sh
}

// join adds the claim at place i, which lives in s, to the renewals.
func join(all []*renewal, s *session, i int, ttl time.Duration) []*renewal {
	var r *renewal
	for _, other := range all {
		if other.session == s {
			r = other
		}
	}
	if r == nil {
		r = &renewal{session: s, request: newRequest(step{op: opPing})}
		all = append(all, r)
	}
	r.request.lease = max(r.request.lease, ttl)
	r.claims = append(r.claims, i)
	return all
}

// renewed enters into the books what became of a renewal.
func (e *Engine) renewed(ctx context.Context, sh *share, c driver.Claim, r *request, answered bool) error {
	switch {
	case !answered && ctx.Err() != nil:
		return &driver.Error{Kind: driver.Unavailable, Err: ctx.Err()}
	case !answered:
		return errClosed
	case isEnded(r.err):
		return driver.Fail(driver.Lost, r.err)
	case r.err != nil:
		return r.err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// What ran out while the request was under way is not taken back.
	if e.living(c, r.sent) != sh {
		return driver.Fail(driver.Lost, nil)
	}
	sh.ttl, sh.until = c.TTL, r.sent.Add(c.TTL)
	e.reapAt(sh.until)
	return nil
}
