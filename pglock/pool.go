package pglock

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/leaver"
)

// pool is the engine's connections: the one that takes locks, while values are in use one for
// them, and spare ones to wait in, each of which then holds what was waited for. It is guarded
// by Engine.mu.
type pool struct {
	main, values standing
	astray       error // a pooler was found to move connections: nothing is locked through it again

	all     []*session // that live
	free    []*session // among them, to wait in; the one used last at the end
	count   int        // of connections, also those that are being opened or closed
	wanting int        // requests that would rather wait in a session than poll
}

// standing is a session that is opened when it is needed, and another one when it has ended.
type standing struct {
	*session
	opened chan struct{} // closed when the opening that is under way is over, nil: none
	failed error         // of that opening
}

// mainSession returns the session that takes locks, and opens one where there is none: the
// locks of the last one are lost, and nothing brings them back.
func (e *Engine) mainSession(ctx context.Context, owner string) (*session, error) {
	return e.standingSession(ctx, &e.pool.main, owner)
}

func (e *Engine) standingSession(ctx context.Context, of *standing, owner string) (*session, error) {
	for {
		e.mu.Lock()
		if s, err := of.session, e.pool.astray; s != nil || err != nil {
			e.mu.Unlock()
			return s, err
		}
		opened := of.opened
		if opened == nil {
			if e.pool.count >= e.cfg.Connections { // the last one is still being closed
				e.dropFree()
			}
			opened = make(chan struct{})
			of.opened = opened
			e.pool.count++
			e.calls.Go(func() { e.openStanding(of, opened, owner) })
		}
		e.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			return nil, errClosed
		}
		e.mu.Lock()
		err := of.failed
		e.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// openStanding opens a session for everybody who waits for it.
func (e *Engine) openStanding(of *standing, opened chan struct{}, owner string) {
	ctx, cancel := context.WithTimeout(e.life, e.cfg.Timeout)
	defer cancel()
	e.makeRoom(ctx)
	s, err := e.open(ctx, owner, false)
	e.mu.Lock()
	defer e.mu.Unlock()
	of.opened, of.failed = nil, nil
	if err != nil {
		of.failed = e.unreachable(err)
	} else if s.alive() {
		of.session = s
	}
	close(opened)
}

// makeRoom waits until a connection that was counted is within the budget: the one before it
// is still being closed. When that takes too long the opening itself will fail.
func (e *Engine) makeRoom(ctx context.Context) {
	for ctx.Err() == nil {
		e.mu.Lock()
		room := e.pool.count <= e.cfg.Connections
		e.mu.Unlock()
		if room {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// spareSession returns a session to wait in, or nil when the budget is used up.
func (e *Engine) spareSession(ctx context.Context, owner string) *session {
	e.mu.Lock()
	for n := len(e.pool.free); n > 0; n = len(e.pool.free) {
		s := e.pool.free[n-1]
		e.pool.free = e.pool.free[:n-1]
		s.waited = key{}
		if s.usable() {
			e.mu.Unlock()
			return s
		}
	}
	if e.pool.count >= e.cfg.Connections || e.shut {
		e.mu.Unlock()
		return nil
	}
	e.pool.count++
	e.mu.Unlock()

	type opening struct {
		s   *session
		err error
	}
	done := make(chan opening, 1)
	e.calls.Go(func() {
		limit, cancel := context.WithTimeout(e.life, e.cfg.Timeout)
		defer cancel()
		s, err := e.open(limit, owner, true)
		done <- opening{s, err}
	})
	select {
	case o := <-done:
		if o.err != nil {
			return nil
		}
		return o.s
	case <-ctx.Done():
		e.calls.Go(func() {
			if o := <-done; o.err == nil {
				e.spare(o.s)
			}
		})
		return nil
	}
}

// familiarSession returns a free session to wait in for what was waited for in it the last time,
// or nil. Who had to wait a moment ago will as a rule have to wait again: to try first in the
// session that takes locks would be one more statement, which is refused. Where nobody is in the
// way the wait is over at once, and the next request is tried again.
//
// The session that takes locks is there: it can end the wait, and fences are past the server's
// clock.
func (e *Engine) familiarSession(a *ask) *session {
	b := a.book
	e.mu.Lock()
	defer e.mu.Unlock()
	if a.req.Mode != driver.Exclusive || a.req.Upgrade || len(b.shares) > 0 || e.shares[a.req.Token] != nil || e.pool.main.session == nil {
		return nil
	}
	i := slices.IndexFunc(e.pool.free, func(s *session) bool { return s.waited == b.keys.lock && s.usable() })
	if i < 0 {
		return nil
	}
	s := e.pool.free[i]
	e.pool.free = slices.Delete(e.pool.free, i, i+1)
	s.waited = key{}
	return s
}

// waitedIn notes that somebody was in the way of what was granted in s.
func (e *Engine) waitedIn(s *session, k keys) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.waited = k.lock
}

// spare takes back a session in which nothing lives and nothing waits any more.
func (e *Engine) spare(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s != e.pool.main.session && s.alive() && !slices.Contains(e.pool.free, s) {
		e.pool.free = append(e.pool.free, s)
	}
}

// usable reports whether the session can be relied on not to be ended by the server for its
// silence before it is heard again.
func (s *session) usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended == nil && (s.lease == 0 || s.e.clock.Now().Sub(s.spoke) < s.lease/2)
}

// dropFree ends the session that was idle longest. e.mu is locked.
func (e *Engine) dropFree() {
	if len(e.pool.free) == 0 {
		return
	}
	s := e.pool.free[0]
	e.pool.free = e.pool.free[1:]
	e.calls.Go(func() { s.finish(errIdle) })
}

// open takes a connection out of the pool, which the caller has counted, and makes a session
// of it.
func (e *Engine) open(ctx context.Context, owner string, waiting bool) (*session, error) {
	s := &session{e: e, id: newID(), owner: cleanText(owner), wake: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(e.life)
	s.leavers = leaver.New(e.closing, withdrawal, func() { s.finish(errLeft) })
	ready := make(chan error, 1)
	e.calls.Go(func() {
		err := e.connect(ctx, s, owner, waiting, ready)
		s.finish(errors.Join(errIdle, err)) // if it has not already
		e.mu.Lock()
		e.pool.count--
		e.mu.Unlock()
		if err != nil {
			ready <- err
		}
	})
	return s, <-ready
}

// connect has the session live in a connection, and returns when it is over; the error is
// that of a session that did not begin. The connection never goes back to the caller's pool:
// its settings are not those that the caller knows.
func (e *Engine) connect(ctx context.Context, s *session, owner string, waiting bool, ready chan<- error) error {
	for try := 1; ; try++ {
		conn, err := e.db.Conn(ctx)
		if err != nil {
			return err
		}
		began := false
		raw := conn.Raw(func(c any) error {
			var w *wire
			if w, err = newWire(c); err == nil {
				err = s.begin(ctx, w, owner, waiting)
			}
			if err == nil {
				began, s.w = true, w
				stop := w.endWith(s.life)
				e.mu.Lock()
				e.pool.all = append(e.pool.all, s)
				e.mu.Unlock()
				ready <- nil
				s.run()
				stop()
			}
			return sqldriver.ErrBadConn
		})
		_ = conn.Close() // says that it is closed already
		switch {
		case began:
			return nil
		case err == nil:
			return raw
		case !isOver(err) || try == 3 || ctx.Err() != nil:
			return err
		}
		// What lay in the pool may have died there, unnoticed.
	}
}

// begin makes a connection ready: nothing that was set for its role or database may end it,
// or a wait, before its time, and the server has to notice soon that we are gone.
func (s *session) begin(ctx context.Context, w *wire, owner string, waiting bool) error {
	lockTimeout := "1000"
	if waiting {
		lockTimeout = "0"
	}
	rows, err := w.query(ctx, `SELECT pg_backend_pid(), set_config(s.name, v.value, false)
FROM unnest($1::text[], $2::text[]) AS v(name, value) JOIN pg_settings AS s ON s.name = v.name`,
		"{application_name,lock_timeout,statement_timeout,transaction_timeout,idle_session_timeout,"+
			"tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,default_transaction_isolation}",
		"{"+quoteElement(applicationName(owner))+","+lockTimeout+",0,0,0,10,3,3,\"read committed\"}")
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errGarbled
	}
	pid, _ := number(rows[0][0])
	s.learn(pid)
	// Not on every system: without it the server notices at the end of a wait.
	if _, err := w.query(ctx, "SELECT set_config('client_connection_check_interval', '2s', false) WHERE EXISTS "+
		"(SELECT FROM pg_settings WHERE name = 'client_connection_check_interval')"); err != nil && isOver(err) {
		return err
	}
	rows, err = w.query(ctx, "SELECT pg_try_advisory_lock($1)", s.id)
	if err != nil {
		return err
	}
	if n, _ := number(rows[0][0]); n != 1 {
		return fmt.Errorf("the lock of session %d is taken", s.id)
	}
	if err := s.register(ctx, w); err != nil {
		return err
	}
	if !waiting {
		if err := s.raiseFence(ctx, w); err != nil {
			return err
		}
	}
	s.spoke = s.e.clock.Now()
	_, err = w.prepare(ctx, s.e.texts.combined)
	return err
}

// raiseFence sets the sequence of fences to the server's clock if it is behind: after a
// failover, or the restoration of a backup, it may have forgotten what it gave out. Every
// process does that before its first lock there. They take turns, so that nobody sets it back
// to a clock that was read earlier.
func (s *session) raiseFence(ctx context.Context, w *wire) error {
	c := s.e.cfg
	_, err := w.query(ctx, fmt.Sprintf(`SELECT CASE
	WHEN pg_advisory_xact_lock($1) IS NULL THEN NULL
	WHEN coalesce(pg_sequence_last_value('%[1]s.fence'::regclass), 0) < c.micros - 1000000 THEN setval('%[1]s.fence', c.micros) END
FROM (SELECT least(%[2]s, %[3]d) AS micros) AS c`, c.Schema, serverMicros, maxClock), c.hash("raise", ""))
	return err
}

// applicationName is how people see the session in pg_stat_activity: 63 bytes of ASCII.
func applicationName(owner string) string {
	name := []byte("holdfast " + owner)
	for i, b := range name {
		if b < ' ' || b > '~' {
			name[i] = '?'
		}
	}
	return string(name[:min(len(name), 63)])
}

// longest returns the longest TTL of what lives in the session.
func (e *Engine) longest(s *session) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ttl time.Duration
	for _, sh := range e.shares {
		if sh.book.home == s {
			ttl = max(ttl, sh.ttl)
		}
	}
	return ttl
}
