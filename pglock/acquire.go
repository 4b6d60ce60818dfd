package pglock

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// withdrawal is for how long a call whose context has ended waits for the answer to what is
// under way: it is known then whether there is something to give back.
const withdrawal = 500 * time.Millisecond

// ask is one call of Acquire.
type ask struct {
	e    *Engine
	req  *driver.Request
	book *book

	// Of a call that waits.
	cancel    context.CancelFunc // ends it
	released  atomic.Bool        // that is because its token was released
	over      chan struct{}      // closed when it is over
	refusal   *driver.Error      // the last time that somebody was in the way
	refusedAt driver.Instant     // and when that was
	apart     bool               // the server refused, and a session of its own may wait
	wanting   bool               // there is none
	yield     context.CancelFunc // has that go to others
}

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enterCall(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer e.leave()
	switch {
	case req.TTL > e.cfg.MaxTTL:
		return driver.Grant{}, driver.Failf(driver.Invalid, "TTL is %v: the longest is %v, see Config.MaxTTL", req.TTL, e.cfg.MaxTTL)
	case req.TTL < MinTTL:
		return driver.Grant{}, driver.Failf(driver.Invalid, "TTL is %v: the shortest is %v", req.TTL, MinTTL)
	case req.Mode == driver.Permits && req.Limit > MaxPermits:
		return driver.Grant{}, driver.Failf(driver.Invalid, "limit is %d: the largest is %d", req.Limit, MaxPermits)
	}
	a := &ask{e: e, req: &req, book: e.openBook(e.cfg.keysOf(req.Name))}
	defer e.closeBook(a.book)
	g, err := a.run(ctx)
	if err == nil {
		e.tellOwner(ctx, req.Token)
	}
	return g, err
}

func (a *ask) run(ctx context.Context) (driver.Grant, error) {
	if a.req.Wait {
		return a.wait(ctx)
	}
	g, err := a.try(ctx)
	if isEnded(err) { // nothing was taken, or it went with the session
		g, err = a.try(ctx)
	}
	return g, err
}

// tellOwner publishes a share at once where others would take it for somebody else's.
func (e *Engine) tellOwner(ctx context.Context, token driver.Token) {
	e.mu.Lock()
	sh := e.shares[token]
	if sh == nil || sh.published || sh.owner == sh.book.home.owner {
		e.mu.Unlock()
		return
	}
	s := sh.book.home
	e.mu.Unlock()
	e.await(ctx, s, e.publish(s))
}

// isEnded reports whether err is that a session was over.
func isEnded(err error) bool {
	if err == nil {
		return false
	}
	var over *endedError
	return errors.As(err, &over)
}

// try asks once.
func (a *ask) try(ctx context.Context) (g driver.Grant, err error) {
	refused := a.e.inTurn(ctx, a.book, !a.req.Wait, func() (left bool) {
		g, err, left = a.once(ctx)
		return left
	})
	if refused != nil {
		return g, a.held(refused)
	}
	if err == errRefused {
		return g, &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: a.e.whoHolds(ctx, a.book.keys, a.req.Name)}
	}
	return g, err
}

// held adds what is known of the holder to a refusal by this process's own books.
func (a *ask) held(err error) error {
	var d *driver.Error
	if errors.As(err, &d) && d.Kind == driver.Held {
		return &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: d.Holder, Err: d.Err}
	}
	return err
}

// plan is what a request takes of the server.
type plan struct {
	on    *session // nil: the session that takes locks
	steps []step
	undo  []step // gives back what was taken
	held  *share // the token's own
	join  bool   // permits: the session has some of the name already
	free  []int  // slots that the process does not hold
}

// plan decides what to ask the server for, or refuses. The caller has the turn.
func (a *ask) plan() (*plan, error) {
	e, b, req := a.e, a.book, a.req
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &plan{on: b.home, held: e.shares[req.Token]}
	var now driver.Instant // of what is there already
	if p.held != nil || len(b.shares) > 0 {
		now = e.clock.Now()
	}
	if p.held != nil && (p.held.name != req.Name || p.held.leaving || p.held.until <= now) {
		return nil, &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: p.held.holder(now)}
	}
	upgrade := req.Upgrade && p.held != nil && p.held.mode == driver.Upgradeable
	switch {
	case req.Upgrade && (p.held == nil || p.held.mode != driver.Upgradeable && p.held.mode != driver.Exclusive):
		return nil, driver.Failf(driver.NotHeld, "there is no upgradeable share to upgrade")
	case p.held != nil && !upgrade:
		p.steps = []step{{op: opFence}}
		return p, nil
	}
	if req.Mode == driver.Permits && len(b.shares) > 0 && b.shares[0].mode == driver.Permits && b.shares[0].limit != req.Limit {
		return nil, otherLimit(req.Limit)
	}
	if sh := b.blocker(req); sh != nil {
		return nil, &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: sh.holder(now)}
	}
	lock, window := b.keys.lock, b.keys.window
	up := key{n: window + upgradePlace}
	switch {
	case req.Mode == driver.Exclusive:
		p.steps, p.undo = []step{{op: opLock, key: lock}}, []step{{op: opUnlock, key: lock}}
	case req.Mode == driver.Shared && len(b.shares) > 0:
		p.steps = []step{{op: opFence}}
	case req.Mode == driver.Shared:
		p.steps, p.undo = []step{{op: opShare, key: lock, window: window}}, b.readersBack()
	case req.Mode == driver.Upgradeable && len(b.shares) > 0:
		p.steps, p.undo = []step{{op: opLock, key: up}}, []step{{op: opUnlock, key: up}}
	case req.Mode == driver.Upgradeable:
		p.steps = []step{{op: opUpgradeable, key: lock, window: window}}
		p.undo = append([]step{{op: opUnlock, key: up}}, b.readersBack()...)
	default:
		p.join = len(b.shares) > 0
		p.free = b.freeSlots(req.Limit)
		p.undo = b.permitsBack(p.free, req.Limit, !p.join)
	}
	return p, nil
}

func otherLimit(limit int) error {
	return driver.Failf(driver.Invalid, "limit is %d, and differs from the one in use", limit)
}

// once asks the server once. left says that the answer is still to come and that the turn is
// left to somebody who waits for it.
func (a *ask) once(ctx context.Context) (g driver.Grant, err error, left bool) {
	if err, left := a.evict(ctx); err != nil {
		return g, err, left
	}
	p, err := a.plan()
	if err != nil {
		return g, err, false
	}
	s := p.on
	if s == nil {
		if s, err = a.e.mainSession(ctx, a.req.Owner); err != nil {
			return g, err, false
		}
	}
	r := newRequest(p.steps...)
	r.undo, r.lease, r.takes = p.undo, a.req.TTL, p.held == nil
	var slots *permitsAnswer
	if len(p.steps) == 0 {
		slots = askForPermits(a, p, r)
	}
	if !a.e.perform(ctx, s, r, 0) {
		a.e.afterwards(a.book, r, func() {
			if _, err := a.settle(s, r, p, slots); err == nil && p.held == nil {
				a.e.giveBackOf(a.req.Token)
			}
		})
		return g, a.gaveUp(ctx, driver.Unknown), true
	}
	g, err = a.settle(s, r, p, slots)
	if isEnded(err) && ctx.Err() != nil {
		err = a.gaveUp(ctx, driver.Unknown)
	}
	return g, err, false
}

// gaveUp is the error of a call whose context has ended, or whose engine was closed.
func (a *ask) gaveUp(ctx context.Context, outcome driver.Outcome) error {
	if err := ctx.Err(); err != nil {
		return &driver.Error{Kind: driver.Unavailable, Outcome: outcome, Err: err}
	}
	return &driver.Error{Kind: driver.Closed, Outcome: outcome}
}

// await waits for the answer to r. It reports false where ctx has ended, or the engine was
// closed, and no answer is known yet.
func (e *Engine) await(ctx context.Context, s *session, r *request) bool {
	select {
	case <-r.done:
		return true
	case <-ctx.Done():
	case <-e.closing:
	}
	if s.withdraw(r) {
		err := ctx.Err()
		if err == nil {
			r.finish(errClosed)
		} else {
			r.finish(driver.Fail(driver.Unavailable, err))
		}
		return true
	}
	timer := time.NewTimer(withdrawal)
	defer timer.Stop()
	select {
	case <-r.done:
		return true
	case <-timer.C:
		return false
	}
}

// afterwards does something with the answer to r when it comes, and then leaves the turn at b,
// which the caller has left to it.
func (e *Engine) afterwards(b *book, r *request, f func()) {
	e.mu.Lock()
	b.users++
	e.mu.Unlock()
	e.calls.Go(func() {
		<-r.done
		f()
		e.leaveTurn(b)
		e.closeBook(b)
	})
}

// settle enters into the books what r, which is over, has come to. slots is nil unless that is permits.
func (a *ask) settle(s *session, r *request, p *plan, slots *permitsAnswer) (g driver.Grant, err error) {
	defer func() {
		if err != nil && r.taken {
			s.lived()
		}
	}()
	if r.err != nil {
		return driver.Grant{}, r.err
	}
	var first int64
	var taken []int
	if slots != nil {
		switch {
		case slots.came == cameOtherLimit:
			return driver.Grant{}, otherLimit(a.req.Limit)
		case !slots.fence.ok:
			return driver.Grant{}, errRefused
		}
		first, taken = slots.fence.n, slots.slots
	} else if ans := r.answers[0]; !ans.ok {
		a.apart = p.on == nil && !a.req.Upgrade && (a.req.Mode == driver.Exclusive || a.req.Mode == driver.Shared)
		return driver.Grant{}, errRefused
	} else {
		first = ans.n
	}
	span := min(int64(a.req.Span), a.e.server.span)
	g = driver.Grant{Fence: first, FenceSpan: int(span), Sent: r.sent}
	if !a.record(s, g, p.held, taken) {
		return driver.Grant{}, &driver.Error{Kind: driver.Unavailable, Err: &endedError{errors.New("it ended with the grant")}}
	}
	return g, nil
}

// errRefused is the server's word that somebody else holds the name.
var errRefused = driver.Fail(driver.Held, nil)

// record enters what was granted in s. It reports false when that is over by now.
func (a *ask) record(s *session, g driver.Grant, held *share, slots []int) bool {
	e, req := a.e, a.req
	top := g.Fence + int64(g.FenceSpan) - 1
	if held == nil {
		return e.enter(a.book, s, &share{
			book: a.book, token: req.Token, name: req.Name, owner: req.Owner, mode: req.Mode,
			weight: req.Weight, limit: req.Limit, slots: slots, ttl: req.TTL, until: g.Sent.Add(req.TTL),
			first: g.Fence, top: top, since: time.Now().Round(0),
		})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shares[req.Token] != held || held.leaving {
		return false
	}
	held.upgraded = held.upgraded || req.Upgrade && held.mode == driver.Upgradeable
	held.mode = req.Mode
	held.ttl, held.until = req.TTL, g.Sent.Add(req.TTL)
	held.first, held.top, held.published = g.Fence, top, false
	e.reapAt(held.until)
	return true
}

// What a request for permits came to.
const (
	cameHeld       = 0
	cameIn         = 1
	cameOtherLimit = 2
)

// permitsAnswer is what the statement for permits answered.
type permitsAnswer struct {
	came  int64
	fence answer
	slots []int
}

// askForPermits makes r the request for the permits of a.
func askForPermits(a *ask, plan *plan, r *request) *permitsAnswer {
	p, b, req := new(permitsAnswer), a.book, a.req
	var slots list
	for _, slot := range plan.free {
		slots.add(int64(slot))
	}
	r.alone = func(ctx context.Context, w *wire) error {
		rows, err := w.query(ctx, a.e.texts.permits, b.keys.lock.n, b.keys.window, b.keys.lock.pair,
			int64(req.Limit), slots.String(), int64(req.Weight), !plan.join)
		if err != nil {
			return err
		}
		if len(rows) != 1 || len(rows[0]) != 3 {
			return errGarbled
		}
		p.came, _ = number(rows[0][0])
		p.fence.n, p.fence.ok = number(rows[0][1])
		if !p.fence.ok {
			return nil
		}
		for field := range strings.SplitSeq(text(rows[0][2]), ",") {
			slot, err := strconv.Atoi(field)
			if err != nil {
				return errGarbled
			}
			p.slots = append(p.slots, slot)
		}
		return nil
	}
	return p
}

// freeSlots returns the slots that the process does not hold, beginning somewhere: who looks
// for a free one meets few that others have taken. e.mu is locked.
func (b *book) freeSlots(limit int) []int {
	taken := make([]bool, limit)
	for _, sh := range b.shares {
		for _, slot := range sh.slots {
			taken[slot] = true
		}
	}
	var free []int
	start := rand.IntN(limit)
	for i := range limit {
		if slot := (start + i) % limit; !taken[slot] {
			free = append(free, slot)
		}
	}
	return free
}

// readersBack returns the steps that give back the name as a reader.
func (b *book) readersBack() []step {
	return []step{{op: opUnlockShared, key: b.keys.at(readersPlace)}, {op: opUnlockShared, key: b.keys.lock}}
}

// permitsBack returns the steps that give back slots and, with the last of them, the name.
func (b *book) permitsBack(slots []int, limit int, last bool) []step {
	var steps []step
	for _, slot := range slots {
		steps = append(steps, step{op: opUnlock, key: b.keys.at(slotPlace + slot)})
	}
	if last {
		steps = append(steps,
			step{op: opUnlockShared, key: b.keys.at(permitsPlace)},
			step{op: opUnlockShared, key: b.keys.at(limitPlace + limit)},
			step{op: opUnlockShared, key: b.keys.lock})
	}
	return steps
}
