// Package ledger is the book of one name: who holds it, who waits for it, and who is next.
//
// It is the reference for what shares mean, used by the engines that have no server to do the
// bookkeeping for them. It knows nothing of time, processes or storage: the engine says which
// shares have ended, and carries out the wake-ups that the ledger names.
package ledger

import (
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// State says where a share stands.
type State uint8

// The states of a share.
const (
	Waiting   State = iota // in the queue
	Held                   // granted
	Upgrading              // granted as Upgradeable, waiting to become Exclusive
)

// Share is one line of the book: a request that waits, or one that was granted.
type Share struct {
	Token         driver.Token
	Mode          driver.Mode
	State         State
	Weight, Limit int
	Span          int
	Owner         string
	TTL           time.Duration

	// Fence and FenceSpan are the numbers granted; Top is the last of them.
	Fence     int64
	FenceSpan int

	// Since is the wall clock at the grant and Until its end by the engine's clock, both
	// the engine's to fill in and to use.
	Since int64
	Until driver.Instant

	// Home says where the owner lives, in the engine's own terms.
	Home string
}

// Top is the highest fence number of the share.
func (s *Share) Top() int64 { return s.Fence + int64(s.FenceSpan) - 1 }

// Ledger is the book of one name. Its zero value is a free name. Shares are in the order of
// arrival, which is the order of service.
type Ledger struct {
	Shares []Share
}

// Verdict is the answer to a request.
type Verdict uint8

// The verdicts.
const (
	Granted  Verdict = iota // the token's share is held, with new numbers
	Queued                  // the request waits in the book
	Refused                 // taken by others; the request left nothing behind
	Mismatch                // the limit is not the one in use
	Missing                 // an upgrade without an Upgradeable share
)

// Ask enters req into the book. When it is granted, its share is returned and carries its
// numbers. Waiters before it are not affected, so there is nobody else to wake.
func (l *Ledger) Ask(req *driver.Request, home string, fences *Fences, nowMicros int64) (*Share, Verdict) {
	i := l.find(req.Token)
	switch {
	case i < 0 && req.Upgrade:
		return nil, Missing
	case i < 0:
		if l.mismatch(req) {
			return nil, Mismatch
		}
		i = l.enter(req, home)
	case req.Upgrade && l.Shares[i].State == Held && l.Shares[i].Mode == driver.Upgradeable:
		l.Shares[i].State = Upgrading
	case req.Upgrade && l.Shares[i].Mode != driver.Exclusive && l.Shares[i].State != Upgrading:
		return nil, Missing
	}
	l.Shares[i].Span = req.Span
	// A share that is held already is granted again, with numbers of its own: the reply to
	// the first grant may have been lost.
	if s := &l.Shares[i]; s.State == Held || l.admissible(i) {
		l.grant(s, fences, nowMicros)
		return s, Granted
	}
	if req.Wait {
		return nil, Queued
	}
	l.Withdraw(req.Token)
	return nil, Refused
}

// enter appends a share that waits, and returns its index. It writes every field in place,
// into room that may hold what a share before it has left.
func (l *Ledger) enter(req *driver.Request, home string) int {
	i := len(l.Shares)
	if i < cap(l.Shares) {
		l.Shares = l.Shares[:i+1]
	} else {
		l.Shares = append(l.Shares, Share{})
	}
	s := &l.Shares[i]
	s.Token, s.Mode, s.State, s.Weight, s.Limit = req.Token, req.Mode, Waiting, req.Weight, req.Limit
	s.Span, s.Owner, s.TTL, s.Home = req.Span, req.Owner, req.TTL, home
	s.Fence, s.FenceSpan, s.Since, s.Until = 0, 0, 0, 0
	return i
}

// strike removes share i and leaves no trace of it in the room behind the others.
func (l *Ledger) strike(i int) {
	last := len(l.Shares) - 1
	if i < last {
		copy(l.Shares[i:], l.Shares[i+1:])
	}
	l.Shares[last] = Share{}
	l.Shares = l.Shares[:last]
}

// Settle grants to every waiting share whose turn has come and calls granted for each.
func (l *Ledger) Settle(fences *Fences, nowMicros int64, granted func(*Share)) {
	for i := range l.Shares {
		if s := &l.Shares[i]; s.State != Held && l.admissible(i) {
			l.grant(s, fences, nowMicros)
			granted(s)
		}
	}
}

// Find returns the share of that token, or nil.
func (l *Ledger) Find(token driver.Token) *Share {
	if i := l.find(token); i >= 0 {
		return &l.Shares[i]
	}
	return nil
}

// Remove strikes the token's share out, held or waiting. It returns its state, and whether
// there was one.
func (l *Ledger) Remove(token driver.Token) (was State, found bool) {
	i := l.find(token)
	if i < 0 {
		return 0, false
	}
	was = l.Shares[i].State
	l.strike(i)
	return was, true
}

// Withdraw takes back what the token waits for and keeps what it holds: a waiting request is
// struck out, an upgrade becomes the Upgradeable share it was.
func (l *Ledger) Withdraw(token driver.Token) {
	i := l.find(token)
	if i < 0 {
		return
	}
	switch l.Shares[i].State {
	case Waiting:
		l.strike(i)
	case Upgrading:
		l.Shares[i].State = Held
	}
}

// RemoveFunc strikes out every share for which dead says so and reports whether any was.
func (l *Ledger) RemoveFunc(dead func(*Share) bool) bool {
	n := len(l.Shares)
	l.Shares = slices.DeleteFunc(l.Shares, func(s Share) bool { return dead(&s) })
	return len(l.Shares) < n
}

// RemoveHeld strikes out everything that is held and returns how many shares that were.
// Requests that wait stay; an upgrade does not, for it holds a share.
func (l *Ledger) RemoveHeld() int {
	n := len(l.Shares)
	l.RemoveFunc(func(s *Share) bool { return s.State != Waiting })
	return n - len(l.Shares)
}

// Limit is the limit that permits of the book are counted against, 0 when there are none.
func (l *Ledger) Limit() int {
	for i := range l.Shares {
		if l.Shares[i].Mode == driver.Permits {
			return l.Shares[i].Limit
		}
	}
	return 0
}

// Blocker returns a share that is held and keeps others out, or nil when nobody holds any.
func (l *Ledger) Blocker() *Share {
	for i := range l.Shares {
		if l.Shares[i].State != Waiting {
			return &l.Shares[i]
		}
	}
	return nil
}

func (l *Ledger) find(token driver.Token) int {
	for i := range l.Shares {
		if l.Shares[i].Token == token {
			return i
		}
	}
	return -1
}

// mismatch reports whether req counts permits against another limit than the book does.
func (l *Ledger) mismatch(req *driver.Request) bool {
	if req.Mode != driver.Permits {
		return false
	}
	for i := range l.Shares {
		if s := &l.Shares[i]; s.Mode == driver.Permits && s.Limit != req.Limit {
			return true
		}
	}
	return false
}

// admissible reports whether share i may be granted now: it goes with everything that is
// held, and nobody who came before it still waits. An upgrade comes before all waiters,
// which cannot get anything that conflicts with it before it is done.
func (l *Ledger) admissible(i int) bool {
	want := &l.Shares[i]
	weight := want.Weight
	for j := range l.Shares {
		other := &l.Shares[j]
		switch {
		case j == i:
		case other.State == Waiting:
			if j < i && want.State == Waiting {
				return false
			}
		case want.State == Upgrading:
			return false // any other holder is a reader that must leave first
		case other.State == Upgrading:
			return false // readers that came now would keep it waiting
		case want.Mode == driver.Permits && other.Mode == driver.Permits:
			weight += other.Weight
		case !compatible(want.Mode, other.Mode):
			return false
		}
	}
	return want.Mode != driver.Permits || weight <= want.Limit
}

// compatible reports whether two shares of these modes may be held together, weights aside.
func compatible(a, b driver.Mode) bool {
	switch {
	case a == driver.Shared && b == driver.Shared:
		return true
	case a == driver.Shared && b == driver.Upgradeable, a == driver.Upgradeable && b == driver.Shared:
		return true
	}
	return a == driver.Permits && b == driver.Permits
}

func (l *Ledger) grant(s *Share, fences *Fences, nowMicros int64) {
	if s.State == Upgrading {
		s.Mode = driver.Exclusive
	}
	s.State, s.Since = Held, nowMicros
	s.Fence, s.FenceSpan = fences.Next(s.Span, nowMicros)
}
