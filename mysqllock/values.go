package mysqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/valuetable"
)

// Values live in a table of their own. Statements about them go through a session that is set
// aside for them when they are first used, so that a write that the disk or another's lock
// holds up, holds up no renewal; with one connection, through the one that holds the locks.

// ReadValue implements driver.Values.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	v, _, err := (*valueTable)(e).Read(ctx, name)
	return v, err
}

// WriteValue implements driver.Values.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	v, err := valuetable.Write(ctx, (*valueTable)(e), w)
	if err == nil {
		e.poller.Changed(w.Name, v.Version)
		e.sweepValues()
	}
	return v, err
}

// AwaitValue implements driver.Values. The server is asked again and again, by one statement
// at a time for all who wait in the process.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	return e.poller.Await(ctx, e.life, e.closing, name, version, func(ctx context.Context) (driver.Value, error) {
		v, _, err := (*valueTable)(e).Read(ctx, name)
		return v, err
	})
}

// valueTable is the engine as a valuetable.Table.
type valueTable Engine

// Read implements valuetable.Table.
func (t *valueTable) Read(ctx context.Context, name string) (driver.Value, bool, error) {
	r, err := onValues(ctx, (*Engine)(t), reads, func(s *session, table string) (r stored, err error) {
		r.there, err = s.readValue(table, name, &r.Value)
		return r, err
	})
	return r.Value, r.there, err
}

// stored is what a statement finds or has stored.
type stored struct {
	driver.Value
	there bool
}

func (s *session) readValue(table, name string, v *driver.Value) (there bool, err error) {
	var now int64
	var version, fence, until sql.NullInt64
	var data []byte
	if err := s.query(readValueText(table, name), &now, &version, &fence, &until, &data); err != nil {
		return false, err
	}
	r := valuetable.Row{Version: version.Int64, Fence: fence.Int64, Until: until.Int64, Data: data, Empty: data == nil}
	*v = r.Value(now)
	return version.Valid, nil
}

// Update implements valuetable.Table.
func (t *valueTable) Update(ctx context.Context, w driver.Write) (driver.Value, bool, error) {
	if w.Delete && w.If == 0 {
		return driver.Value{}, false, nil
	}
	w.Data = append([]byte{}, w.Data...) // the statement may outlive the call
	r, err := onValues(ctx, (*Engine)(t), writes, func(s *session, table string) (r stored, err error) {
		r.there, err = s.updateValue(table, &w, &r.Value)
		return r, err
	})
	return r.Value, r.there, err
}

// updateValue carries out w, and reports whether it did.
func (s *session) updateValue(table string, w *driver.Write, v *driver.Value) (bool, error) {
	text := updateValueText(table, w)
	if w.Delete {
		text = deleteValueText(table, w)
	}
	answer, err := s.exec(text, 0)
	for repeat := 0; repeat < maxRepeats && codeOf(err) == codeDeadlock; repeat++ {
		answer, err = s.exec(text, 0)
	}
	switch {
	case err != nil || answer == 0:
		return false, err
	case w.Delete:
		v.Now = time.UnixMicro(answer)
		return true, nil
	}
	v.Data, v.Version, v.Fence, v.TTL = w.Data, answer/2, w.Fence, w.TTL
	now := v.Version
	if answer%2 == 0 { // these are not what they mostly are
		if err := s.query("SELECT @n,@f", &now, &v.Fence); err != nil {
			s.survives(err)
			return false, &driver.Error{Kind: driver.Unavailable, Outcome: driver.Applied, Err: err}
		}
	}
	v.Now = time.UnixMicro(now)
	return true, nil
}

// Insert implements valuetable.Table.
func (t *valueTable) Insert(ctx context.Context, name string) error {
	_, err := onValues(ctx, (*Engine)(t), reads, func(s *session, table string) (int64, error) {
		return s.exec(insertValueText(table, name), 0)
	})
	return err
}

// What a statement comes to that may have been carried out and whose answer is lost.
const (
	reads  = driver.NotApplied // nothing that anybody could read
	writes = driver.Unknown
)

// aliveFor is for how long after its last use a session is taken to be alive: what goes out
// after that asks first. What fails then was not sent.
const aliveFor = time.Second

// onValues has f done in the session of values, with the quoted name of the table, which is
// made where it is not there. lost is the outcome when the answer to f is.
func onValues[T any](ctx context.Context, e *Engine, lost driver.Outcome, f func(s *session, table string) (T, error)) (T, error) {
	var none T
	table, err := e.cfg.quotedValues()
	if err != nil {
		return none, err
	}
	const queued, begun, withdrawn = 0, 1, 2
	var stage atomic.Int32
	type result struct {
		answer T
		err    error
	}
	done := make(chan result, 1)
	s := e.valueSession()
	s.submit(&job{then: func(error) {}, run: func() error {
		if stage.CompareAndSwap(queued, begun) {
			answer, err := withTable(s, table, lost, f)
			done <- result{answer, err}
		}
		return nil
	}})
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		if stage.CompareAndSwap(queued, withdrawn) {
			lost = driver.NotApplied
		}
		return none, &driver.Error{Kind: driver.Unavailable, Outcome: lost, Err: ctx.Err()}
	}
}

// withTable is f in a turn of the session.
func withTable[T any](s *session, table string, lost driver.Outcome, f func(s *session, table string) (T, error)) (answer T, err error) {
	if s.conn != nil && s.e.clock.Now().Sub(s.used) > aliveFor {
		if err := s.check(); err != nil {
			s.survives(err)
		}
	}
	lease := time.Duration(0)
	if s != s.e.main {
		lease = valuesLease
	}
	for try := 1; ; try++ {
		if err := s.need(lease); err != nil {
			return answer, s.e.classify(err, driver.NotApplied)
		}
		answer, err = f(s, table)
		if codeOf(err) == codeNoTable && try == 1 {
			if err = s.makeValues(table); err == nil {
				continue
			}
		}
		var d *driver.Error
		if err == nil || errors.As(err, &d) {
			return answer, err
		}
		outcome := lost
		if errors.Is(err, sqldriver.ErrBadConn) { // which drivers answer for what they have not sent
			outcome = driver.NotApplied
		}
		ended := !s.survives(err)
		if !ended || outcome != driver.NotApplied || try == valueTries || errors.Is(err, context.DeadlineExceeded) {
			return answer, s.e.classify(err, outcome)
		}
	}
}

// valueTries bounds how often something is done again in a new session because the last one
// had ended.
const valueTries = 3

// valuesLease is after which silence the server ends the session of values, in which nothing
// is held.
const valuesLease = 5 * time.Minute

// valueSession returns the session of values: one that nobody waits in, from the first use
// on, or as long as there is none, the one that holds the locks.
func (e *Engine) valueSession() *session {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.waiters) - 1; e.values == nil && i >= 0; i-- {
		if s := e.waiters[i]; !s.lent {
			s.lent, e.values = true, s
		}
	}
	if e.values == nil {
		return e.main
	}
	return e.values
}

// makeValues makes the table.
func (s *session) makeValues(table string) error {
	for _, text := range []string{createValues(table), createFloor(table)} {
		if _, err := s.exec(text, 0); err != nil {
			return err
		}
	}
	return nil
}

// lookAtValues is how the poller looks.
func (e *Engine) lookAtValues(ctx context.Context, names []string) (map[string]valuetable.Seen, error) {
	return onValues(ctx, e, reads, func(s *session, table string) (map[string]valuetable.Seen, error) {
		ctx, cancel := context.WithTimeout(e.life, e.cfg.Timeout)
		defer cancel()
		rows, err := s.conn.QueryContext(ctx, pollValuesText(table, names))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		seen := make(map[string]valuetable.Seen)
		for rows.Next() {
			var name string
			var now int64
			var r valuetable.Row
			if err := rows.Scan(&name, &now, &r.Version, &r.Until, &r.Empty); err != nil {
				return nil, err
			}
			v := r.Value(now)
			seen[name] = valuetable.Seen{Version: v.Version, TTL: v.TTL}
		}
		return seen, rows.Err()
	})
}

// sweepValues takes away some rows that hold nothing, if that was not done for a while. What
// fails is tried again the next time.
func (e *Engine) sweepValues() {
	due, now := e.sweeps.Load(), e.clock.Now()
	if int64(now) < due || !e.sweeps.CompareAndSwap(due, int64(now.Add(valuetable.SweepEvery))) {
		return
	}
	e.calls.Go(func() {
		ctx, cancel := context.WithTimeout(e.life, e.cfg.Timeout)
		defer cancel()
		n, _ := onValues(ctx, e, reads, func(s *session, table string) (int, error) { return s.sweepValues(table) })
		if n == valuetable.SweepMost {
			e.sweeps.Store(0) // there are more
		}
	})
}

// sweepValues takes away rows. The floor is raised first: no row that is made from then on
// begins below their versions, and none was made that did, as those rows were still there.
func (s *session) sweepValues(table string) (int, error) {
	ctx, cancel := context.WithTimeout(s.e.life, s.e.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.QueryContext(ctx, spentValuesText(table))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var highest int64
	var these []string
	for rows.Next() {
		var name []byte
		var version int64
		if err := rows.Scan(&name, &version); err != nil {
			return 0, err
		}
		highest = max(highest, version)
		these = append(these, fmt.Sprintf("(name=x'%x' AND version=%d)", name, version))
	}
	if err := rows.Err(); err != nil || len(these) == 0 {
		return 0, err
	}
	if _, err := s.exec(raiseFloorText(table, highest), 0); err != nil {
		return 0, err
	}
	_, err = s.exec(sweepValuesText(table, these), 0)
	return len(these), err
}
