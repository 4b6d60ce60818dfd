package pglock

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// What a process holds is in its own books, and others can only see that a key is locked. So
// that people can ask who holds what, every session writes into a table what lives in it for
// longer than a moment: with each heartbeat what has come and gone since the last. A lock that
// is held for less costs nothing, and who wants to know exactly waits for a heartbeat.
//
// The tables are unlogged: they cost no disk, and are empty after a crash of the server, as
// its locks are. What ended sessions have left there is told by the lock that a living one
// holds on its number.

// register tells others of a session, and clears up after those that are over.
func (s *session) register(ctx context.Context, w *wire) error {
	schema := s.e.cfg.Schema
	_, err := w.query(ctx, fmt.Sprintf(`WITH living AS MATERIALIZED (
		SELECT (classid::bigint << 32) | objid::bigint AS id FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
	dead AS (DELETE FROM %[1]s.sessions WHERE id NOT IN (SELECT id FROM living)),
	left_over AS (DELETE FROM %[1]s.shares WHERE session NOT IN (SELECT id FROM living))
	INSERT INTO %[1]s.sessions VALUES ($1, $2, $3, 0)`, schema), s.id, s.pid, s.owner)
	return err
}

// cleanText is what the server can store of s.
func cleanText(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

// rows are the columns of shares that are told.
type rows struct {
	ids, modes, weights, permits, firsts, lasts, since list
	names, owners                                      list
}

func (r *rows) add(sh *share) {
	r.ids.add(sh.id)
	r.names.addText(sh.name)
	r.modes.add(int64(sh.mode))
	r.weights.add(int64(sh.weight))
	r.permits.add(int64(sh.limit))
	r.owners.addText(cleanText(sh.owner))
	r.firsts.add(sh.first)
	r.lasts.add(sh.top)
	r.since.add(sh.since.UnixMicro())
}

// addText adds a quoted element.
func (l *list) addText(s string) {
	l.separate()
	l.WriteString(quoteElement(s))
}

// publish tells others what has come and gone in the session since it last did, and gives
// back what they broke. It returns what is done when that is on the server.
func (e *Engine) publish(s *session) *request {
	r := newRequest()
	r.alone = func(ctx context.Context, w *wire) error {
		told, gone, beat := e.unpublished(s)
		var all rows
		for i := range told {
			all.add(&told[i])
		}
		var out list
		for _, id := range gone {
			out.add(id)
		}
		broken, err := w.query(ctx, e.texts.publish, s.id, out.String(), beat, all.ids.String(), all.names.String(), all.modes.String(),
			all.weights.String(), all.permits.String(), all.owners.String(), all.firsts.String(), all.lasts.String(), all.since.String())
		if err != nil {
			e.unpublish(s, told, gone)
			return err
		}
		var ids []int64
		for _, row := range broken {
			id, _ := number(row[0])
			ids = append(ids, id)
		}
		e.broken(s, ids)
		return nil
	}
	s.submit(r)
	return r
}

// unpublished returns what others have to be told, as it is now, and takes it for told.
func (e *Engine) unpublished(s *session) (told []share, gone []int64, beat int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, sh := range e.shares {
		if sh.book.home == s && !sh.published && !sh.leaving {
			sh.published = true
			told = append(told, *sh)
		}
	}
	gone, s.gone = s.gone, nil
	s.beats++
	return told, gone, s.beats
}

// unpublish takes back unpublished.
func (e *Engine) unpublish(s *session, told []share, gone []int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.gone = append(s.gone, gone...)
	for i := range told {
		if sh := e.shares[told[i].token]; sh != nil && sh.id == told[i].id {
			sh.published = false
		}
	}
}

// broken gives back shares that somebody broke: their next renewals find nothing.
func (e *Engine) broken(s *session, ids []int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, sh := range e.shares {
		if sh.book.home == s && !sh.leaving && slices.Contains(ids, sh.id) {
			e.giveBackLater(sh, func() { e.publish(s) })
		}
	}
}

// publishText deletes, inserts, counts the heartbeat and returns what is broken.
const publishText = `WITH gone AS (DELETE FROM SCHEMA.shares WHERE session = $1 AND share = ANY ($2::bigint[])),
beat AS (UPDATE SCHEMA.sessions SET beat = $3 WHERE id = $1),
told AS (INSERT INTO SCHEMA.shares AS old (session, share, name, mode, weight, permits, owner, first, last, since)
	SELECT $1, n.* FROM unnest($4::bigint[], $5::text[], $6::int[], $7::int[], $8::int[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[]) AS n
	ON CONFLICT (session, share) DO UPDATE SET mode = EXCLUDED.mode, first = EXCLUDED.first, last = EXCLUDED.last)
SELECT share FROM SCHEMA.shares WHERE session = $1 AND broken`
