package pglock

import (
	"errors"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// idleAfter is when a session that nothing waits in any more is closed.
const idleAfter = 5 * time.Second

// errSilent is why a session is given up: it did not answer until all that lived in it was over.
var errSilent = errors.New("the server did not answer")

// reapAt sees to it that what is over at that time is given back then. e.mu is locked.
func (e *Engine) reapAt(at driver.Instant) {
	if at >= e.reaps || e.shut {
		return
	}
	e.reaps = at
	d := max(0, at.Sub(e.clock.Now()))
	if e.reaper == nil {
		e.reaper = e.clock.AfterFunc(d, e.reap)
	} else {
		e.reaper.Reset(d)
	}
}

// reap gives back what was not renewed for its TTL.
func (e *Engine) reap() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reaps = never
	if e.shut {
		return
	}
	now := e.clock.Now()
	next := never
	for _, sh := range e.shares {
		switch {
		case sh.leaving:
		case sh.until > now:
			next = min(next, sh.until)
		default:
			e.giveBackLater(sh, func() {})
		}
	}
	if next < never {
		e.reapAt(next)
	}
}

// giveBackLater gives a share back that nobody is to have any more, and then calls then.
// e.mu is locked.
func (e *Engine) giveBackLater(sh *share, then func()) {
	if e.shut {
		return
	}
	sh.leaving = true
	b := sh.book
	b.users++
	e.calls.Go(func() {
		defer e.closeBook(b)
		if e.takeTurn(e.life, b, false) == nil {
			e.giveBack(sh)
			e.leaveTurn(b)
			then()
		}
	})
}

// look has watch look at the sessions at once.
func (e *Engine) look() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// watch looks after the sessions until the engine ends.
func (e *Engine) watch() {
	timer := time.NewTimer(e.cfg.Heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.kick:
		case <-e.closing:
			return
		}
		timer.Reset(e.inspectSessions())
	}
}

// inspectSessions looks at every session and returns when to do so again.
func (e *Engine) inspectSessions() time.Duration {
	e.mu.Lock()
	all := append([]*session(nil), e.pool.all...)
	last := make(map[*session]driver.Instant, len(all)) // until when something lives in it
	for _, sh := range e.shares {
		if s := sh.book.home; s != nil {
			last[s] = max(last[s], sh.until)
		}
	}
	var idle []*session
	now := e.clock.Now()
	kept := e.pool.free[:0]
	for _, s := range e.pool.free {
		if s.idleSince(now) {
			idle = append(idle, s)
		} else {
			kept = append(kept, s)
		}
	}
	e.pool.free = kept
	if s := e.pool.values.session; s != nil && s.restsSince(now) {
		idle = append(idle, s)
	}
	e.rotate(now)
	e.mu.Unlock()
	for _, s := range idle {
		s.finish(errIdle)
	}
	next := e.cfg.Heartbeat
	for _, s := range all {
		until, lives := last[s]
		next = min(next, s.tend(now, until, lives))
	}
	return next
}

// rotate has the request that has waited longest in a session of its own go on by polling, if
// others would like to wait there. e.mu is locked.
func (e *Engine) rotate(now driver.Instant) {
	if e.pool.wanting == 0 {
		return
	}
	var first *session
	for _, s := range e.pool.all {
		if s.blocked != nil && now.Sub(s.since) > waitSlice && (first == nil || s.since < first.since) {
			first = s
		}
	}
	if first != nil {
		first.blocked.yield()
		first.blocked = nil
	}
}

// idleSince reports whether a spare session was not used for long, or for so long that the
// server may end it soon.
func (s *session) idleSince(now driver.Instant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := now.Sub(s.spoke)
	return d > idleAfter || s.lease > 0 && d > s.lease/3
}

// restsSince reports whether the session of values has had nothing to do for long.
func (s *session) restsSince(now driver.Instant) bool {
	s.mu.Lock()
	busy := len(s.flight)+len(s.queue) > 0
	s.mu.Unlock()
	return !busy && s.idleSince(now)
}

// tend looks after one session, in which something lives until that time, or nothing. It
// returns when to do so again.
func (s *session) tend(now, until driver.Instant, lives bool) time.Duration {
	s.mu.Lock()
	flight, ended, lease := len(s.flight) > 0, s.ended != nil, s.lease
	busy, spoke, told := s.busy, s.spoke, s.told
	waits := flight && s.flight[0].alone != nil && !s.flight[0].short && !lives
	s.mu.Unlock()
	every := s.e.cfg.Heartbeat
	if lease > 0 {
		every = min(every, lease/3)
	}
	switch {
	case ended:
		return every
	case waits:
		return every
	case flight:
		// Nobody may be told that a lock is free while its holder believes in it: the session
		// is given up only when everything in it is over.
		if limit := max(busy.Add(s.e.cfg.Timeout), until); now > limit {
			s.finish(errSilent)
		}
		return every
	case lives && now.Sub(told) >= s.e.cfg.Heartbeat-time.Millisecond, lease > 0 && now.Sub(spoke) >= every:
		s.mu.Lock()
		s.told = now
		s.mu.Unlock()
		s.e.publish(s)
	}
	return every
}
