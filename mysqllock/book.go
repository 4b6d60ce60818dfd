package mysqllock

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// name is what the engine knows of a name that is in use in this process. GET_LOCK can be had
// again by the session that has it: it is these books that keep two tokens of a process apart.
type name struct {
	shares  []*share
	asking  map[driver.Token]*asking
	busy    bool          // a statement for it is under way, or may be, in the main session
	waiting bool          // one of its requests waits at the server
	changed chan struct{} // closed at the next change of shares or busy; nil while nobody listens
	users   int
}

// asking is a call of Acquire that is under way.
type asking struct {
	withdraw context.CancelCauseFunc
	over     chan struct{}
}

// share is what a token holds.
type share struct {
	name    string
	key     string
	session *session
	req     driver.Request
	fence   int64 // the first of its numbers
	top     int64 // the last
	since   time.Time
	ttl     time.Duration
	until   driver.Instant
	timer   driver.Timer // fires at until
	told    bool         // others can read of it
}

// open returns the entry of a name and counts the caller as a user of it, until close.
func (e *Engine) open(of string) *name {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.use(of)
}

func (e *Engine) use(of string) *name {
	n := e.names[of]
	if n == nil {
		n = &name{asking: make(map[driver.Token]*asking)}
		e.names[of] = n
	}
	n.users++
	return n
}

func (e *Engine) close(of string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(of)
}

// drop ends one use. A name without users is forgotten; shares are users. e.mu is locked.
func (e *Engine) drop(of string) {
	n := e.names[of]
	if n.users--; n.users == 0 {
		delete(e.names, of)
	}
}

// change wakes those who listen. e.mu is locked.
func (n *name) change() {
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// listen returns what is closed at the next change. e.mu is locked.
func (n *name) listen() <-chan struct{} {
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

func (n *name) find(token driver.Token) *share {
	for _, sh := range n.shares {
		if sh.req.Token == token {
			return sh
		}
	}
	return nil
}

// refuses says why the process's own shares keep req from being granted, nil if they do not.
// e.mu is locked.
func (n *name) refuses(req *driver.Request) *driver.Error {
	weight := req.Weight
	for _, sh := range n.shares {
		switch {
		case sh.req.Token == req.Token:
		case req.Mode != driver.Permits || sh.req.Mode != driver.Permits:
			return sh.refusal()
		case sh.req.Limit != req.Limit:
			return mismatch(req.Limit, sh.req.Limit)
		default:
			if weight += sh.req.Weight; weight > req.Limit {
				return sh.refusal()
			}
		}
	}
	return nil
}

func (sh *share) refusal() *driver.Error {
	d := driver.Fail(driver.Held, nil)
	d.Holder = &driver.Holder{
		Owner: sh.req.Owner, Mode: sh.req.Mode, Weight: sh.req.Weight, Fence: sh.top, Since: sh.since,
		Until: time.Now().Add(sh.until.Sub(sh.session.e.clock.Now())).Round(0),
	}
	return d
}

func mismatch(ours, theirs int) *driver.Error {
	return driver.Failf(driver.Invalid, "limit is %d here and %d elsewhere: use one limit for a semaphore everywhere", ours, theirs)
}

// enterShare puts a share into the books, or new numbers and a new end into the one that the token
// has. e.mu is locked.
func (e *Engine) enterShare(s *session, req *driver.Request, w *wanted) *share {
	n := e.names[req.Name]
	sh := n.find(req.Token)
	if sh == nil {
		sh = &share{name: req.Name, key: w.key, session: s, since: time.Now().Round(0)}
		n.shares = append(n.shares, sh)
		n.users++
		s.shares[sh] = struct{}{}
		s.lives.Add(1)
	}
	sh.req, sh.ttl, sh.until = *req, req.TTL, w.sent.Add(req.TTL)
	sh.fence, sh.top, sh.told = w.fence, w.fence+int64(w.got)-1, w.told
	if sh.timer != nil {
		sh.timer.Stop()
	}
	sh.timer = e.later(sh.until.Sub(e.clock.Now()), func() { e.expire(sh) })
	return sh
}

// strike takes a share out of the books. e.mu is locked.
func (e *Engine) strike(sh *share) {
	n := e.names[sh.name]
	n.shares = slices.DeleteFunc(n.shares, func(x *share) bool { return x == sh })
	delete(sh.session.shares, sh)
	sh.session.lives.Add(-1)
	sh.timer.Stop()
	n.change()
	e.drop(sh.name)
}

// held reports whether the share is in the books and has time left. e.mu is locked.
func (sh *share) held(now driver.Instant) bool {
	_, ok := sh.session.shares[sh]
	return ok && now < sh.until
}

// loseAll strikes out what is held in a session that has ended.
func (e *Engine) loseAll(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(s.shares) > 0 { // otherwise who waits in it gives it back
		s.lent = false
	}
	for sh := range s.shares {
		if sh.told {
			e.spent[sh.key] = sh.top
		}
		e.strike(sh)
	}
}

// idle waits until no statement for the name is under way, and returns with e.mu locked; or it
// returns an error, with e.mu unlocked.
func (e *Engine) idle(ctx context.Context, n *name) error {
	e.mu.Lock()
	for n.busy {
		changed := n.listen()
		e.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return driver.Fail(driver.Unavailable, why(ctx))
		case <-e.closing:
			return errClosed
		}
		e.mu.Lock()
	}
	return nil
}

// evict is idle, and gives back what the process holds of the name beyond its time: expire is late in
// doing so, and nobody is to be refused for that.
func (e *Engine) evict(ctx context.Context, n *name) error {
	for {
		if err := e.idle(ctx, n); err != nil {
			return err
		}
		sh := e.overdue(n)
		if sh == nil {
			return nil
		}
		j := e.givingBack(n, sh, func(error) {}) // what fails, the end of the session brings about
		e.mu.Unlock()
		sh.session.perform(ctx, j)
	}
}

// overdue returns a share of the name whose time is over, or nil. e.mu is locked.
func (e *Engine) overdue(n *name) *share {
	if len(n.shares) == 0 {
		return nil
	}
	now := e.clock.Now()
	for _, sh := range n.shares {
		if sh.until <= now {
			return sh
		}
	}
	return nil
}

// expire gives back a share whose time is over.
func (e *Engine) expire(sh *share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := sh.session.shares[sh]; !ok {
		return
	}
	n := e.names[sh.name]
	left := sh.until.Sub(e.clock.Now())
	if n.busy { // perhaps with new numbers, and a new end, for this share
		left = max(left, 10*time.Millisecond)
	}
	if left > 0 {
		sh.timer = e.later(left, func() { e.expire(sh) })
		return
	}
	sh.session.submit(e.givingBack(n, sh, func(error) {})) // what fails, the end of the session brings about
}

// givingBack strikes a share out, and returns the job that releases its lock, for its session.
// Nothing is tried for the name before that is done. then is told what came of
// it. e.mu is locked, and the name is not busy.
func (e *Engine) givingBack(n *name, sh *share, then func(error)) *job {
	s := sh.session
	e.use(sh.name)
	e.strike(sh)
	n.busy = true
	return &job{free: sh.key, then: func(err error) {
		e.mu.Lock()
		if sh.told {
			e.spend(sh)
		}
		n.busy = false
		n.change()
		e.drop(sh.name)
		s.lent = false
		e.mu.Unlock()
		then(err)
	}}
}

const (
	// manySpent rows are taken away at once, fewer after tidyAfter.
	manySpent = 256
	tidyAfter = time.Second
)

// spend notes that the row of a share that is over has to go. That of a permit is taken away when
// there is time. A lock's goes before its session takes the lock again: it would be taken for that
// of the new share. e.mu is locked.
func (e *Engine) spend(sh *share) {
	e.spent[sh.key] = sh.top
	e.pressing = e.pressing || sh.req.Mode == driver.Exclusive
	e.tidyLater()
}

// tidyLater sees to it that rows that are over are taken away. e.mu is locked.
func (e *Engine) tidyLater() {
	if !e.tidying {
		e.tidying = true
		e.later(tidyAfter, e.tidy)
	}
}

func (e *Engine) tidy() {
	e.mu.Lock()
	e.tidying = false
	e.mu.Unlock()
	e.main.submit(&job{run: func() error { e.main.forget(1); return nil }, then: func(error) {}})
}

// takeSpent returns what is spent, if it is as much as least, as far as it goes into a statement.
func (e *Engine) takeSpent(least int) map[string]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.spent) < least && !e.pressing {
		return nil
	}
	taken := make(map[string]int64, min(len(e.spent), manySpent))
	for key, fence := range e.spent {
		if len(taken) == manySpent {
			break
		}
		taken[key] = fence
		delete(e.spent, key)
	}
	e.pressing = e.pressing && len(e.spent) > 0
	return taken
}
