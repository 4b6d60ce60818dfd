package memlock

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	var fault Fault
	if e.store.inject.Load() != nil {
		var err error
		if fault, err = e.suffer(ctx, Call{Op: OpAcquire, Name: req.Name, Owner: req.Owner, Wait: req.Wait}); err != nil {
			return driver.Grant{}, err
		}
	}
	var w wait
	grant, err := e.ask(&req, &w)
	if err == errQueued {
		grant, err = e.wait(ctx, &req, &w)
	}
	if err == nil && fault.DropReply {
		return driver.Grant{}, errDropped
	}
	return grant, err
}

// wait is a request that waits. From the moment it is queued until it leaves the book it is
// among the book's waiters, so no change of the book can pass it by.
type wait struct {
	wake chan struct{} // nil until the request is queued
	next time.Duration // when the first share in the way runs out
}

// errQueued says that the request is in the book and waits. It never leaves the package.
var errQueued = driver.Failf(driver.Held, "queued")

// ask enters req into the book, or looks again how it stands there.
func (e *Engine) ask(req *driver.Request, w *wait) (driver.Grant, error) {
	sh := e.store.lock(req.Name)
	at := sh.books.Open(req.Name)
	grant, err := e.store.answer(sh, &at.Value, req, w)
	sh.close(at)
	sh.mu.Unlock()
	return grant, err
}

// answer is ask once the book is open.
func (s *Store) answer(sh *shard, b *book, req *driver.Request, w *wait) (driver.Grant, error) {
	now := s.clock.Now() // under the lock: no later change of the book has an earlier time
	if b.expire(now) {
		s.settle(sh, b, now)
	}
	share, verdict := b.Ask(req, "", &sh.fences, s.micros(now))
	if verdict == ledger.Queued {
		b.enroll(req.Token, w)
		w.next = b.nextEnd(now.Add(MaxTTL)).Sub(now)
		return driver.Grant{}, errQueued
	}
	if w.wake != nil {
		b.dismiss(w)
	}
	switch verdict {
	case ledger.Granted:
		share.TTL, share.Until = req.TTL, now.Add(req.TTL)
		return driver.Grant{Fence: share.Fence, FenceSpan: share.FenceSpan, Sent: now}, nil
	case ledger.Mismatch:
		return driver.Grant{}, driver.Failf(driver.Invalid,
			"limit is %d here and %d elsewhere: use one limit for a semaphore everywhere", req.Limit, b.Limit())
	case ledger.Missing:
		return driver.Grant{}, driver.Fail(driver.Lost, nil)
	}
	held := driver.Fail(driver.Held, nil)
	if blocker := b.Blocker(); blocker != nil {
		held.Holder = blocker.Holder(s.until)
	}
	return driver.Grant{}, held
}

// enroll puts a queued request among those to wake.
func (b *book) enroll(token driver.Token, w *wait) {
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
		b.waiters = append(b.waiters, waiter{token, w.wake})
	}
}

// dismiss ends what enroll began.
func (b *book) dismiss(w *wait) {
	b.waiters = slices.DeleteFunc(b.waiters, func(x waiter) bool { return x.wake == w.wake })
	w.wake = nil
}

// nextEnd is when the first share that is held runs out, or end if that comes first.
func (b *book) nextEnd(end driver.Instant) driver.Instant {
	for i := range b.Shares {
		if b.Shares[i].State != ledger.Waiting {
			end = min(end, b.Shares[i].Until)
		}
	}
	return end
}

// wait sleeps until req is granted. Every wake-up asks the book again, so that the grant is
// proven by a reading of the clock that is no older than the wake-up.
func (e *Engine) wait(ctx context.Context, req *driver.Request, w *wait) (driver.Grant, error) {
	if !e.beginWait() {
		return e.giveUp(req, w, errClosed)
	}
	defer e.waits.Done()
	for {
		wake := w.wake
		timer := e.store.clock.AfterFunc(w.next, func() { poke(wake) })
		var ended *driver.Error
		select {
		case <-wake:
		case <-ctx.Done():
			ended = driver.Fail(driver.Held, ctx.Err())
		case <-e.closing:
			ended = errClosed
		}
		timer.Stop()
		if ended != nil {
			return e.giveUp(req, w, ended)
		}
		if grant, err := e.ask(req, w); err != errQueued {
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
	if e.closed.Load() {
		return false
	}
	e.waits.Add(1)
	return true
}

// giveUp ends a wait for the reason why. A grant that came in the same instant is returned:
// the core knows what to do with it.
func (e *Engine) giveUp(req *driver.Request, w *wait, why *driver.Error) (driver.Grant, error) {
	s := e.store
	sh := s.lock(req.Name)
	defer sh.mu.Unlock()
	now := s.clock.Now()
	at := sh.books.Open(req.Name)
	defer sh.close(at)
	b := &at.Value
	b.dismiss(w)
	b.expire(now)
	b.Withdraw(req.Token)
	s.settle(sh, b, now)
	share := b.Find(req.Token)
	if share == nil || share.Mode != req.Mode {
		if blocker := b.Blocker(); blocker != nil && why.Kind == driver.Held {
			why.Holder = blocker.Holder(s.until)
		}
		return driver.Grant{}, why
	}
	share.TTL, share.Until = req.TTL, now.Add(req.TTL)
	return driver.Grant{Fence: share.Fence, FenceSpan: share.FenceSpan, Sent: now}, nil
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
	sh := s.lock(c.Name)
	defer sh.mu.Unlock()
	now := s.clock.Now()
	at := sh.books.Open(c.Name)
	defer sh.close(at)
	b := &at.Value
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
	var fault Fault
	if e.store.inject.Load() != nil {
		var err error
		if fault, err = e.suffer(ctx, Call{Op: OpRelease, Name: c.Name, Owner: c.Owner}); err != nil {
			return err
		}
	}
	sh := e.store.lock(c.Name)
	at := sh.books.Open(c.Name)
	held := e.store.strike(sh, &at.Value, &c)
	sh.close(at)
	sh.mu.Unlock()
	switch {
	case fault.DropReply:
		return errDropped
	case !held:
		return errNotHeld
	}
	return nil
}

// strike takes the share of c out of the book, and reports whether it was held.
func (s *Store) strike(sh *shard, b *book, c *driver.Claim) bool {
	// A share that is still in the book kept everybody else out until now, even if its time
	// is over: nobody has asked for it since, or it would not be there.
	was, found := b.Remove(c.Token)
	if len(b.waiters) > 0 {
		now := s.clock.Now()
		b.wake(c.Token) // a call that still waits under this token begins anew
		b.expire(now)
		s.settle(sh, b, now)
	}
	return found && was != ledger.Waiting
}

var errNotHeld = driver.Fail(driver.NotHeld, nil)
