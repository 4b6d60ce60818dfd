package pglock

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

const (
	// firstPoll and lastPoll are the pauses between the tries of a waiter for which there is
	// no session to wait in. They grow from the one to the other.
	firstPoll = 5 * time.Millisecond
	lastPoll  = 250 * time.Millisecond

	// rideOut is for how long a waiter goes on when the server cannot be reached, once it had
	// been refused because somebody held the lock.
	rideOut = time.Minute

	// waitSlice is how long a request may wait in a session while others would like to.
	waitSlice = time.Second

	// cancelPatience is how long the server may take to end a wait, and cancelPause after what
	// time it is asked again.
	cancelPatience = 2 * time.Second
	cancelPause    = 5 * time.Millisecond
)

var (
	errWithdrawn = errors.New("its token was released while it waited")
	errNoCancel  = errors.New("the server did not end a wait that was given up")
	errNoProof   = errors.New("what was granted after a wait could not be verified")
)

// wait asks until the share is granted or ctx ends.
func (a *ask) wait(parent context.Context) (driver.Grant, error) {
	e := a.e
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	a.cancel, a.over = cancel, make(chan struct{})
	e.mu.Lock()
	e.waiting[a.req.Token] = a
	if e.shut {
		cancel() // Close has seen to those that were there
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		if e.waiting[a.req.Token] == a {
			delete(e.waiting, a.req.Token)
		}
		e.mu.Unlock()
		close(a.over)
	}()

	pause := firstPoll
	for ended := 0; ; {
		seen := a.changes()
		g, err := a.turn(ctx)
		var d *driver.Error
		if errors.As(err, &d) && d.Kind == driver.Held {
			a.refused(d)
		}
		switch {
		case err == nil:
			return g, nil
		case a.released.Load():
			return g, driver.Fail(driver.NotHeld, errWithdrawn)
		case ctx.Err() != nil || e.isShut():
			return g, a.stopped(parent, err)
		case d != nil && d.Kind == driver.Held:
		case d == nil || d.Kind != driver.Unavailable:
			return g, err
		case a.refusal != nil && e.clock.Now().Sub(a.refusedAt) < rideOut:
			pause = lastPoll
		case isEnded(err) && ended < 2: // it had ended unnoticed: there will be another one
			ended++
			continue
		default:
			return g, err
		}
		if pause = min(pause+pause/2, lastPoll); !a.sleep(ctx, pause, seen) {
			if a.released.Load() {
				return g, driver.Fail(driver.NotHeld, errWithdrawn)
			}
			return g, a.stopped(parent, nil)
		}
	}
}

// changes is how often the process has given back something of the name.
func (a *ask) changes() uint {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	return a.book.changes
}

// changed returns what is closed when the process gives back something of the name, nil where it has
// done so since seen.
func (a *ask) changed(seen uint) <-chan struct{} {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	b := a.book
	if b.changes != seen {
		return nil
	}
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

func (e *Engine) isShut() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.shut
}

// stopped is the error of a call that has waited until its end. last is what it last came to.
func (a *ask) stopped(ctx context.Context, last error) error {
	if ctx.Err() == nil {
		return errClosed
	}
	failure := &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: ctx.Err()}
	var d *driver.Error
	if errors.As(last, &d) && d.Kind == driver.Unavailable {
		failure.Outcome = d.Outcome
	}
	if a.refusal != nil {
		failure.Kind, failure.Holder = driver.Held, a.refusal.Holder
		if failure.Holder == nil {
			failure.Holder = a.e.whoHolds(context.WithoutCancel(ctx), a.book.keys, a.req.Name)
		}
	}
	return failure
}

// sleep waits until it is time to ask again, and reports false where there is no need to.
func (a *ask) sleep(ctx context.Context, pause time.Duration, seen uint) bool {
	changed := a.changed(seen)
	if changed == nil {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(pause/2 + rand.N(pause/2))
	defer timer.Stop()
	if a.wanting {
		a.e.want(1)
		defer a.e.want(-1)
	}
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return false
	case <-a.e.closing:
		return false
	}
	return true
}

func (e *Engine) want(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pool.wanting += n
}

// turn asks once, and where others are in the way, waits for them in a session of its own.
func (a *ask) turn(ctx context.Context) (g driver.Grant, err error) {
	a.wanting = false
	refused := a.e.inTurn(ctx, a.book, false, func() (left bool) {
		g, err, left = a.onceOrWait(ctx)
		return left
	})
	return g, cmp.Or(refused, err)
}

// onceOrWait is what turn does in the turn, and returns as once does.
func (a *ask) onceOrWait(ctx context.Context) (g driver.Grant, err error, left bool) {
	if s := a.e.familiarSession(a); s != nil {
		g, err = a.waitApart(ctx, s)
		return g, err, false
	}
	a.apart = false
	g, err, left = a.once(ctx)
	if left || err == nil || !a.apart || ctx.Err() != nil {
		return g, err, left
	}
	a.refused(errRefused)
	s := a.e.spareSession(ctx, a.req.Owner)
	if s == nil {
		a.wanting = true
		return g, err, false
	}
	g, err = a.waitApart(ctx, s)
	a.refusedAt = a.e.clock.Now() // it was in the server's queue until now
	return g, err, false
}

// refused notes that somebody is in the way.
func (a *ask) refused(d *driver.Error) { a.refusal, a.refusedAt = d, a.e.clock.Now() }

// waitApart waits in s, in which nothing else lives: what is granted to it stays there until
// it is released. The caller has the turn.
func (a *ask) waitApart(ctx context.Context, s *session) (driver.Grant, error) {
	e, k := a.e, a.book.keys
	ctx, yield := context.WithCancel(ctx)
	defer yield()
	e.waitsApart(a.book, a)
	defer e.waitsNoMore(a.book, s)
	e.mu.Lock()
	a.yield = yield
	s.blocked, s.since = a, e.clock.Now()
	e.mu.Unlock()

	statement := e.texts.waitLock
	undo := []step{{op: opUnlock, key: k.lock}}
	if a.req.Mode == driver.Shared {
		statement = e.texts.waitShared
		undo = []step{{op: opUnlockShared, key: k.at(readersPlace)}, {op: opUnlockShared, key: k.lock}}
	}
	var got answer
	r := newRequest()
	r.undo, r.lease, r.takes = undo, a.req.TTL, true
	r.alone = func(ctx context.Context, w *wire) (err error) {
		if a.req.Mode == driver.Exclusive && !k.lock.pair {
			got, err = w.ask(ctx, e.texts.waitKey, k.lock.n)
		} else {
			got, err = w.queryNumber(ctx, statement, k.lock.n, k.window, k.lock.pair)
		}
		return err
	}
	e.performWait(ctx, s, r)
	if r.taken && (r.err != nil || !got.ok) {
		s.lived() // not
	}
	switch {
	case r.err != nil && stateOf(r.err) == queryCanceled:
		e.spare(s)
		return driver.Grant{}, errRefused
	case r.err != nil:
		return driver.Grant{}, r.err
	case !got.ok: // by permits, which cannot be waited for
		e.spare(s)
		return driver.Grant{}, errRefused
	}
	if got.n < 0 {
		got.n = -got.n
		e.waitedIn(s, k)
	}
	sent, err := a.prove(s, r.sent)
	if err != nil {
		return driver.Grant{}, err
	}
	g := driver.Grant{Fence: got.n, FenceSpan: int(min(int64(a.req.Span), e.server.span)), Sent: sent}
	if !a.record(s, g, nil, nil) {
		return driver.Grant{}, &driver.Error{Kind: driver.Unavailable, Err: &endedError{errors.New("it ended with the grant")}}
	}
	return g, nil
}

// prove finds out whether what was granted after a wait that began at sent is still there: the
// answer may have lain about for longer than the server waits for a silent session. The wait's
// own beginning proves as much where that is not long ago. Where there is no proof the session
// is ended, and nothing is left of the grant.
func (a *ask) prove(s *session, sent driver.Instant) (driver.Instant, error) {
	if a.e.clock.Now().Sub(sent) < a.req.TTL/4 {
		return sent, nil
	}
	r := newRequest(step{op: opPing})
	r.lease = a.req.TTL
	s.submit(r)
	timer := time.NewTimer(a.req.TTL / 2)
	defer timer.Stop()
	select {
	case <-r.done:
		if r.err == nil {
			return r.sent, nil
		}
	case <-timer.C:
	}
	s.finish(errNoProof)
	return 0, driver.Fail(driver.Unavailable, &endedError{errNoProof})
}

// waitsNoMore ends what waitsApart began.
func (e *Engine) waitsNoMore(b *book, s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b.waiter, s.blocked = nil, nil
}

// cancelWait has the server end the wait r in s, and returns when it is over: it may have been
// granted in the same instant.
//
// The server is asked through the session that takes locks. By the time that it has answered
// the signal is on its way, and reaches the process before anything that is sent to it later:
// it cannot hit another statement.
func (e *Engine) cancelWait(s *session, r *request) {
	if s.withdraw(r) {
		r.finish(&driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Err: canceled{}})
		return
	}
	limit := time.NewTimer(cancelPatience)
	defer limit.Stop()
	for {
		e.mu.Lock()
		main := e.pool.main.session
		e.mu.Unlock()
		if main != nil {
			c := newRequest(step{op: opCancel, key: key{n: s.pid}})
			main.submit(c)
			select {
			case <-c.done:
			case <-limit.C:
				s.finish(errNoCancel) // a signal that is late must not hit what comes next
				return
			}
		}
		again := time.NewTimer(cancelPause)
		select {
		case <-r.done:
			again.Stop()
			return
		case <-again.C: // the signal was there before the statement was
		case <-limit.C:
			again.Stop()
			s.finish(errNoCancel)
			return
		}
	}
}

// canceled stands for the server's answer to a wait that was not even begun.
type canceled struct{}

func (canceled) Error() string    { return "the wait was given up" }
func (canceled) SQLState() string { return queryCanceled }
