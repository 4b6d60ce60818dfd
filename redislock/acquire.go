package redislock

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

const (
	// pollEvery is how often a waiter looks after its place. What it was pushed can be
	// believed for as long as the offer lives, counted from then.
	pollEvery = time.Second

	// withdrawal is how long a call that is over waits for its place to be taken back.
	withdrawal = 500 * time.Millisecond

	// rideOut is for how long a waiter that had a place goes on when the server does not
	// answer: longer than a failover takes at Sentinel's defaults.
	rideOut = time.Minute
)

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer e.leave()
	a := ask{e: e, req: &req}
	if err := a.sign(); err != nil {
		return driver.Grant{}, err
	}
	if req.Wait {
		if g, err, ok := a.quick(ctx); ok {
			return g, err
		}
		return a.wait(ctx)
	}
	g, _, err := a.once(ctx, false)
	return g, err
}

// ask is one call of Acquire.
type ask struct {
	e   *Engine
	req *driver.Request
	key string
	id  string

	// Of the last answer that said "queued".
	place  protocol.Place
	holder *driver.Holder
}

// sign prepares the request, and refuses what must not be sent.
func (a *ask) sign() (err error) {
	if most := a.e.cfg.MaxTTL; a.req.TTL > most {
		return driver.Failf(driver.Invalid, "TTL is %v: the longest is %v, see Config.MaxTTL", a.req.TTL, most)
	}
	a.key, a.id, err = a.e.sign(a.req.Name, a.req.Owner, a.req.Token)
	return err
}

func (a *ask) op(wait bool) string {
	letter := letterOf(a.req.Mode)
	if a.req.Upgrade {
		letter = 'g'
	}
	if wait {
		letter -= 'a' - 'A'
	}
	if a.req.Span == 1 && letter == 'x' {
		return "x1"
	}
	if a.req.Span == 1 && letter == 'X' {
		return "X1"
	}
	op := string(letter) + strconv.Itoa(a.req.Span)
	if a.req.Mode == driver.Permits {
		op += " " + strconv.Itoa(a.req.Limit) + " " + strconv.Itoa(a.req.Weight)
	}
	return op
}

// quick tries without a place in the queue while the server cannot tell this process of a
// grant yet: most locks are free, and need no subscription.
func (a *ask) quick(ctx context.Context) (driver.Grant, error, bool) {
	if a.req.Upgrade || a.e.hears(a.key) {
		return driver.Grant{}, nil, false
	}
	g, _, err := a.once(ctx, false)
	if err == nil {
		return g, nil, true
	}
	var d *driver.Error
	if errors.As(err, &d) && d.Kind == driver.Held {
		if d.Err = ctx.Err(); d.Err != nil {
			return g, d, true
		}
		a.e.listen(ctx, a.key)
		return g, nil, false
	}
	if _, waits := waitFor(err); waits {
		return g, nil, false
	}
	return g, err, true
}

// once asks once and returns the grant, or what was answered instead. When ctx ends
// meanwhile the answer is still waited for, for a while: it is known then whether there is
// something to give back.
func (a *ask) once(ctx context.Context, wait bool) (driver.Grant, protocol.Answer, error) {
	r := newRequest(a.key, a.op(wait), a.id, millis(a.req.TTL))
	r.poll = a.place.Known
	now := a.e.clock.Now()
	a.e.do(r)
	if err := r.await(ctx, withdrawal); err != nil {
		return driver.Grant{}, protocol.Answer{}, err
	}
	return a.read(r, now)
}

// read turns the answer to a request that was made at now into the driver's terms.
func (a *ask) read(r *request, now driver.Instant) (driver.Grant, protocol.Answer, error) {
	word, payload, err := r.word, r.payload, r.err
	r.free()
	if err != nil {
		return driver.Grant{}, protocol.Answer{}, err
	}
	ans := protocol.Parse(word, a.req.Span)
	if g, ok := ans.Grant(now); ok {
		return g, ans, nil
	}
	switch ans.Kind {
	case protocol.Queued:
		a.place.Note(ans, now)
		a.holder = a.e.holder(payload, ans.N)
		return driver.Grant{}, ans, nil
	case protocol.Held:
		return driver.Grant{}, ans, &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: a.e.holder(payload, ans.N)}
	}
	return driver.Grant{}, ans, a.e.explain(ans, payload)
}

// explain turns an answer that is neither a grant nor about a holder into an error.
func (e *Engine) explain(ans protocol.Answer, payload string) error {
	switch ans.Kind {
	case protocol.Wait:
		return driver.Fail(driver.Unavailable, &graceError{left: time.Duration(ans.N) * time.Millisecond})
	case protocol.CutOff:
		return driver.Fail(driver.Unavailable, errCutOff)
	case protocol.OtherLimit:
		return driver.Failf(driver.Invalid, "limit differs from the one in use, which is %d", ans.N)
	case protocol.QueueFull:
		return driver.Fail(driver.Unavailable, errQueueFull)
	case protocol.Nothing:
		return driver.Fail(driver.NotHeld, nil)
	case protocol.Failed:
		return e.refused(payload)
	case protocol.HalfDone:
		d := e.refused(payload)
		d.Outcome = driver.Unknown
		return d
	}
	return &driver.Error{Kind: driver.Unavailable, Err: errGarbled}
}

// graceError says that the server grants nothing new yet.
type graceError struct{ left time.Duration }

func (g *graceError) Error() string {
	return "the master is new, and leases of its predecessor may still be alive: nothing new is granted for another " +
		g.left.Round(time.Millisecond).String()
}

// waitFor returns how long the server said that it grants nothing new, if it did.
func waitFor(err error) (time.Duration, bool) {
	if err == nil {
		return 0, false
	}
	var g *graceError
	if errors.As(err, &g) {
		return g.left, true
	}
	return 0, false
}

// wait stands in the queue until the share is granted, by the answer to a poll or by a push,
// or until ctx ends.
func (a *ask) wait(ctx context.Context) (driver.Grant, error) {
	w := a.e.waiters.enter(a.req.Token)
	defer a.e.waiters.leave(a.req.Token)
	alive := a.e.clock.Now()
	for {
		// The ear may have to listen anew: at another node, after a slot was moved.
		a.e.listen(ctx, a.key)
		now := a.e.clock.Now()
		g, ans, err := a.once(ctx, true)
		var pause time.Duration
		left, grace := waitFor(err)
		switch {
		case err == nil && ans.Kind == protocol.Granted:
			a.e.waiters.granted(a.req.Token)
			g.Waited = a.place.Known
			return g, nil
		case ctx.Err() != nil || a.e.closed.Load():
			return a.stop(ctx)
		case err == nil:
			alive, pause = now, pauseFor(time.Duration(ans.N)*time.Millisecond, ans.N < 0)
		case grace:
			alive, pause = now, pauseFor(left, false)
		case !a.mayRideOut(err, now.Sub(alive)):
			return a.giveUp(err)
		default:
			pause = pollEvery/5 + rand.N(pollEvery/5)
		}
		g, granted, over := a.sleep(ctx, w, pause)
		if granted {
			a.e.waiters.granted(a.req.Token)
			g.Waited = true
			return g, nil
		}
		if over {
			return a.stop(ctx)
		}
	}
}

// pauseFor is how long to sleep before the next poll: until the holder's share may have run
// out, but no longer than pollEvery, jittered.
func pauseFor(left time.Duration, never bool) time.Duration {
	d := left + time.Millisecond
	if never || d > pollEvery {
		d = pollEvery - rand.N(pollEvery/10)
	}
	return d
}

// mayRideOut reports whether a poll that failed is to be repeated: the waiter had a place, or
// was told to wait, and the server may come back.
func (a *ask) mayRideOut(err error, silent time.Duration) bool {
	var d *driver.Error
	return a.place.Known && silent < rideOut && errors.As(err, &d) && d.Kind == driver.Unavailable
}

// sleep waits for a push that can be believed, the next poll, or the end.
func (a *ask) sleep(ctx context.Context, w *waiter, pause time.Duration) (g driver.Grant, granted, over bool) {
	a.e.waiters.sleeps(w, pause)
	select {
	case p := <-w.pushes:
		if a.place.Believes(p, a.e.clock.Now()) {
			return a.place.Grant(p), true, false
		}
		return g, false, false // it may be true all the same: the poll will tell
	case <-w.polls:
		return g, false, false
	case <-ctx.Done():
		return g, false, true
	case <-a.e.closing:
		return g, false, true
	}
}

// stop takes back the place in the queue, and what may have been granted meanwhile, after
// ctx has ended or the engine was closed. An upgrade that was granted in the same instant is
// returned: its share is exclusive now.
func (a *ask) stop(ctx context.Context) (driver.Grant, error) {
	failure := &driver.Error{Kind: driver.Closed, Outcome: driver.NotApplied}
	if !a.e.closed.Load() {
		failure.Kind, failure.Err, failure.Holder = driver.Unavailable, ctx.Err(), a.holder
		if a.place.Known {
			failure.Kind = driver.Held
		}
	}
	g, err := a.withdraw()
	if err != nil {
		failure.Outcome = driver.Unknown
	}
	if g.Fence > 0 {
		return g, nil
	}
	return g, failure
}

// giveUp ends the wait with err.
func (a *ask) giveUp(err error) (driver.Grant, error) {
	var d *driver.Error
	if a.place.Known || errors.As(err, &d) && d.Outcome == driver.Unknown {
		if g, e := a.withdraw(); e == nil && g.Fence > 0 {
			return g, nil
		} else if e == nil && d != nil {
			return driver.Grant{}, driver.Fail(d.Kind, d.Err)
		}
	}
	return driver.Grant{}, err
}

// withdraw stops waiting on the server. The grant is that of an upgrade that went through.
func (a *ask) withdraw() (driver.Grant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), withdrawal)
	defer cancel()
	r := newRequest(a.key, "c"+a.op(true), a.id, millis(a.req.TTL))
	now := a.e.clock.Now()
	a.e.do(r)
	if err := r.await(ctx, 0); err != nil {
		return driver.Grant{}, err
	}
	word, err := r.word, r.err
	r.free()
	if err != nil {
		return driver.Grant{}, err
	}
	g, _ := protocol.Parse(word, a.req.Span).Grant(now)
	return g, nil
}

// millis is d in whole milliseconds, rounded up.
func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// holder describes who holds a name by what the scripts say; its share ends in left ms.
func (e *Engine) holder(line string, left int64) *driver.Holder {
	h, ok := parseShare(line)
	if !ok {
		return nil
	}
	if left >= 0 {
		h.Until = e.wall().Add(time.Duration(left) * time.Millisecond)
	}
	return &h
}

// orphan deals with the answer to a request that nobody waits for any more: what it was
// granted, or its place in the queue, goes back.
func (e *Engine) orphan(r *request) {
	switch protocol.Parse(r.word, 1).Kind {
	case protocol.Granted, protocol.Queued:
		if r.op[0] != 'g' && r.op[0] != 'G' && r.op[0] != 'c' {
			e.forgetLater(r.key, "r", r.id[len(r.id)-tokenSize:])
		}
	}
}

// forgetLater makes a request that gives something back, whose answer nobody needs.
func (e *Engine) forgetLater(key, op, id string) {
	r := newRequest(key, op, id, 0)
	if e.enter(context.Background()) != nil {
		return // the TTL ends what it was granted
	}
	e.calls.Go(func() {
		defer e.leave()
		ctx, cancel := context.WithTimeout(context.Background(), withdrawal)
		defer cancel()
		e.do(r)
		if r.await(ctx, 0) == nil {
			r.free()
		}
	})
}
