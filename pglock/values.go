package pglock

import (
	"bytes"
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/valuetable"
)

// Values live in a table of their own, which is logged: they survive what the sequence of
// fences survives, from which their versions come. Statements about them go through a session
// of their own, so that a write that the disk or another's lock holds up, holds up no renewal;
// where the budget leaves none, through the one that takes locks.

// ReadValue implements driver.Values.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enterCall(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	v, _, err := (*valueTable)(e).Read(ctx, name)
	return v, err
}

// WriteValue implements driver.Values.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enterCall(ctx); err != nil {
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
// at a time for all who wait in the process: a notification would take a session that does
// nothing but listen, and drivers that can.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enterCall(ctx); err != nil {
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
	e := (*Engine)(t)
	rows, err := e.askValues(ctx, readValueText, reads, []byte(name))
	if err != nil {
		return driver.Value{}, false, err
	}
	if len(rows) != 1 {
		return driver.Value{}, false, driver.Fail(driver.Unavailable, errGarbled)
	}
	now, _ := number(rows[0][0])
	_, there := number(rows[0][1])
	r := readValueRow(rows[0][1:])
	r.Data = []byte(text(rows[0][4]))
	r.Empty = !there || r.Version == 0
	return r.Value(now), there, nil
}

// readValueRow reads the columns version, fence and until.
func readValueRow(row []sqldriver.Value) (r valuetable.Row) {
	r.Version, _ = number(row[0])
	r.Fence, _ = number(row[1])
	r.Until, _ = number(row[2])
	return r
}

// Update implements valuetable.Table.
func (t *valueTable) Update(ctx context.Context, w driver.Write) (driver.Value, bool, error) {
	e := (*Engine)(t)
	var rows [][]sqldriver.Value
	var err error
	if w.Delete {
		rows, err = e.askValues(ctx, deleteValueText, writes, []byte(w.Name), w.If, w.Fence)
	} else {
		data := append([]byte{}, w.Data...) // not nil, which would be NULL; and the statement may outlive the call
		rows, err = e.askValues(ctx, updateValueText, writes, []byte(w.Name), w.If, w.Fence, w.TTL.Microseconds(), data)
	}
	if err != nil || len(rows) == 0 {
		return driver.Value{}, false, err
	}
	now, ok := number(rows[0][0])
	if !ok {
		return driver.Value{}, false, &driver.Error{Kind: driver.Unavailable, Err: errGarbled}
	}
	if w.Delete {
		return driver.Value{Now: time.UnixMicro(now)}, true, nil
	}
	r := readValueRow(rows[0][1:])
	r.Data = bytes.Clone(w.Data)
	return r.Value(now), true, nil
}

// Insert implements valuetable.Table.
func (t *valueTable) Insert(ctx context.Context, name string) error {
	_, err := (*Engine)(t).askValues(ctx, insertValueText, reads, []byte(name))
	return err
}

// What a statement comes to that may have been carried out and whose answer is lost.
const (
	reads  = driver.NotApplied // nothing that anybody could read
	writes = driver.Unknown
)

const (
	// aliveFor is for how long after its last answer the session of values is taken to be
	// alive: a write that goes out after that asks first. What fails then was not sent.
	aliveFor = time.Second

	// valueTries bounds how often a statement is sent that was not carried out.
	valueTries = 3
)

// askValues carries out a statement about values. lost is the outcome when its answer is.
func (e *Engine) askValues(ctx context.Context, statement string, lost driver.Outcome, args ...any) ([][]sqldriver.Value, error) {
	statement = strings.ReplaceAll(statement, "SCHEMA", e.cfg.Schema)
	limit := e.clock.Now().Add(e.cfg.Timeout)
	made := false
	for try := 1; ; try++ {
		rows, failed := e.askValuesOnce(ctx, statement, lost, args)
		switch {
		case failed == nil:
			return rows, nil
		case failed.Outcome == driver.Unknown || ctx.Err() != nil:
		case stateOf(failed) == undefinedTable && !made:
			if err := e.makeValues(ctx); err != nil {
				return nil, err
			}
			made = true
			continue
		case stateOf(failed) == lockNotAvailable && e.clock.Now() < limit, isEnded(failed) && try < valueTries:
			continue
		}
		return nil, failed
	}
}

func (e *Engine) askValuesOnce(ctx context.Context, statement string, lost driver.Outcome, args []any) ([][]sqldriver.Value, *driver.Error) {
	s, err := e.valueSession(ctx)
	if err != nil {
		return nil, asNotApplied(err)
	}
	// A request can be over while its statement is still under way: when its session is given up.
	// Then whoever comes first decides whether the statement is sent.
	const queued, sent, withdrawn = 0, 1, 2
	var stage atomic.Int32
	var rows [][]sqldriver.Value // to be read when the request has succeeded
	r := newRequest()
	r.short = true
	r.alone = func(ctx context.Context, w *wire) error {
		if err := s.verify(ctx, w); err != nil {
			return err
		}
		if _, err := w.prepare(ctx, statement); err != nil {
			return err
		}
		if !stage.CompareAndSwap(queued, sent) {
			return nil // nobody waits for it any more
		}
		var err error
		rows, err = w.query(ctx, statement, args...)
		return err
	}
	s.submit(r)
	done := e.await(ctx, s, r)
	if done && r.err == nil {
		return rows, nil
	}
	if stage.CompareAndSwap(queued, withdrawn) {
		lost = driver.NotApplied
	}
	var d *driver.Error
	switch {
	case !done && ctx.Err() != nil:
		return nil, &driver.Error{Kind: driver.Unavailable, Outcome: lost, Err: ctx.Err()}
	case !done:
		return nil, &driver.Error{Kind: driver.Closed, Outcome: lost}
	case !errors.As(r.err, &d):
		return nil, &driver.Error{Kind: driver.Unavailable, Outcome: lost, Err: r.err}
	case d.Outcome == driver.Unknown:
		return nil, &driver.Error{Kind: d.Kind, Outcome: lost, Err: d.Err}
	}
	return nil, d
}

// asNotApplied is an error of which nothing was sent.
func asNotApplied(err error) *driver.Error {
	var d *driver.Error
	if errors.As(err, &d) {
		return driver.Fail(d.Kind, d.Err)
	}
	return driver.Fail(driver.Unavailable, err)
}

// verify asks whether a session is alive that was silent for a while.
func (s *session) verify(ctx context.Context, w *wire) error {
	s.mu.Lock()
	silent := s.e.clock.Now().Sub(s.spoke)
	s.mu.Unlock()
	if silent < aliveFor {
		return nil
	}
	_, err := w.query(ctx, "SELECT 1")
	return err
}

// valueSession returns the session of values where the budget leaves one, after the one that
// takes locks, and otherwise that.
func (e *Engine) valueSession(ctx context.Context) (*session, error) {
	e.mu.Lock()
	values, count := &e.pool.values, e.pool.count
	if e.pool.main.session == nil && e.pool.main.opened == nil {
		count++ // room is kept for it
	}
	apart := values.session != nil || values.opened != nil || count < e.cfg.Connections ||
		e.cfg.Connections > 1 && len(e.pool.free) > 0
	e.mu.Unlock()
	if apart {
		return e.standingSession(ctx, values, "")
	}
	return e.mainSession(ctx, "")
}

// makeValues makes the table. Once that is done no engine of the schema does it again.
func (e *Engine) makeValues(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return asNotApplied(e.unreachable(err))
	}
	defer conn.Close()
	if err := e.setUp(ctx, conn, "{fence,stored_values,stored_values_until}"); err != nil {
		return asNotApplied(err)
	}
	return nil
}

// lookAtValues is how the poller looks.
func (e *Engine) lookAtValues(ctx context.Context, names []string) (map[string]valuetable.Seen, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	var array list
	for _, name := range names {
		array.addText(fmt.Sprintf(`\x%x`, name))
	}
	rows, err := e.askValues(ctx, pollValuesText, reads, array.String())
	if err != nil {
		return nil, err
	}
	seen := make(map[string]valuetable.Seen)
	for _, row := range rows {
		now, _ := number(row[1])
		r := readValueRow(row[2:])
		v := r.Value(now)
		seen[text(row[0])] = valuetable.Seen{Version: v.Version, TTL: v.TTL}
	}
	return seen, nil
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
		rows, _ := e.askValues(ctx, sweepValuesText, reads)
		if len(rows) == valuetable.SweepMost {
			e.sweeps.Store(0) // there are more
		}
	})
}

// The statements about values. $1 is the name, $2 and $3 are Write.If and Write.Fence. A row
// of version 0 holds nothing yet.
//
// Under READ COMMITTED a statement that finds its row locked goes on with what it is once it
// has the lock, and computes everything anew: so versions are drawn in the order of the writes.
var (
	readValueText = `SELECT n.now, v.version, v.fence, v.until, v.data
FROM (SELECT ` + serverMicros + ` AS now) AS n LEFT JOIN SCHEMA.stored_values AS v ON v.name = $1`

	updateValueText = valueText(`UPDATE SCHEMA.stored_values AS v SET version = greatest(v.version + 1, nextval('SCHEMA.fence')),
	fence = CASE WHEN $2::bigint > 0 OR $2::bigint < 0 AND LIVE THEN greatest(v.fence, $3::bigint) ELSE $3::bigint END,
	until = CASE WHEN $4::bigint = 0 THEN 0 ELSE MICROS + $4::bigint END, data = $5::bytea
WHERE v.name = $1 AND CASE WHEN $2::bigint = 0 THEN NOT LIVE WHEN $2::bigint < 0 THEN NOT LIVE OR FENCED ELSE LIVE AND v.version = $2::bigint AND FENCED END
RETURNING MICROS, v.version, v.fence, v.until`)

	deleteValueText = valueText(`DELETE FROM SCHEMA.stored_values AS v
WHERE v.name = $1 AND LIVE AND ($2::bigint < 0 OR v.version = $2::bigint) AND FENCED RETURNING MICROS`)

	insertValueText = valueText(`INSERT INTO SCHEMA.stored_values (name, version, fence, until, data)
VALUES ($1, 0, 0, MICROS, '') ON CONFLICT DO NOTHING`)

	pollValuesText = valueText(`SELECT v.name, MICROS, v.version, v.fence, v.until
FROM SCHEMA.stored_values AS v WHERE v.name = ANY ($1::bytea[])`)

	sweepValuesText = fmt.Sprintf(`DELETE FROM SCHEMA.stored_values WHERE name = ANY (ARRAY(SELECT name FROM SCHEMA.stored_values
	WHERE until > 0 AND until < (extract(epoch FROM now()) * 1000000)::bigint - %d ORDER BY until LIMIT %d FOR UPDATE SKIP LOCKED)) RETURNING 1`,
		valuetable.SweepAfter.Microseconds(), valuetable.SweepMost)
)

func valueText(text string) string {
	return strings.NewReplacer(
		"LIVE", "(v.version > 0 AND (v.until = 0 OR v.until > "+serverMicros+"))",
		"FENCED", "($3::bigint = 0 OR v.fence <= $3::bigint)",
		"MICROS", serverMicros,
	).Replace(text)
}
