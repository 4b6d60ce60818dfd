package memlock

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	fault, err := e.suffer(ctx, Call{Op: OpAcquire, Name: req.Name, Owner: req.Owner, Wait: req.Wait})
	if err != nil {
		return driver.Grant{}, err
	}
	grant, err := e.ask(&req)
	if err == errQueued {
		grant, err = e.wait(ctx, &req)
	}
	if err == nil && fault.DropReply {
		return driver.Grant{}, errDropped
	}
	return grant, err
}

// errQueued says that the request is in the book and waits. It never leaves the package.
var errQueued = driver.Failf(driver.Held, "queued")

// ask enters req into the book, or looks again how it stands there.
func (e *Engine) ask(req *driver.Request) (driver.Grant, error) {
	s := e.store
	now := s.clock.Now()
	sh := s.lock(req.Name)
	defer sh.mu.Unlock()
	b := sh.open(req.Name)
	defer sh.close(req.Name, b)
	if b.expire(now) {
		s.settle(sh, b, now)
	}
	switch b.Ask(req, "", &sh.fences, s.micros(now)) {
	case ledger.Granted:
		share := b.Find(req.Token)
		share.TTL, share.Until = req.TTL, now.Add(req.TTL)
		return driver.Grant{Fence: share.Fence, FenceSpan: share.FenceSpan, Sent: now}, nil
	case ledger.Queued:
		if req.Wait {
			return driver.Grant{}, errQueued
		}
	case ledger.Mismatch:
		return driver.Grant{}, driver.Failf(driver.Invalid,
			"limit is %d here and %d elsewhere: use one limit for a semaphore everywhere", req.Limit, b.Shares[0].Limit)
	case ledger.Missing:
		return driver.Grant{}, driver.Fail(driver.Lost, nil)
	}
	held := driver.Fail(driver.Held, nil)
	if blocker := b.Blocker(); blocker != nil {
		held.Holder = blocker.Holder(s.until)
	}
	return driver.Grant{}, held
}

// wait sleeps until req is granted. Every wake-up asks the book again, so that the grant is
// proven by a reading of the clock that is no older than the wake-up.
func (e *Engine) wait(ctx context.Context, req *driver.Request) (driver.Grant, error) {
	if !e.beginWait() {
		e.withdraw(req)
		return driver.Grant{}, errClosed
	}
	defer e.waits.Done()
	wake := make(chan struct{}, 1)
	for {
		// The waiter is entered before the timer is set and the book read, so a change
		// between them leaves a wake-up in the channel.
		next := e.enroll(req, wake)
		timer := e.store.clock.AfterFunc(next, func() { poke(wake) })
		var ended error
		select {
		case <-wake:
		case <-ctx.Done():
			ended = driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			ended = errClosed
		}
		timer.Stop()
		e.dismiss(req)
		if ended != nil {
			return e.giveUp(req, ended)
		}
		grant, err := e.ask(req)
		if err != errQueued {
			return grant, err
		}
	}
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// beginWait counts a call that waits, unless the engine is closed.
func (e *Engine) beginWait() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.closing:
		return false
	default:
		e.waits.Add(1)
		return true
	}
}

// enroll asks to be woken for req and returns how long to sleep at most: until the first
// share in the way runs out. A request that is granted by now is woken at once.
func (e *Engine) enroll(req *driver.Request, wake chan struct{}) time.Duration {
	s := e.store
	now := s.clock.Now()
	sh := s.lock(req.Name)
	defer sh.mu.Unlock()
	b := sh.open(req.Name)
	b.waiters = append(b.waiters, waiter{req.Token, wake})
	next := now.Add(MaxTTL)
	for i := range b.Shares {
		share := &b.Shares[i]
		if share.Token == req.Token && share.State == ledger.Held && share.Mode == req.Mode {
			return 0
		}
		if share.State != ledger.Waiting && share.Until < next {
			next = share.Until
		}
	}
	return next.Sub(now)
}

// dismiss ends what enroll began.
func (e *Engine) dismiss(req *driver.Request) {
	sh := e.store.lock(req.Name)
	defer sh.mu.Unlock()
	b := sh.open(req.Name)
	for i := range b.waiters {
		if b.waiters[i].token == req.Token {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			break
		}
	}
	sh.close(req.Name, b)
}

// giveUp ends a wait for the reason why. A grant that came in the same instant is returned:
// the core knows what to do with it.
func (e *Engine) giveUp(req *driver.Request, why error) (driver.Grant, error) {
	if !e.withdraw(req) {
		return driver.Grant{}, why
	}
	again := *req
	again.Wait = false
	if grant, err := e.ask(&again); err == nil {
		return grant, nil
	}
	return driver.Grant{}, why
}

// withdraw takes the waiting request out of the book and reports whether it had been
// granted instead.
func (e *Engine) withdraw(req *driver.Request) (granted bool) {
	s := e.store
	now := s.clock.Now()
	sh := s.lock(req.Name)
	defer sh.mu.Unlock()
	b := sh.open(req.Name)
	defer sh.close(req.Name, b)
	b.expire(now)
	b.Withdraw(req.Token)
	s.settle(sh, b, now)
	share := b.Find(req.Token)
	return share != nil && share.Mode == req.Mode
}

// Renew implements driver.Engine.
func (e *Engine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	for i := range claims {
		errs[i] = e.renew(ctx, &claims[i])
	}
	return errs
}

func (e *Engine) renew(ctx context.Context, c *driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	fault, err := e.suffer(ctx, Call{Op: OpRenew, Name: c.Name, Owner: c.Owner})
	if err != nil {
		return err
	}
	s := e.store
	now := s.clock.Now()
	sh := s.lock(c.Name)
	defer sh.mu.Unlock()
	b := sh.open(c.Name)
	defer sh.close(c.Name, b)
	if b.expire(now) {
		s.settle(sh, b, now)
	}
	share := b.Find(c.Token)
	if share == nil || share.State == ledger.Waiting {
		return driver.Fail(driver.Lost, nil)
	}
	share.TTL, share.Until = c.TTL, now.Add(c.TTL)
	if fault.DropReply {
		return errDropped
	}
	return nil
}

// Release implements driver.Engine.
func (e *Engine) Release(ctx context.Context, c driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	fault, err := e.suffer(ctx, Call{Op: OpRelease, Name: c.Name, Owner: c.Owner})
	if err != nil {
		return err
	}
	s := e.store
	var now driver.Instant
	sh := s.lock(c.Name)
	defer sh.mu.Unlock()
	b := sh.open(c.Name)
	defer sh.close(c.Name, b)
	share := b.Find(c.Token)
	held := share != nil && share.State != ledger.Waiting
	if held || len(b.waiters) > 0 {
		now = s.clock.Now()
		held = held && !ended(share, now)
	}
	b.Remove(c.Token)
	b.wake(c.Token) // a call that still waits under this token begins anew
	b.expire(now)
	s.settle(sh, b, now)
	switch {
	case fault.DropReply:
		return errDropped
	case !held:
		return driver.Fail(driver.NotHeld, nil)
	}
	return nil
}
