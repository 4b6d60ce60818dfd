package pglock

import (
	"cmp"
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// Release implements driver.Engine.
func (e *Engine) Release(ctx context.Context, claim driver.Claim) error {
	if err := e.enterCall(ctx); err != nil {
		return err
	}
	defer e.leave()
	if err := e.withdraw(ctx, claim); err != nil {
		return err
	}
	sh := e.leaveShare(claim)
	if sh == nil {
		return driver.Fail(driver.NotHeld, nil)
	}
	var err error
	refused := e.inTurn(ctx, sh.book, false, func() (left bool) {
		err, left = e.release(ctx, sh)
		return left
	})
	if refused != nil {
		e.stay(sh) // nothing was done
	}
	return cmp.Or(refused, err)
}

// release gives back a share that is leaving, for a caller who has the turn. left says that the answer
// is still to come, and that the turn is left to somebody who waits for it.
func (e *Engine) release(ctx context.Context, sh *share) (err error, left bool) {
	b := sh.book
	s, r := e.giving(sh)
	if r == nil {
		return driver.Fail(driver.NotHeld, nil), false // its session ended meanwhile
	}
	if !e.perform(ctx, s, r, 1) {
		e.afterwards(b, r, func() { _ = e.given(sh, s, r) })
		err := &driver.Error{Kind: driver.Unavailable, Err: ctx.Err()}
		if ctx.Err() == nil {
			err.Kind = driver.Closed
		}
		return err, true
	}
	return e.given(sh, s, r), false
}

// withdraw ends the call that waits under the claim's token, and returns when it is over.
func (e *Engine) withdraw(ctx context.Context, claim driver.Claim) error {
	e.mu.Lock()
	a := e.waiting[claim.Token]
	e.mu.Unlock()
	if a == nil || a.req.Name != claim.Name || a.req.Upgrade {
		return nil
	}
	a.released.Store(true)
	a.cancel()
	select {
	case <-a.over:
		return nil
	case <-ctx.Done():
		return &driver.Error{Kind: driver.Unavailable, Err: ctx.Err()}
	case <-e.closing:
		return errClosed
	}
}

// leaveShare returns the share of a claim, which nothing prolongs from then on, or nil.
func (e *Engine) leaveShare(claim driver.Claim) *share {
	e.mu.Lock()
	defer e.mu.Unlock()
	sh := e.shares[claim.Token]
	if sh == nil || sh.name != claim.Name || sh.leaving {
		return nil
	}
	sh.leaving = true
	sh.book.users++ // until giving or stay
	return sh
}

// stay ends what leaveShare began.
func (e *Engine) stay(sh *share) {
	e.mu.Lock()
	sh.leaving = false
	e.reapAt(sh.until)
	e.mu.Unlock()
	e.closeBook(sh.book)
}

// giving returns the request that gives back a share that is leaving, nil where the share is gone.
// The caller has the turn, and performs it.
func (e *Engine) giving(sh *share) (*session, *request) {
	defer e.closeBook(sh.book)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shares[sh.token] != sh {
		return nil, nil
	}
	s := sh.book.home
	r := newRequest(sh.back(sh.book.others(sh) == 0)...)
	if len(r.steps) == 0 { // others of the process hold it as well
		r.finish(nil)
	}
	return s, r
}

// given strikes a share out that the server was asked to give back.
func (e *Engine) given(sh *share, s *session, r *request) error {
	if r.err != nil && !isEnded(r.err) { // it was not even sent: the session had no time for it
		e.mu.Lock()
		sh.leaving = false
		e.reapAt(sh.until)
		e.mu.Unlock()
		return r.err
	}
	e.strike(sh)
	if r.err != nil { // the server has freed it, or will when it notices
		return r.err
	}
	for _, ans := range r.answers {
		if !ans.ok || ans.n != 1 {
			s.finish(errNotThere)
			return driver.Fail(driver.NotHeld, errNotThere)
		}
	}
	return nil
}

// back returns the steps that give the share back. last says that the process holds nothing
// else of the name.
func (sh *share) back(last bool) []step {
	k := sh.book.keys
	var steps []step
	readers := last && (sh.mode == driver.Shared || sh.mode == driver.Upgradeable || sh.upgraded)
	if sh.mode == driver.Exclusive {
		steps = append(steps, step{op: opUnlock, key: k.lock})
	}
	if sh.mode == driver.Upgradeable || sh.upgraded {
		steps = append(steps, step{op: opUnlock, key: k.at(upgradePlace)})
	}
	if readers {
		steps = append(steps, sh.book.readersBack()...)
	}
	if sh.mode == driver.Permits {
		steps = append(steps, sh.book.permitsBack(sh.slots, sh.limit, last)...)
	}
	return steps
}

// giveBack gives back a share that nobody is to have any more, unless that was done: its token may hold
// another one by now. The caller has the turn.
func (e *Engine) giveBack(sh *share) {
	if s, r := e.givingBack(sh); r != nil {
		if !r.over.Load() {
			s.submit(r)
		}
		<-r.done
		_ = e.given(sh, s, r) // when that failed the session is over
	}
}

// giveBackOf gives back what was granted to a token just now. The caller has the turn.
func (e *Engine) giveBackOf(token driver.Token) {
	e.mu.Lock()
	sh := e.shares[token]
	e.mu.Unlock()
	if sh != nil { // or its session has ended
		e.giveBack(sh)
	}
}

// givingBack is giving for a share that nobody gives back of his own accord.
func (e *Engine) givingBack(sh *share) (*session, *request) {
	e.mu.Lock()
	sh.leaving = true
	sh.book.users++
	e.mu.Unlock()
	return e.giving(sh)
}

// evict gives back what the process holds of the name beyond its time: it is late in doing so by
// itself, and nobody is to be refused for that. The caller has the turn; left says that the answer is
// still to come, and that the turn is left to somebody who waits for it.
func (a *ask) evict(ctx context.Context) (err error, left bool) {
	e := a.e
	for sh := a.overdue(); sh != nil; sh = a.overdue() {
		s, r := e.givingBack(sh)
		if r == nil {
			continue // its session has ended
		}
		if !e.perform(ctx, s, r, 1) {
			e.afterwards(a.book, r, func() { _ = e.given(sh, s, r) })
			return a.gaveUp(ctx, driver.NotApplied), true
		}
		if err := e.given(sh, s, r); err != nil && r.err != nil && !isEnded(err) {
			return err, false
		}
	}
	return nil, false
}

// overdue returns a share of the name whose time is over, or nil.
func (a *ask) overdue() *share {
	e := a.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(a.book.shares) == 0 {
		return nil
	}
	now := e.clock.Now()
	for _, sh := range a.book.shares {
		if sh.until <= now {
			return sh
		}
	}
	return nil
}
