package drivertest

import (
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// toyStore is a small store, one mutex and no cleverness, with one bug planted in it, or none.
// Its engines keep the whole contract when bug is empty, so what a case finds is the bug.
type toyStore struct {
	bug   bug
	clock driver.Clock

	mu    sync.Mutex
	names map[string]*toyName
	fence int64

	values  map[string]*toyValue
	version int64
	counts  map[string][]byte
}

type toyName struct {
	shares  []toyShare
	queue   []driver.Token // who waits, first in line first
	gone    []toyShare     // broken, for hidesBreak
	changed chan struct{}  // closed and replaced whenever somebody's turn may have come
}

type toyShare struct {
	driver.Claim
	first int64
	until driver.Instant
	since time.Time
}

func newToyStore(b bug) *toyStore {
	return &toyStore{
		bug: b, clock: driver.MonotonicClock(), names: make(map[string]*toyName),
		values: make(map[string]*toyValue), counts: make(map[string][]byte),
	}
}

func (s *toyStore) engine() *toyEngine {
	e := &toyEngine{store: s, closed: make(chan struct{}), sent: s.clock.Now()}
	if s.bug == leavesGoroutine {
		go time.Sleep(time.Hour)
	}
	return e
}

// at returns the books of name without what has run out.
func (s *toyStore) at(name string) *toyName {
	switch {
	case s.bug == foldsNames:
		name = strings.ToLower(name)
	case s.bug == cutsNames && len(name) > 255:
		name = name[:255]
	}
	n := s.names[name]
	if n == nil {
		n = &toyName{changed: make(chan struct{})}
		s.names[name] = n
	}
	if s.bug == ignoresTTL {
		return n
	}
	had := len(n.shares)
	n.shares = slices.DeleteFunc(n.shares, func(sh toyShare) bool {
		return sh.until <= s.clock.Now() && (s.bug != ignoresTTLOfReaders || sh.Mode != driver.Shared)
	})
	if len(n.shares) < had && s.bug == fenceAnewAfterExpiry {
		s.fence = 0
	}
	return n
}

func (n *toyName) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *toyName) find(token driver.Token) *toyShare {
	for i := range n.shares {
		if n.shares[i].Token == token {
			return &n.shares[i]
		}
	}
	return nil
}

func (n *toyName) drop(token driver.Token) {
	n.shares = slices.DeleteFunc(n.shares, func(sh toyShare) bool { return sh.Token == token })
}

// broken reports whether the share of c was broken.
func (n *toyName) broken(c *driver.Claim) bool {
	return slices.ContainsFunc(n.gone, func(sh toyShare) bool { return sh.Token == c.Token })
}

func (n *toyName) leave(token driver.Token) {
	n.queue = slices.DeleteFunc(n.queue, func(t driver.Token) bool { return t == token })
}

// fits reports whether req goes with what is held.
func (s *toyStore) fits(n *toyName, req *driver.Request) bool {
	weight := req.Weight
	for i := range n.shares {
		other := &n.shares[i]
		if other.Token == req.Token {
			continue
		}
		switch pair := [2]driver.Mode{req.Mode, other.Mode}; pair {
		case [2]driver.Mode{driver.Permits, driver.Permits}:
			weight += other.Weight
			if s.bug == countsHeads {
				weight -= other.Weight - 1
			}
		case [2]driver.Mode{driver.Shared, driver.Shared}:
			if s.bug == readersExclude {
				return false
			}
		case [2]driver.Mode{driver.Shared, driver.Upgradeable}, [2]driver.Mode{driver.Upgradeable, driver.Shared}:
		case [2]driver.Mode{driver.Upgradeable, driver.Upgradeable}:
			if s.bug != twoUpgradeables {
				return false
			}
		case [2]driver.Mode{driver.Exclusive, driver.Shared}:
			if s.bug != exclusiveBesideReaders && (s.bug != upgradesBesideReaders || !req.Upgrade) {
				return false
			}
		case [2]driver.Mode{driver.Permits, driver.Shared}:
			if s.bug != permitsBesideReaders {
				return false
			}
		default:
			return false
		}
	}
	return req.Mode != driver.Permits || weight <= req.Limit
}

// myTurn reports whether nobody is in front of req.
func (s *toyStore) myTurn(n *toyName, req *driver.Request) bool {
	if len(n.queue) == 0 || s.bug == readersOvertake && req.Mode == driver.Shared {
		return true
	}
	if s.bug == lastComeFirst {
		return n.queue[len(n.queue)-1] == req.Token
	}
	return n.queue[0] == req.Token
}

// join puts req in line, an upgrade in front of everybody.
func (n *toyName) join(req *driver.Request) {
	switch {
	case slices.Contains(n.queue, req.Token):
	case req.Upgrade:
		n.queue = slices.Insert(n.queue, 0, req.Token)
	default:
		n.queue = append(n.queue, req.Token)
	}
}

// mismatch reports whether req counts against another limit than others do.
func (n *toyName) mismatch(req *driver.Request) bool {
	return slices.ContainsFunc(n.shares, func(sh toyShare) bool {
		return req.Mode == driver.Permits && sh.Mode == driver.Permits && sh.Limit != req.Limit
	})
}

// grant enters the share of req, which may have one already.
func (s *toyStore) grant(n *toyName, req *driver.Request, sent driver.Instant) driver.Grant {
	now := s.clock.Now()
	old := n.find(req.Token)
	first, span := s.number(n, req, old)
	n.leave(req.Token)
	if s.bug != countsRetries || old == nil {
		n.drop(req.Token)
	}
	g := driver.Grant{Fence: first, FenceSpan: span, Sent: sent}
	ttl := req.TTL
	if s.bug == shortensTTL {
		ttl -= ttl / 4
	}
	n.shares = append(n.shares, toyShare{
		Claim: req.Claim(g), first: first, until: now.Add(ttl), since: time.Now(),
	})
	n.wake() // readers come in groups
	return g
}

// number reserves the fence numbers of a grant.
func (s *toyStore) number(n *toyName, req *driver.Request, old *toyShare) (first int64, span int) {
	span = min(req.Span, 32)
	switch {
	case old != nil && s.bug == repeatsFenceOnRetry:
		return old.first, int(old.Fence-old.first) + 1
	case s.bug == fenceAnewAfterRelease && len(n.shares) == 0:
		s.fence = 0
	case s.bug == spanTooLarge:
		span = 32
	case s.bug == fenceInNanoseconds && s.fence < 1<<53:
		s.fence = time.Now().UnixNano() << 2
	}
	first = s.fence + 1
	if s.bug == overlapsSpan {
		s.fence++
	} else {
		s.fence += int64(span)
	}
	return first, span
}

func (s *toyStore) holder(sh *toyShare) driver.Holder {
	return driver.Holder{
		Owner: sh.Owner, Mode: sh.Mode, Weight: sh.Weight, Fence: sh.Fence, Since: sh.since,
		Until: time.Now().Add(sh.until.Sub(s.clock.Now())),
	}
}

func (s *toyStore) info(name string, n *toyName) driver.Info {
	info := driver.Info{Name: name, Waiters: len(n.queue)}
	for i := range n.shares {
		sh := &n.shares[i]
		info.Holders = append(info.Holders, s.holder(sh))
		info.Limit, info.Fence = sh.Limit, max(info.Fence, sh.Fence)
		if s.bug == inspectsOne {
			break
		}
	}
	return info
}

// list returns the names that start with prefix.
func (s *toyStore) list(prefix string) []driver.Info {
	var infos []driver.Info
	for name := range s.names {
		n := s.at(name)
		fits := strings.HasPrefix(name, prefix)
		if s.bug == listsPattern {
			fits, _ = path.Match(prefix+"*", name)
		}
		if fits && (len(n.shares) > 0 || s.bug == listsFree) {
			infos = append(infos, s.info(name, n))
		}
	}
	slices.SortFunc(infos, func(a, b driver.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// lateness is how slow a slow reply is, for the bugs that need one.
func (s *toyStore) lateness(ttl time.Duration) time.Duration { return min(ttl/4, time.Minute) }

// enter says why a call must not be made.
func (e *toyEngine) enter(ctx context.Context) error {
	select {
	case <-e.closed:
		if e.store.bug != worksClosed {
			return driver.Fail(driver.Closed, nil)
		}
	default:
	}
	if ctx.Err() != nil && e.store.bug != ignoresDoneContext {
		return driver.Fail(driver.Unavailable, ctx.Err())
	}
	return nil
}
