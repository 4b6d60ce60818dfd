package filelock

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer e.calls.Done()
	if err := check(&req); err != nil {
		return driver.Grant{}, err
	}
	grant, err := e.ask(ctx, &req, false)
	if err == errQueued {
		return e.wait(ctx, &req)
	}
	return grant, err
}

// check refuses what could not be read from the file again. Requests of the core pass.
func check(req *driver.Request) error {
	switch {
	case len(req.Name) > maxText, len(req.Owner) > maxText:
		return driver.Failf(driver.Invalid, "name and owner have %d and %d bytes: shorten them to %d", len(req.Name), len(req.Owner), maxText)
	case req.TTL < 0, req.TTL > MaxTTL:
		return driver.Failf(driver.Invalid, "TTL is %v: give one up to %v", req.TTL, MaxTTL)
	case req.Limit < 0, req.Limit > MaxPermits, req.Weight < 0, req.Weight > max(req.Limit, 1):
		return driver.Failf(driver.Invalid, "%d of %d permits: the limit is at most %d, and a weight at most the limit", req.Weight, req.Limit, MaxPermits)
	}
	req.Span = min(max(req.Span, 1), math.MaxInt32)
	return nil
}

// ask enters req into the book or, once it waits, looks how it stands there. What it answers
// is read under the guard after Sent was taken, a grant as well as errQueued.
func (e *Engine) ask(ctx context.Context, req *driver.Request, waited bool) (driver.Grant, error) {
	if _, err := e.current(); err != nil {
		return driver.Grant{}, err
	}
	sent := e.clock.Now()
	b, err := e.lock(ctx, e.closing, req.Name, !req.Upgrade)
	if err == errAbsent {
		return driver.Grant{}, driver.Fail(driver.Lost, nil)
	}
	if err != nil {
		return driver.Grant{}, err
	}
	defer e.unlock(b)
	if waited {
		if s := b.granted(req); s != nil {
			return grantOf(s, sent), nil
		}
	}
	switch verdict := b.ask(req); verdict {
	case ledger.Granted:
		if err := b.save(); err != nil {
			return driver.Grant{}, err
		}
		return grantOf(b.st.Find(req.Token), sent), nil
	case ledger.Queued:
		return driver.Grant{}, b.queue(req)
	default:
		return driver.Grant{}, b.refuse(req, verdict)
	}
}

func grantOf(s *ledger.Share, sent driver.Instant) driver.Grant {
	return driver.Grant{Fence: s.Fence, FenceSpan: s.FenceSpan, Sent: sent}
}

// granted returns the share of req if it holds what it asks for, as a member that others take
// for alive.
func (b *book) granted(req *driver.Request) *ledger.Share {
	s := b.st.Find(req.Token)
	if s == nil || s.State != ledger.Held || s.Mode != req.Mode || s.Home != b.me.home {
		return nil
	}
	return s
}

// ask asks the ledger. When the answer is that somebody is in the way, it makes sure that
// they all live; an uncontended request looks for nobody.
func (b *book) ask(req *driver.Request) ledger.Verdict {
	b.touch()
	if s := b.st.Find(req.Token); s != nil && !b.alive(s.Home) {
		b.strike() // it belongs to the member that this engine was before
	}
	for {
		_, verdict := b.st.Ask(req, b.me.home, &b.st.fences, nowMicros())
		if verdict == ledger.Granted || verdict == ledger.Missing || !b.strike() {
			return verdict
		}
		b.settle()
		if b.granted(req) != nil {
			return ledger.Granted
		}
	}
}

// queue stores that req waits. The waiter is entered before others can see it, so that no
// wake-up is sent in vain.
func (b *book) queue(req *driver.Request) error {
	b.me.listen(b.e.inbox.deliver)
	b.e.inbox.add(req.Token)
	if err := b.save(); err != nil {
		b.e.inbox.remove(req.Token)
		return err
	}
	return errQueued
}

// refuse answers a request that left nothing in the book. What was struck out on the way and
// granted to others in its place is stored.
func (b *book) refuse(req *driver.Request, verdict ledger.Verdict) error {
	if len(b.pokes) > 0 {
		if err := b.save(); err != nil {
			return err
		}
	}
	switch verdict {
	case ledger.Missing:
		return driver.Fail(driver.Lost, nil)
	case ledger.Mismatch:
		return driver.Failf(driver.Invalid,
			"limit is %d here and %d elsewhere: use one limit for a semaphore everywhere", req.Limit, b.st.Limit())
	}
	held := driver.Fail(driver.Held, nil)
	if blocker := b.st.Blocker(); blocker != nil {
		held.Holder = blocker.Holder(until)
	}
	return held
}

// until is the end of a share, which here has none.
func until(*ledger.Share) time.Time { return time.Time{} }

// wait sleeps until req, which is in the book, is granted. It is woken by whoever grants it,
// and looks by itself as well: wake-ups can get lost, and the dead send none.
func (e *Engine) wait(ctx context.Context, req *driver.Request) (driver.Grant, error) {
	wake := e.inbox.add(req.Token)
	defer e.inbox.remove(req.Token)
	timer := time.NewTimer(lookAfter(0))
	defer timer.Stop()
	for {
		var ended error
		select {
		case <-wake:
		case <-timer.C:
			if ahead, quiet := e.quiet(ctx, req); quiet {
				timer.Reset(lookAfter(ahead))
				continue
			}
		case <-ctx.Done():
			ended = driver.Fail(driver.Held, ctx.Err())
		case <-e.closing:
			ended = errClosed
		}
		if ended != nil {
			return e.giveUp(req, ended)
		}
		grant, err := e.ask(ctx, req, true)
		if err == nil {
			return grant, nil
		}
		if err != errQueued {
			return e.giveUp(req, err)
		}
		timer.Reset(lookAfter(0))
	}
}

// lookAfter is how long a waiter sleeps that has so many others before it. The first one
// notices a death within a tenth of a second; those behind it look less often, so that a
// long queue costs little more than a short one.
func lookAfter(ahead int) time.Duration {
	first, step := 25*time.Millisecond, 5*time.Millisecond
	if !hasInbox {
		first, step = 5*time.Millisecond, time.Millisecond
	}
	d := min(first+time.Duration(ahead)*step, time.Second)
	return d + rand.N(d)
}

// patience bounds calls that clean up after a context that has ended.
const patience = 250 * time.Millisecond

// giveUp ends a wait for the reason why. A grant that came in the same instant is returned,
// unless the engine is closed: the caller knows what to do with it.
func (e *Engine) giveUp(req *driver.Request, why error) (driver.Grant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sent := e.clock.Now()
	b, err := e.lock(ctx, nil, req.Name, false)
	switch {
	case err == errAbsent:
		return driver.Grant{}, why
	case err != nil:
		return driver.Grant{}, undecided(why, err)
	}
	defer e.unlock(b)
	switch s := b.granted(req); {
	case b.st.Find(req.Token) == nil:
		return driver.Grant{}, why
	case s != nil && why != errClosed:
		return grantOf(s, sent), nil
	case s != nil:
		b.st.Remove(req.Token)
	default:
		b.st.Withdraw(req.Token)
	}
	b.touch()
	b.settle()
	if err := b.save(); err != nil {
		return driver.Grant{}, undecided(why, err)
	}
	return driver.Grant{}, why
}

// undecided is the error of a wait that could not be taken back: it may be granted yet, and
// whoever asked has to release it.
func undecided(why, err error) error {
	failed := &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: err}
	var classified *driver.Error
	if errors.As(why, &classified) {
		failed.Kind = classified.Kind
		if classified.Err != nil {
			failed.Err = errors.Join(classified.Err, err)
		}
	}
	return failed
}
