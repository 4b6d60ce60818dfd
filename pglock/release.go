package pglock

import (
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
	b := sh.book
	if err := e.takeTurn(ctx, b, false); err != nil {
		e.stay(sh) // nothing was done
		return err
	}
	s, r := e.giving(sh)
	if r == nil {
		e.leaveTurn(b)
		return driver.Fail(driver.NotHeld, nil) // its session ended meanwhile
	}
	if !e.await(ctx, s, r) {
		e.afterwards(b, r, func() { _ = e.given(sh, s, r) })
		err := &driver.Error{Kind: driver.Unavailable, Err: ctx.Err()}
		if ctx.Err() == nil {
			err.Kind = driver.Closed
		}
		return err
	}
	defer e.leaveTurn(b)
	return e.given(sh, s, r)
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

// giving asks the server to give back a share that is leaving. It returns nil where the share
// is gone. The caller has the turn.
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
	} else {
		s.submit(r)
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
		steps = append(steps, step{op: opUnlockShared, key: k.at(readersPlace)}, step{op: opUnlockShared, key: k.lock})
	}
	if sh.mode == driver.Permits {
		steps = append(steps, sh.book.permitsBack(sh.slots, sh.limit, last)...)
	}
	return steps
}

// giveBack gives back what was granted to a token whose caller is gone, or what has run out.
// The caller has the turn.
func (e *Engine) giveBack(token driver.Token) {
	e.mu.Lock()
	sh := e.shares[token]
	if sh == nil {
		e.mu.Unlock()
		return
	}
	sh.leaving = true
	sh.book.users++
	e.mu.Unlock()
	if s, r := e.giving(sh); r != nil {
		<-r.done
		_ = e.given(sh, s, r) // when that failed the session is over
	}
}
