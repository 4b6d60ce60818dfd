package mysqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/leaver"
)

// session is a place for one connection to the server, and what it is used for. What is asked of
// a session while a statement is under way is done in the next turn, together where it can be. A
// turn is taken by its goroutine, or by a caller who finds it at rest, see lead.
//
// The connection is opened when it is first needed. When it ends, for whatever reason, all
// shares that were held in it are lost: they are struck from the engine's books before anything
// is done on a new one. So no share ever outlives its connection.
type session struct {
	e      *Engine
	shares map[*share]struct{} // held in the connection; guarded by Engine.mu
	lent   bool                // to a request that waits, or holds what it waited for; guarded by Engine.mu
	waited string              // the name that was granted in it last, if somebody was in the way; guarded by Engine.mu

	mu      sync.Mutex
	queue   []*job
	running bool               // its goroutine
	turning bool               // somebody has the turn
	left    bool               // by the caller who has it: no statement is begun or goes on
	wake    chan struct{}      // buffered: there is something in the queue
	abort   context.CancelFunc // ends the statement under way, and the connection with it

	lives atomic.Int32 // how many shares there are: more only in turns

	id atomic.Uint64 // of the connection, as the server counts them; 0 while there is none

	leavers *leaver.Watch // of callers who have the turn
	limit   limit         // of prepared statements

	// Used in turns only.
	conn   *sql.Conn // nil while there is none
	mark   string    // a lock of the session's own, which shows that it is still the same
	prompt bool      // a statement returns as soon as its context ends
	lease  int       // wait_timeout, in seconds
	used   driver.Instant

	fences     fences
	announced  bool                       // others know that there are permits
	owner      string                     // whom others take for the owner of shares without a row
	registered bool                       // others know of the session
	tryOne     sqldriver.StmtQueryContext // of the connection, nil until they are used
	waitOne    sqldriver.StmtQueryContext
	releaseOne sqldriver.StmtQueryContext
}

// job is something to be done in a session's turn: exactly one of try, free and run.
type job struct {
	try   *wanted
	ttl   time.Duration // of the share that is tried for
	free  string        // the key to release
	run   func() error
	waits bool        // for a lock: its caller ends it
	then  func(error) // told what came of it, on the session's goroutine
}

// submit has j done. then is called in any case.
func (s *session) submit(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, j)
	if !s.running {
		s.running = true
		s.e.calls.Go(s.work)
		return
	}
	s.rouse()
}

// rouse has the session's goroutine look for something to do, if there is one.
func (s *session) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyhow
	}
}

// do has f run in a turn and waits for it, or for the end of ctx.
func (s *session) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	s.submit(&job{run: f, then: func(err error) { done <- err }})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ended(ctx.Err())
	}
}

// work takes turns until the engine has ended and there is nothing left to do. It stays when there is
// nothing: a goroutine that is made anew grows its stack for each statement.
func (s *session) work() {
	for {
		for s.turn() {
		}
		select {
		case <-s.wake:
		case <-s.e.life.Done():
			if s.rest() {
				return
			}
			<-s.wake // there is a job, so whoever has the turn, or has just submitted it, rouses
		}
	}
}

// rest reports whether the goroutine may end: the next job would have another one then.
func (s *session) rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = len(s.queue) > 0
	return !s.running
}

// turn does what is asked. It reports false when there was nothing to do, or a caller has the turn, who
// rouses the goroutine.
func (s *session) turn() bool {
	s.mu.Lock()
	if len(s.queue) == 0 || s.turning {
		s.mu.Unlock()
		return false
	}
	s.turning = true
	jobs, rest := sortJobs(s.queue)
	s.queue = rest
	s.mu.Unlock()
	s.carryOut(jobs)
	s.mu.Lock()
	s.turning = false
	s.mu.Unlock()
	return true
}

// sorted is what is done in a turn.
type sorted struct{ frees, runs, tries []*job }

// sortJobs picks what is done in the next turn: all releases first, for somebody may be waiting for
// them, and of the tries as many as go into one statement, so that releases and renewals never wait for a crowd.
func sortJobs(queue []*job) (now sorted, rest []*job) {
	for _, j := range queue {
		switch {
		case j.free != "":
			now.frees = append(now.frees, j)
		case j.run != nil:
			now.runs = append(now.runs, j)
		case len(now.tries) < maxTries:
			now.tries = append(now.tries, j)
		default:
			rest = append(rest, j)
		}
	}
	return now, rest
}

// carryOut does what there is to do in a turn.
func (s *session) carryOut(jobs sorted) {
	s.free(jobs.frees)
	for _, j := range jobs.runs {
		j.then(j.run())
	}
	if len(jobs.tries) > 0 {
		s.try(jobs.tries)
	}
	s.forget(manySpent)
	s.used = s.e.clock.Now()
}

// exec runs a statement that answers with a number, and may wait at the server for so long.
func (s *session) exec(text string, wait time.Duration) (int64, error) {
	ctx, cancel := s.begin(wait)
	defer cancel()
	result, err := s.conn.ExecContext(ctx, text)
	if err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

// begin returns the context of a statement that may wait at the server for so long.
func (s *session) begin(wait time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(s.e.life, s.e.cfg.Timeout+wait)
	s.mu.Lock()
	before := s.abort
	s.abort = cancel
	if s.left {
		cancel()
	}
	s.mu.Unlock()
	return ctx, func() {
		cancel()
		s.mu.Lock()
		s.abort = before // of what it was a part of
		s.mu.Unlock()
	}
}

// beginPrepared is begin for a prepared statement, whose result overPrepared has to be told.
func (s *session) beginPrepared(wait time.Duration) context.Context {
	ctx, abort := s.limit.begin(s.e.cfg.Timeout + wait)
	s.mu.Lock()
	s.abort = abort
	left := s.left
	s.mu.Unlock()
	if left {
		abort()
	}
	return ctx
}

func (s *session) overPrepared(err error) error {
	s.mu.Lock()
	s.abort = nil
	s.mu.Unlock()
	return s.limit.over(err)
}

// query runs a statement that answers with one row.
func (s *session) query(text string, into ...any) error { return s.queryFor(0, text, into...) }

// queryFor is query for a statement that may wait at the server for so long.
func (s *session) queryFor(wait time.Duration, text string, into ...any) error {
	ctx, cancel := s.begin(wait)
	defer cancel()
	return s.conn.QueryRowContext(ctx, text).Scan(into...)
}

// askPrepared runs a statement that may wait at the server for so long, and puts the one row that it
// answers with into row. It is prepared at its first use in the connection, so that the server does not parse
// it again, and skips what database/sql does for rows. It reports false where the driver cannot do
// that.
func (s *session) askPrepared(wait time.Duration, stmt *sqldriver.StmtQueryContext, text string, args []sqldriver.NamedValue, row []sqldriver.Value) (able bool, err error) {
	ctx := s.beginPrepared(wait)
	defer func() { err = s.overPrepared(err) }()
	err = s.conn.Raw(func(conn any) error {
		if *stmt == nil {
			prepares, ok := conn.(sqldriver.ConnPrepareContext)
			if !ok {
				return nil
			}
			prepared, err := prepares.PrepareContext(ctx, text)
			if err != nil {
				return err
			}
			if *stmt, ok = prepared.(sqldriver.StmtQueryContext); !ok {
				return prepared.Close()
			}
		}
		able = true
		rows, err := (*stmt).QueryContext(ctx, args)
		if err != nil {
			return err
		}
		if len(rows.Columns()) != len(row) {
			err = errGarbled
		} else if err = rows.Next(row); err == io.EOF {
			err = errGarbled
		}
		for i, v := range row { // what is in the driver's buffer is gone with the rows
			if text, ok := v.([]byte); ok {
				row[i] = string(text)
			}
		}
		if closed := rows.Close(); err == nil {
			err = closed
		}
		return err
	})
	return able, err
}

// number reads what drivers make of numbers. Nothing is not a number.
func number(v sqldriver.Value) (n uint64, ok bool) {
	switch v := v.(type) {
	case int64:
		return uint64(v), true
	case uint64:
		return v, true
	case string:
		n, err := strconv.ParseUint(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// need sees to it that there is a connection, with a lease of at least ttl.
func (s *session) need(ttl time.Duration) error {
	seconds := wholeSeconds(ttl)
	if s.conn != nil && !s.busy() && s.e.clock.Now().Sub(s.used) > time.Duration(s.lease)*time.Second/2 {
		// The server may have ended it while nothing was held; so it may be ended now.
		if s.check() != nil {
			s.end()
		}
	}
	s.used = s.e.clock.Now()
	if s.conn == nil {
		return s.open(max(seconds, wholeSeconds(MinTTL)))
	}
	// A shorter lease has to wait until nothing is held that needs the longer one.
	if seconds > s.lease || seconds > 0 && seconds < s.lease && !s.busy() {
		if err := s.setLease(seconds); err != nil {
			s.survives(err) // or the next would be asked on a connection that is gone
			return s.e.classify(err, driver.NotApplied)
		}
	}
	return nil
}

// wholeSeconds rounds up to what wait_timeout can be.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// setLease makes the server end the session when it has heard nothing for so many seconds.
func (s *session) setLease(seconds int) error {
	_, err := s.exec(fmt.Sprintf("SET SESSION wait_timeout=%d", seconds), 0)
	if err == nil {
		s.lease = seconds
	}
	return err
}

// open takes a connection from the DB and prepares it.
func (s *session) open(lease int) error {
	ctx, cancel := s.begin(0)
	defer cancel()
	conn, err := s.e.db.Conn(ctx)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no connection to be had within %v: does the server answer, and does the DB's limit leave one? (%w)", s.e.cfg.Timeout, err)
		}
		return &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: err}
	}
	s.conn, s.prompt = conn, prompt(conn)
	if err := s.prepare(ctx, lease); err != nil {
		s.end()
		d := s.e.classify(err, driver.NotApplied)
		d.Outcome = driver.NotApplied // nothing was asked for yet
		return d
	}
	return nil
}

// prepare makes a fresh connection ours, and looks whether locks can be relied on at its server.
func (s *session) prepare(ctx context.Context, lease int) error {
	for _, text := range []string{
		"SET SESSION autocommit=1, sql_mode='STRICT_ALL_TABLES', time_zone='+00:00', innodb_lock_wait_timeout=" +
			fmt.Sprint(max(1, wholeSeconds(s.e.cfg.Timeout)-1)),
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", // no gaps are locked
		"SET @n=0,@f=0", // integers: servers settle a variable's type before a statement begins
	} {
		if _, err := s.conn.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	if err := s.setLease(lease); err != nil {
		return err
	}
	mark := sessionKey()
	var id uint64
	var version string
	var schema sql.NullString
	var got sql.NullInt64
	row := s.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID(), VERSION(), DATABASE(), GET_LOCK('"+mark+"',0)")
	if err := row.Scan(&id, &version, &schema, &got); err != nil {
		return err
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	v, err := s.variables(ctx, "wsrep_on", "group_replication_group_name", "group_replication_single_primary_mode", "wait_timeout", "read_only")
	if err != nil {
		return err
	}
	if err := checkNode(v, s.e.cfg.SingleNode); err != nil {
		return err
	}
	if on(v["read_only"]) {
		return errReadOnly
	}
	s.mark = mark
	s.id.Store(id)
	if got.Int64 != 1 || v["wait_timeout"] != fmt.Sprint(lease) {
		return driver.Fail(driver.Unsupported, errSwapped)
	}
	if err := s.check(); err != nil {
		return err
	}
	if err := s.e.settlePrefix(schema.String); err != nil {
		return err
	}
	s.fences, s.announced, s.registered = fences{}, false, false
	if err := s.settleSchema(); err != nil {
		return err
	}
	return s.settleFences(ctx)
}

// check proves that the session is the one that was opened, and so holds all it was granted.
func (s *session) check() error {
	if s.conn == nil {
		return errGone
	}
	var same sql.NullBool
	if err := s.query("SELECT IS_USED_LOCK('"+s.mark+"')=CONNECTION_ID()", &same); err != nil {
		return err
	}
	if !same.Bool {
		return errSwapped
	}
	return nil
}

// survives says whether the session outlived a statement that failed with err. If not, it is
// ended, and what it held is lost.
func (s *session) survives(err error) bool {
	if s.conn == nil {
		return false
	}
	if codeOf(err) != 0 && s.check() == nil {
		return true
	}
	s.end()
	return false
}

// end gives up the connection. Its shares are lost before anything else is done. The connection
// is never handed back for others to use: it has locks and settings of ours.
func (s *session) end() {
	s.e.loseAll(s)
	if s.conn == nil {
		return
	}
	s.unregister()
	_ = s.conn.Raw(func(any) error { return sqldriver.ErrBadConn }) // so that the pool closes it
	_ = s.conn.Close()
	s.limit.rest()
	s.conn, s.tryOne, s.waitOne, s.releaseOne = nil, nil, nil, nil
	s.id.Store(0)
}

// busy reports whether shares are held in the session.
func (s *session) busy() bool {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return len(s.shares) > 0
}

// free releases the locks of jobs, many in a statement.
func (s *session) free(jobs []*job) {
	const most = 64
	for len(jobs) > 0 {
		part := jobs[:min(len(jobs), most)]
		jobs = jobs[len(part):]
		keys := make([]string, len(part))
		for i, j := range part {
			keys[i] = j.free
		}
		err := s.freeKeys(keys)
		for _, j := range part {
			j.then(err)
		}
	}
}

// freeKeys releases locks that the session holds. When it fails the session is over, and they
// are free with that.
func (s *session) freeKeys(keys []string) error {
	if s.conn == nil {
		return errGone
	}
	for try := 1; ; try++ {
		answer, err := s.release(keys)
		switch {
		case err == nil && countHeld(answer) == len(keys):
			return nil
		case err == nil && try == 1: // not ours: another session than we think has answered
			err = errSwapped
		case err == nil:
			return nil // the first try was interrupted half-way
		}
		if codeOf(err) != codeInterrupted || !s.survives(err) || try == 3 {
			s.end()
			return fmt.Errorf("%w (%w)", errGone, err)
		}
	}
}

// release runs the statement that frees locks.
func (s *session) release(keys []string) (answer string, err error) {
	if len(keys) == 1 {
		var row [1]sqldriver.Value
		if able, err := s.askPrepared(0, &s.releaseOne, releaseOneText, []sqldriver.NamedValue{{Ordinal: 1, Value: keys[0]}}, row[:]); able || err != nil {
			n, _ := number(row[0])
			return strconv.FormatUint(n, 10), err
		}
	}
	err = s.query(releaseText(keys), &answer)
	return answer, err
}

func countHeld(answer string) int {
	n := 0
	for _, c := range answer {
		if c == '1' {
			n++
		}
	}
	return n
}
