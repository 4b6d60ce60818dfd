package mysqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// try tries for the shares of jobs, in one statement.
func (s *session) try(jobs []*job) {
	all := make([]*wanted, len(jobs))
	longest := time.Duration(0)
	for i, j := range jobs {
		all[i], longest = j.try, max(longest, j.ttl)
	}
	fresh := s.conn == nil
	err := s.needAndTake(longest, all, 0)
	if err != nil && !fresh && s.conn == nil && !errors.Is(err, context.DeadlineExceeded) && !s.isLeft() {
		// The connection had ended, and what it may have granted with it.
		err = s.needAndTake(longest, all, 0)
	}
	for _, j := range jobs {
		j.then(err)
	}
}

// needAndTake is take on a connection that may have to be opened first.
func (s *session) needAndTake(ttl time.Duration, all []*wanted, seconds int) error {
	if err := s.need(ttl); err != nil {
		return err
	}
	// What a token held was lost if the connection is a new one.
	s.e.mu.Lock()
	for _, w := range all {
		if w.key == "" {
			w.key = keyOf(s.e.full(w.name))
		}
		_, w.held = s.shares[w.again]
		w.granted = false
	}
	s.e.mu.Unlock()
	if err := s.register(all[0].owner); err != nil {
		return err
	}
	if err := s.take(all, seconds); err != nil {
		return err
	}
	return s.tellStrangers(all)
}

// maxRepeats is how often a statement is repeated that failed through no fault of its own.
const maxRepeats = 3

// take tries for shares, and waits for each for up to so many whole seconds. On failure it holds
// none of those that it did not hold before.
func (s *session) take(all []*wanted, seconds int) error {
	for repeat := 0; ; repeat++ {
		sent := s.e.clock.Now()
		for _, w := range all {
			w.sent, w.granted, w.told = sent, false, false
		}
		err := s.draw(all, seconds)
		if err == nil {
			return s.heedPermits(all)
		}
		code := codeOf(err)
		if undone := s.undo(all, err); undone != nil {
			return s.e.classify(undone, driver.Unknown)
		}
		switch {
		case seconds > 0 && code == codeInterrupted:
			return nil // nobody waits any more, or somebody asked the server to end the wait
		case repeat >= maxRepeats, code != codeDeadlock && code != codeInterrupted:
			return s.e.classify(err, driver.NotApplied)
		}
	}
}

// draw has the server try for shares, and makes fences of the tickets that it drew.
func (s *session) draw(all []*wanted, seconds int) error {
	tickets := make([]sql.Null[uint64], len(all))
	if err := s.drawTickets(all, seconds, tickets); err != nil {
		return err
	}
	top := int64(0)
	for i, w := range all {
		if !tickets[i].Valid {
			return errSwapped
		}
		if ticket := tickets[i].V; ticket != 0 {
			w.granted = true
			w.fence, w.got = s.fences.first(ticket), min(w.span, perTicket)
			top = max(top, w.fence+int64(w.got)-1)
		}
	}
	return s.raise(top)
}

func (s *session) drawTickets(all []*wanted, seconds int, tickets []sql.Null[uint64]) error {
	if len(all) == 1 && !all[0].held {
		if able, err := s.drawTicket(all[0], seconds, &tickets[0]); able || err != nil {
			return err
		}
	}
	var readOnly bool
	into := make([]any, 0, len(all)+2)
	if seconds > 0 {
		into = append(into, &all[0].blocked)
	}
	for i := range tickets {
		into = append(into, &tickets[i])
	}
	into = append(into, &readOnly)
	err := s.queryFor(time.Duration(seconds)*time.Second, tryText(s.id.Load(), seconds, all), into...)
	if err == nil && readOnly {
		err = errReadOnly
	}
	return err
}

// drawTicket is drawTickets for one share that the session does not have. It reports false where the
// driver is not able to do it.
func (s *session) drawTicket(w *wanted, seconds int, ticket *sql.Null[uint64]) (able bool, err error) {
	var row [3]sqldriver.Value
	text := "" // of what is prepared already
	args := []sqldriver.NamedValue{{Ordinal: 1, Value: w.key}}
	if seconds == 0 {
		if s.tryOne == nil {
			text = tryOneText(s.id.Load())
		}
		able, err = s.askPrepared(0, &s.tryOne, text, args, row[1:])
	} else {
		if s.waitOne == nil {
			text = waitOneText(s.id.Load(), seconds)
		}
		args = append(args, sqldriver.NamedValue{Ordinal: 2, Value: w.key})
		able, err = s.askPrepared(time.Duration(seconds)*time.Second, &s.waitOne, text, args, row[:])
	}
	if !able || err != nil {
		return able, err
	}
	blocked, _ := number(row[0])
	w.blocked = blocked != 0
	ticket.V, ticket.Valid = number(row[1])
	if readOnly, ok := number(row[2]); !ok || readOnly != 0 {
		err = errReadOnly
	}
	return true, err
}

// undo frees what a statement that failed may have locked, so that nothing is held without a
// number. The error is not nil when the session is over.
func (s *session) undo(all []*wanted, err error) error {
	if err != errReadOnly && !s.survives(err) {
		return err
	}
	var keys []string
	for _, w := range all {
		w.granted = false
		if !w.held {
			keys = append(keys, w.key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	var answer string
	if failed := s.query(releaseText(keys), &answer); failed != nil {
		s.end() // frees them as well
		return fmt.Errorf("%w (%w)", err, failed)
	}
	return nil
}

// heedPermits gives exclusive shares back that were granted beside permits of the same name.
//
// Who takes a permit writes its row, and only then looks whether the name is locked; who locks
// the name does so first, and only then looks for rows. So not both can miss the other.
func (s *session) heedPermits(all []*wanted) error {
	var keys []string
	for _, w := range all {
		if s.fences.permits && w.granted && w.group == "" && !w.held {
			keys = append(keys, w.key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	found, err := s.entries("grp IN " + list(keys))
	if err != nil {
		if undone := s.undo(all, err); undone != nil {
			err = undone
		}
		return s.e.classify(err, driver.NotApplied)
	}
	var back []string
	for _, w := range all {
		for _, row := range found {
			if row.group == w.key && w.granted && !w.held {
				w.granted = false
				back = append(back, w.key)
			}
		}
	}
	if len(back) == 0 {
		return nil
	}
	if err := s.freeKeys(back); err != nil {
		return s.e.classify(err, driver.Unknown)
	}
	return nil
}

// entries returns the rows of shares that are held, among those for which where is true.
func (s *session) entries(where string) ([]entry, error) {
	ctx, cancel := context.WithTimeout(s.e.life, s.e.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.QueryContext(ctx, entriesText(s.e.cfg.quoted(), where))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []entry
	for rows.Next() {
		var r entry
		if err := rows.Scan(&r.key, &r.fence, &r.since, &r.conn, &r.group, &r.weight, &r.limit, &r.span, &r.owner, &r.name); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// userOf returns the connection that holds a lock, 0 for none.
func (s *session) userOf(key string) (uint64, error) {
	var id sql.Null[uint64]
	err := s.query("SELECT IS_USED_LOCK('"+key+"')", &id)
	return id.V, err
}

// forget takes away rows of shares that are over, once there are so many of them, or one of them
// would be taken for that of another share.
func (s *session) forget(least int) {
	for s.conn != nil {
		spent := s.e.takeSpent(least)
		if len(spent) == 0 {
			return
		}
		if _, err := s.exec(forgetText(s.e.cfg.quoted(), spent), 0); err != nil {
			s.survives(err) // the rows do no harm, and are swept away by the next engine that opens
			return
		}
	}
}
