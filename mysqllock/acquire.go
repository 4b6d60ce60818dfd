package mysqllock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer e.leave()
	if req.Mode != driver.Exclusive && req.Mode != driver.Permits || req.Upgrade {
		return driver.Grant{}, driver.Failf(driver.Unsupported, "%v locks: GET_LOCK has exclusive ones only", req.Mode)
	}
	n := e.open(req.Name)
	defer e.close(req.Name)
	ctx, done, err := e.enroll(ctx, n, req.Token)
	if err != nil {
		return driver.Grant{}, err
	}
	defer done()
	var w wait
	if s := e.lendAgain(n, &req); s != nil {
		if g, err := e.waitAgain(ctx, n, &req, s, &w); err != nil || g.Fence > 0 {
			return g, w.blame(ctx, err)
		}
	}
	for {
		g, err := e.attempt(ctx, n, &req)
		switch {
		case err == nil:
			return g, nil
		case isHeld(err) && !req.Wait:
			return g, e.nameHolder(ctx, err, &req)
		case isHeld(err):
			w.refused, w.heard = true, e.clock.Now()
		case !w.ridesOut(ctx, e, err):
			return g, w.blame(ctx, err)
		}
		if g, err = e.await(ctx, n, &req, &w); err != nil || g.Fence > 0 {
			return g, w.blame(ctx, err)
		}
	}
}

// wait is how a request that waits has fared so far.
type wait struct {
	refused bool           // somebody held the share
	pause   time.Duration  // before the next try
	poll    bool           // waiting at the server did not help
	heard   driver.Instant // when that was last said
}

// rideOut is for how long a request that waits bears with a server that does not answer: a
// restart, or a session that was killed, does not end it.
const rideOut = 30 * time.Second

func (w *wait) ridesOut(ctx context.Context, e *Engine, err error) bool {
	var d *driver.Error
	if !w.refused || ctx.Err() != nil || e.closed.Load() || !errors.As(err, &d) || d.Kind != driver.Unavailable {
		return false
	}
	w.poll = true
	return e.clock.Now().Sub(w.heard) < rideOut
}

// blame corrects the error of a request that waited for a holder until its context ended.
func (w *wait) blame(ctx context.Context, err error) error {
	var d *driver.Error
	if w.refused && ctx.Err() != nil && errors.As(err, &d) && d.Kind == driver.Unavailable && errors.Is(d.Err, why(ctx)) {
		return &driver.Error{Kind: driver.Held, Outcome: d.Outcome, Err: d.Err}
	}
	return err
}

// why is the reason that ctx has ended for: its own error, or that the request was withdrawn.
func why(ctx context.Context) error {
	if context.Cause(ctx) == errWithdrawn {
		return errWithdrawn
	}
	return ctx.Err()
}

func isHeld(err error) bool {
	var d *driver.Error
	return errors.As(err, &d) && d.Kind == driver.Held && d.Err == nil
}

// enroll enters a call of Acquire into the books, once no other under that token is under way. Its
// context ends when the request is withdrawn as well.
func (e *Engine) enroll(ctx context.Context, n *name, token driver.Token) (context.Context, func(), error) {
	for {
		e.mu.Lock()
		before := n.asking[token]
		if before == nil {
			break
		}
		e.mu.Unlock()
		select {
		case <-before.over:
		case <-ctx.Done():
			return nil, nil, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			return nil, nil, errClosed
		}
	}
	defer e.mu.Unlock()
	ctx, withdraw := context.WithCancelCause(ctx)
	a := &asking{withdraw: withdraw, over: make(chan struct{})}
	n.asking[token] = a
	return ctx, func() {
		e.mu.Lock()
		delete(n.asking, token)
		e.mu.Unlock()
		withdraw(nil)
		close(a.over)
	}, nil
}

// attempt is one try for a share. Its fields are guarded by Engine.mu until done is closed.
type attempt struct {
	e         *Engine
	n         *name
	req       *driver.Request
	s         *session
	want      wanted
	stopped   bool // it is not to begin to wait at the server
	abandoned bool // nobody waits for it any more
	done      chan struct{}
	grant     driver.Grant
	err       error
}

func (e *Engine) newAttempt(n *name, req *driver.Request, s *session) *attempt {
	return &attempt{
		e: e, n: n, req: req, s: s, done: make(chan struct{}),
		want: wanted{span: req.Span, owner: req.Owner, name: req.Name, weight: req.Weight, limit: req.Limit},
	}
}

// attempt tries once for the share, or for new numbers for the share that the token has.
func (e *Engine) attempt(ctx context.Context, n *name, req *driver.Request) (driver.Grant, error) {
	if err := e.evict(ctx, n); err != nil {
		return driver.Grant{}, err
	}
	s, own := e.main, n.find(req.Token)
	if own != nil {
		s = own.session
	} else if d := n.refuses(req); d != nil {
		e.mu.Unlock()
		return driver.Grant{}, d
	}
	n.busy = true
	copied := *req // it may outlive the call
	a := e.newAttempt(n, &copied, s)
	e.use(req.Name)
	e.mu.Unlock()
	a.begin(ctx, own)
	return a.result(ctx)
}

// begin has the try made. The name is busy.
func (a *attempt) begin(ctx context.Context, own *share) {
	a.want.again = own
	then := func(err error) { a.settle(err, true) }
	switch {
	case own != nil:
		a.want.key = own.key
		if own.req.Mode == driver.Permits {
			a.s.submit(&job{then: then, run: a.renumber})
			return
		}
	case a.req.Mode == driver.Permits:
		a.s.submit(&job{then: then, run: a.permit})
		return
	}
	a.s.perform(ctx, &job{try: &a.want, ttl: a.req.TTL, then: then})
}

// settle takes note of what came of the try. An attempt that was abandoned leaves nothing behind.
func (a *attempt) settle(err error, busy bool) {
	e, n := a.e, a.n
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.drop(a.req.Name)
	defer close(a.done)
	if busy {
		n.busy = false
	}
	switch {
	case err != nil:
		a.err = err
	case !a.want.granted:
		a.err = driver.Fail(driver.Held, nil)
	default:
		fresh := n.find(a.req.Token) == nil
		sh := e.enterShare(a.s, a.req, &a.want)
		a.grant = driver.Grant{Fence: a.want.fence, FenceSpan: a.want.got, Sent: a.want.sent}
		if a.abandoned && fresh {
			a.err = driver.Fail(driver.Held, nil)
			if n.busy { // with a try in the main session, which this share refused
				sh.until = a.want.sent
				sh.timer.Reset(0)
			} else {
				a.s.submit(e.givingBack(n, sh, func(error) {}))
			}
		}
	}
	n.change()
}

// lingerFor is how long a call whose context has ended waits for the answer to what it has sent,
// so that as a rule it knows how that ended.
const lingerFor = time.Second

// result waits for the try, and for a while longer when ctx has ended or the engine was closed.
// A grant that comes by then is returned: the core knows what to do with it. What does not end is
// abandoned.
func (a *attempt) result(ctx context.Context) (driver.Grant, error) {
	select {
	case <-a.done:
	case <-ctx.Done():
	case <-a.e.closing:
	}
	if ctx.Err() == nil && !a.e.closed.Load() {
		return a.grant, a.err
	}
	linger := time.NewTimer(lingerFor)
	defer linger.Stop()
	select {
	case <-a.done:
	case <-linger.C:
	}
	e := a.e
	e.mu.Lock()
	defer e.mu.Unlock()
	outcome := driver.NotApplied
	select {
	case <-a.done:
		var d *driver.Error
		if a.err == nil || !errors.As(a.err, &d) || !isHeld(a.err) && d.Kind != driver.Unavailable {
			return a.grant, a.err
		}
		outcome = d.Outcome
		if d.Kind == driver.Held && ctx.Err() != nil { // somebody was in the way until then
			return driver.Grant{}, &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Err: why(ctx)}
		}
	default:
		a.abandoned, outcome = true, driver.Unknown
	}
	if ctx.Err() == nil {
		return driver.Grant{}, errClosed
	}
	return driver.Grant{}, &driver.Error{Kind: driver.Unavailable, Outcome: outcome, Err: why(ctx)}
}

// Where a request polls, it waits this long between tries, and more each time.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// await waits until another try may be worth while. It may come back with a grant: the request
// then waited at the server.
func (e *Engine) await(ctx context.Context, n *name, req *driver.Request, w *wait) (driver.Grant, error) {
	e.mu.Lock()
	changed := n.listen()
	local := n.refuses(req) != nil && req.Mode == driver.Exclusive // or permits elsewhere count as well
	if !local && req.Mode == driver.Exclusive && !n.waiting && !w.poll {
		if s := e.lend(); s != nil {
			n.waiting = true
			e.mu.Unlock()
			g, err := e.waitAtServer(ctx, n, req, s, w)
			e.mu.Lock()
			n.waiting = false
			n.change()
			e.mu.Unlock()
			return g, err
		}
	}
	e.mu.Unlock()
	w.poll = false
	var again <-chan time.Time
	if !local {
		w.pause = min(max(firstPause, w.pause*8/5), lastPause)
		timer := time.NewTimer(w.pause/2 + rand.N(w.pause))
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-changed:
	case <-again:
	case <-ctx.Done():
		return driver.Grant{}, driver.Fail(driver.Held, why(ctx))
	case <-e.closing:
		return driver.Grant{}, errClosed
	}
	return driver.Grant{}, nil
}
