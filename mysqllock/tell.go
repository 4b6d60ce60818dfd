package mysqllock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// What a process holds is in its own books, and others can see only which connection has a lock. So
// that they can tell who that is, every session has a row, and what is held for longer than a
// moment gets one when the process next looks around: a lock that is held for less writes nothing.
// Who wants to know exactly asks, by a mark in the rows of sessions, which is taken away when all
// rows are written.

// register writes the row of the session, for whoever first takes something in it. The session has a
// connection.
func (s *session) register(owner string) error {
	if s.registered {
		return nil
	}
	err := s.write([]entry{{key: s.mark, conn: s.id.Load(), owner: owner}})
	if err != nil {
		return s.failed(err)
	}
	s.registered, s.owner = true, owner
	s.e.mu.Lock()
	s.e.watch()
	s.e.mu.Unlock()
	return nil
}

// failed classifies the error of a statement that took nothing.
func (s *session) failed(err error) error {
	if s.survives(err) {
		return s.e.classify(err, driver.NotApplied)
	}
	return s.e.classify(err, driver.Unknown)
}

// unregister has the row of the session taken away.
func (s *session) unregister() {
	if !s.registered {
		return
	}
	s.registered = false
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.spent[s.mark] = 0
	s.e.tidyLater()
}

// write writes rows, and makes the table if it is gone.
func (s *session) write(rows []entry) error {
	text := tellText(s.e.cfg.quoted(), rows)
	_, err := s.exec(text, 0)
	for repeat := 0; repeat < maxRepeats; repeat++ {
		switch codeOf(err) {
		case codeNoTable: // it is gone since the connection was opened
			if err := s.settleSchema(); err != nil {
				return err
			}
		case codeDeadlock:
		default:
			return err
		}
		_, err = s.exec(text, 0)
	}
	return err
}

// tellStrangers writes the rows of what was granted where others would be wrong without: they take
// the owner of the session for that of its shares, and a row that is there for what is true.
func (s *session) tellStrangers(all []*wanted) error {
	var rows []entry
	var these []*wanted
	s.e.mu.Lock()
	for _, w := range all {
		if w.granted && (w.owner != s.owner || w.held && w.again.told) {
			rows, these = append(rows, w.row(s)), append(these, w)
		}
	}
	s.e.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	if err := s.write(rows); err != nil {
		if undone := s.undo(all, err); undone != nil {
			return s.e.classify(undone, driver.Unknown)
		}
		return s.e.classify(err, driver.NotApplied)
	}
	for _, w := range these {
		w.told = true
	}
	return nil
}

// row is what others are told of a share that was just granted.
func (w *wanted) row(s *session) entry {
	return entry{
		key: w.key, fence: w.fence + int64(w.got) - 1, conn: s.id.Load(), group: w.group,
		weight: w.weight, limit: w.limit, span: w.got, owner: w.owner, name: w.name,
	}
}

// tell writes the rows of all shares in the session that have none, in a turn of it.
func (s *session) tell() error {
	if s.conn == nil {
		return nil // and so it has no shares
	}
	s.e.mu.Lock()
	var rows []entry
	var these []*share
	for sh := range s.shares {
		if !sh.told {
			rows, these = append(rows, sh.row()), append(these, sh)
		}
	}
	s.e.mu.Unlock()
	const most = 256 // in a statement
	for len(rows) > 0 {
		n := min(len(rows), most)
		if err := s.write(rows[:n]); err != nil {
			s.survives(err)
			return s.e.classify(err, driver.Unknown)
		}
		s.e.mu.Lock()
		for _, sh := range these[:n] {
			sh.told = true
		}
		s.e.mu.Unlock()
		rows, these = rows[n:], these[n:]
	}
	return nil
}

// row is what others are told of a share. e.mu is locked.
func (sh *share) row() entry {
	r := entry{
		key: sh.key, fence: sh.top, age: time.Since(sh.since).Microseconds(), conn: sh.session.id.Load(),
		span: int(sh.top - sh.fence + 1), owner: sh.req.Owner, name: sh.name,
	}
	if sh.req.Mode == driver.Permits {
		r.group, r.weight, r.limit = keyOf(sh.session.e.full(sh.name)), sh.req.Weight, sh.req.Limit
	}
	return r
}

// tellOthers has all rows written that are not, and waits for that.
func (e *Engine) tellOthers(ctx context.Context) error {
	e.mu.Lock()
	var untold []*session
	for _, s := range e.sessions() {
		for sh := range s.shares {
			if !sh.told {
				untold = append(untold, s)
				break
			}
		}
	}
	e.mu.Unlock()
	done := make(chan error, len(untold))
	for _, s := range untold {
		s.submit(&job{run: s.tell, then: func(err error) { done <- err }})
	}
	for range untold {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ended(ctx.Err())
		}
	}
	return nil
}

const (
	// watchEvery is how often a process that has taken anything looks around: it tells others of
	// its shares, and finds out whether somebody asked, or broke one of them.
	watchEvery = 500 * time.Millisecond

	// answerFor is how long somebody who asks waits for processes that do not answer.
	answerFor = 5 * time.Second

	// askAgain is how often it looks whether they have.
	askAgain = 10 * time.Millisecond
)

// watch sees to it that the engine looks around. e.mu is locked.
func (e *Engine) watch() {
	if !e.watching {
		e.watching = true
		e.later(watchEvery, e.lookAround)
	}
}

// lookAround comes back for as long as there is a connection that others know of.
func (e *Engine) lookAround() {
	_ = e.tellOthers(e.active) // which shows elsewhere as well, or goes away
	e.mu.Lock()
	conns := e.connections()
	e.watching = len(conns) > 0 // who opens one from now on watches
	e.mu.Unlock()
	if len(conns) == 0 {
		return
	}
	_ = e.onMain(e.active, func(s *session) error {
		rows, err := s.entries("broken=1 AND conn IN (" + strings.Join(conns, ",") + ")")
		for _, r := range rows {
			if r.name != "" {
				e.letGo(r)
				continue
			}
			if err := e.answer(s, r); err != nil {
				return err
			}
		}
		return err
	})
	e.later(watchEvery, e.lookAround)
}

// connections returns those of the engine.
func (e *Engine) connections() []string {
	var conns []string
	for _, s := range e.sessions() {
		if id := s.id.Load(); id != 0 {
			conns = append(conns, fmt.Sprint(id))
		}
	}
	return conns
}

// answer takes the mark of somebody who asked out of the row r of a session, after all that is held
// in it has a row. A session in which nothing is held may be waiting in a statement: the main one
// answers for it.
func (e *Engine) answer(main *session, r entry) error {
	for _, s := range e.sessions() {
		if s.id.Load() != r.conn {
			continue
		}
		text := fmt.Sprintf("UPDATE %s SET broken=0 WHERE k='%s'", e.cfg.quoted(), r.key)
		if s == main || !s.busy() {
			if err := main.tell(); err != nil {
				return err
			}
			_, err := main.exec(text, 0)
			return err
		}
		s.submit(&job{then: func(error) {}, run: func() error {
			if err := s.tell(); err != nil || s.conn == nil {
				return err
			}
			_, err := s.exec(text, 0)
			if err != nil {
				s.survives(err)
			}
			return err
		}})
	}
	return nil
}

// sessionRows is true for the rows of sessions.
var sessionRows = "k LIKE '" + ours + "c%' AND name=''"

// ask has all processes write the rows of what they hold, and waits until they have. It does not wait
// for those that do not answer: they are frozen, or cut off.
func (e *Engine) ask(ctx context.Context) error {
	if err := e.tellOthers(ctx); err != nil {
		return err
	}
	theirs := sessionRows + " AND conn NOT IN (" + strings.Join(append(e.connections(), "0"), ",") + ") AND " + live
	err := e.onMain(ctx, func(s *session) error {
		_, err := s.exec("UPDATE "+e.cfg.quoted()+" SET broken=1 WHERE "+theirs, 0)
		return err
	})
	if err != nil {
		return err
	}
	over := time.NewTimer(answerFor)
	defer over.Stop()
	for {
		left := make(chan int, 1)
		err := e.onMain(ctx, func(s *session) error {
			var n int
			err := s.query("SELECT COUNT(*) FROM "+e.cfg.quoted()+" WHERE broken=1 AND "+theirs, &n)
			left <- n
			return err
		})
		if err != nil || <-left == 0 {
			return err
		}
		select {
		case <-time.After(askAgain):
		case <-over.C:
			return nil
		case <-ctx.Done():
			return ended(ctx.Err())
		case <-e.closing:
			return errClosed
		}
	}
}
