package pglock

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// never is later than anything.
const never = driver.Instant(math.MaxInt64)

// book is what the process knows of one key. The server counts locks by session, and lets a
// session take twice what it has: so what keeps the process's own requests apart stands here.
//
// All that a process holds of a key lives in one session, and at most one request of a key is
// on its way to the server: the one that has the turn. Guarded by Engine.mu.
type book struct {
	keys   keys
	users  int // calls that have it open
	home   *session
	shares []*share

	busy    bool
	line    []*place      // who waits for the turn, first in, first out
	waiter  *ask          // has the turn, and waits in a session of its own
	changes uint          // how often something of the process has been given back
	changed chan struct{} // closed the next time, nil: nobody waits for that
}

// place is somebody in the line for the turn.
type place struct {
	try  bool
	turn chan bool // buffered; false: somebody of this process waits for others
}

// share is what a token holds.
type share struct {
	id            int64 // its number among all of the engine
	book          *book
	token         driver.Token
	name, owner   string
	mode          driver.Mode
	weight, limit int
	slots         []int
	upgraded      bool // it was Upgradeable, and still has what that takes
	ttl           time.Duration
	until         driver.Instant // when it ends unless it is renewed
	first         int64          // of its numbers
	top           int64
	since         time.Time
	published     bool // others can read of it
	leaving       bool // it is being given back, or has run out: nothing prolongs it
}

// openBook returns the book of a key, and counts the caller as its user.
func (e *Engine) openBook(k keys) *book {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.books[k.lock]
	if b == nil {
		b = &book{keys: k}
		e.books[k.lock] = b
	}
	b.users++
	return b
}

// closeBook ends one use of b. What nobody uses and nobody holds is forgotten.
func (e *Engine) closeBook(b *book) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b.users--
	e.forget(b)
}

// forget drops b if it is empty. e.mu is locked.
func (e *Engine) forget(b *book) {
	if b.users == 0 && len(b.shares) == 0 && e.books[b.keys.lock] == b {
		delete(e.books, b.keys.lock)
	}
}

// errTaken says that a request does not get the turn because another one of the process waits
// for those who hold the name.
var errTaken = driver.Fail(driver.Held, nil)

// takeTurn waits until the caller may ask the server for b.
func (e *Engine) takeTurn(ctx context.Context, b *book, try bool) error {
	e.mu.Lock()
	if !b.busy {
		b.busy = true
		e.mu.Unlock()
		return nil
	}
	if try && b.waiter != nil {
		e.mu.Unlock()
		return errTaken
	}
	p := &place{try: try, turn: make(chan bool, 1)}
	b.line = append(b.line, p)
	e.mu.Unlock()
	var err error
	select {
	case mine := <-p.turn:
		if !mine {
			return errTaken
		}
		return nil
	case <-ctx.Done():
		err = driver.Fail(driver.Unavailable, ctx.Err())
	case <-e.closing:
		err = errClosed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(b.line, p); i >= 0 {
		b.line = slices.Delete(b.line, i, i+1)
	} else if <-p.turn { // was given under the lock that is held here
		b.pass()
	}
	return err
}

// inTurn does something in the turn at b, and leaves that, unless do has left it to somebody. err is
// that of not getting the turn: nothing was done then.
func (e *Engine) inTurn(ctx context.Context, b *book, try bool, do func() (left bool)) error {
	if err := e.takeTurn(ctx, b, try); err != nil {
		return err
	}
	left := false
	defer func() { // a driver that panics is no reason to keep it
		if !left {
			e.leaveTurn(b)
		}
	}()
	left = do()
	return nil
}

// leaveTurn passes the turn on.
func (e *Engine) leaveTurn(b *book) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b.pass()
}

func (b *book) pass() {
	if len(b.line) == 0 {
		b.busy = false
		return
	}
	next := b.line[0]
	b.line = slices.Delete(b.line, 0, 1)
	next.turn <- true
}

// waitsApart notes that a, which has the turn, waits in a session of its own from now on. Who only
// tries need not wait for the end of that.
func (e *Engine) waitsApart(b *book, a *ask) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b.waiter = a
	b.line = slices.DeleteFunc(b.line, func(p *place) bool {
		if p.try {
			p.turn <- false
		}
		return p.try
	})
}

// enter adds a share that was granted in s. It reports false when that is over by now.
func (e *Engine) enter(b *book, s *session, sh *share) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !s.alive() {
		return false // nothing counts there any more
	}
	b.home = s
	e.lastShare++
	sh.id = e.lastShare
	b.shares = append(b.shares, sh)
	e.shares[sh.token] = sh
	e.reapAt(sh.until)
	return true
}

// strike takes a share out of the books.
func (e *Engine) strike(sh *share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(sh)
}

// remove is strike with e.mu locked.
func (e *Engine) remove(sh *share) {
	b := sh.book
	i := slices.Index(b.shares, sh)
	if i < 0 {
		return
	}
	b.shares = slices.Delete(b.shares, i, i+1)
	delete(e.shares, sh.token)
	b.home.lived()
	if sh.published {
		b.home.gone = append(b.home.gone, sh.id)
	}
	if len(b.shares) == 0 {
		home := b.home
		if b.home = nil; home != e.pool.main.session && home.alive() {
			e.pool.free = append(e.pool.free, home) // it was waited in, and nothing else lives there
		}
	}
	if b.changes++; b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	e.forget(b)
}

// lose takes a session that is over because of err, and all that lived in it, out of the books.
func (e *Engine) lose(s *session, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if errors.Is(err, errMoved) {
		e.pool.astray = driver.Fail(driver.Unsupported, err)
	}
	for _, of := range []*standing{&e.pool.main, &e.pool.values} {
		if of.session == s {
			of.session = nil
		}
	}
	same := func(other *session) bool { return other == s }
	e.pool.free = slices.DeleteFunc(e.pool.free, same)
	e.pool.all = slices.DeleteFunc(e.pool.all, same)
	for _, sh := range e.shares {
		if sh.book.home == s {
			defer e.remove(sh) // not while they are gone through
		}
	}
}

// blocker returns a share of the process that keeps req out, or nil. e.mu is locked.
func (b *book) blocker(req *driver.Request) *share {
	weight := req.Weight
	for _, sh := range b.shares {
		switch {
		case sh.token == req.Token && req.Upgrade:
			continue
		case req.Mode == driver.Permits && sh.mode == driver.Permits && sh.limit == req.Limit:
			if weight += sh.weight; weight <= req.Limit {
				continue
			}
		case req.Mode == driver.Shared && (sh.mode == driver.Shared || sh.mode == driver.Upgradeable),
			req.Mode == driver.Upgradeable && sh.mode == driver.Shared:
			continue
		}
		return sh
	}
	return nil
}

// others reports how many shares there are beside sh. e.mu is locked.
func (b *book) others(sh *share) int {
	n := 0
	for _, other := range b.shares {
		if other != sh {
			n++
		}
	}
	return n
}

// holder describes the share to others, as of now.
func (sh *share) holder(now driver.Instant) *driver.Holder {
	return &driver.Holder{
		Owner: sh.owner, Mode: sh.mode, Weight: sh.weight, Fence: sh.top, Since: sh.since,
		Until: time.Now().Add(sh.until.Sub(now)).Round(0),
	}
}
