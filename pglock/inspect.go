package pglock

import (
	"context"
	sqldriver "database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// advisoryText are the advisory locks of the database and, as living, the sessions among them
// that are engines': those that hold the lock on their number.
const advisoryText = `WITH locks AS MATERIALIZED (
	SELECT pid, mode, (classid::bigint << 32) | objid::bigint AS n, objsubid = 2 AS pair FROM pg_locks
	WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
living AS (
	SELECT s.id, s.pid, s.owner, s.beat FROM SCHEMA.sessions AS s JOIN locks ON locks.pid = s.pid AND locks.n = s.id AND NOT locks.pair)
`

// lookText describes who holds the key $1, a pair if $2 says so, of the name $3.
const lookText = advisoryText + `SELECT locks.pid, locks.mode, l.id, l.owner, l.beat, sh.share, sh.owner, sh.mode, sh.weight, sh.permits, sh.first, sh.last, sh.since
FROM locks LEFT JOIN living AS l USING (pid) LEFT JOIN SCHEMA.shares AS sh ON sh.session = l.id AND sh.name = $3
WHERE locks.n = $1 AND locks.pair = $2`

// beatsText counts the heartbeats of the sessions that hold something beside their number.
const beatsText = advisoryText + `SELECT l.id, l.beat FROM living AS l
WHERE EXISTS (SELECT FROM locks WHERE locks.pid = l.pid AND (locks.n <> l.id OR locks.pair))`

// listText describes the shares of names that begin with $1.
const listText = advisoryText + `SELECT sh.name, l.id, l.owner, l.beat, sh.share, sh.owner, sh.mode, sh.weight, sh.permits, sh.first, sh.last, sh.since
FROM living AS l JOIN SCHEMA.shares AS sh ON sh.session = l.id WHERE starts_with(sh.name, $1) ORDER BY sh.name`

// breakText marks the shares of a name; $2 are the sessions.
const breakText = `UPDATE SCHEMA.shares SET broken = true WHERE name = $1 AND session = ANY ($2::bigint[]) RETURNING 1`

// endText ends the sessions $1, if they are still those.
const endText = advisoryText + `SELECT pg_terminate_backend(pid) FROM living WHERE id = ANY ($1::bigint[])`

// seen is a share, or a session that holds one, as others see it.
type seen struct {
	pid, session, beat, share, first int64
	holder                           driver.Holder
	limit                            int
}

// read reads the columns from the session's number on.
func (v *seen) read(row []sqldriver.Value) {
	v.session, _ = number(row[0])
	v.beat, _ = number(row[2])
	v.share, _ = number(row[3])
	v.holder.Owner = text(row[1])
	if v.share == 0 {
		return
	}
	v.holder.Owner = text(row[4])
	mode, _ := number(row[5])
	weight, _ := number(row[6])
	limit, _ := number(row[7])
	since, _ := number(row[10])
	v.first, _ = number(row[8])
	v.holder.Fence, _ = number(row[9])
	v.holder.Mode, v.holder.Weight, v.limit = driver.Mode(mode), int(weight), int(limit)
	v.holder.Since = time.UnixMicro(since)
}

// ask carries out a statement in the session that takes locks.
func (e *Engine) ask(ctx context.Context, statement string, args ...any) ([][]sqldriver.Value, error) {
	s, err := e.mainSession(ctx, "")
	if err != nil {
		return nil, err
	}
	var rows [][]sqldriver.Value
	r := newRequest()
	r.alone = func(ctx context.Context, w *wire) (err error) {
		rows, err = w.query(ctx, strings.ReplaceAll(statement, "SCHEMA", e.cfg.Schema), args...)
		return err
	}
	s.submit(r)
	if !e.await(ctx, s, r) {
		if ctx.Err() == nil {
			return nil, errClosed
		}
		return nil, &driver.Error{Kind: driver.Unavailable, Err: ctx.Err()}
	}
	if r.err != nil {
		return nil, r.err // the statement may still be under way, in a session that was given up
	}
	return rows, nil
}

// lookAt returns who holds a name, as far as can be seen now.
func (e *Engine) lookAt(ctx context.Context, k keys, name string) ([]seen, error) {
	rows, err := e.ask(ctx, lookText, k.lock.n, k.lock.pair, name)
	if err != nil {
		return nil, err
	}
	var all []seen
	for _, row := range rows {
		var v seen
		v.pid, _ = number(row[0])
		v.read(row[2:])
		if v.session == 0 {
			v.holder.Owner = fmt.Sprintf("another client (process %d of the server)", v.pid)
		}
		if v.share == 0 && text(row[1]) == "ExclusiveLock" {
			v.holder.Mode = driver.Exclusive
		}
		// A session that was granted an upgrade holds the key in two ways.
		if !slices.ContainsFunc(all, func(o seen) bool { return o.pid == v.pid && o.share == v.share }) {
			all = append(all, v)
		}
	}
	return all, nil
}

// whoHolds names somebody who is in the way, or returns nil.
func (e *Engine) whoHolds(ctx context.Context, k keys, name string) *driver.Holder {
	ctx, cancel := context.WithTimeout(ctx, withdrawal)
	defer cancel()
	all, err := e.lookAt(ctx, k, name)
	if err != nil {
		return nil
	}
	for _, v := range all {
		if !e.isOwn(v.session) {
			return &v.holder
		}
	}
	return nil
}

func (e *Engine) isOwn(id int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.pool.all, func(s *session) bool { return s.id == id })
}

// tell publishes what lives in the sessions of this engine.
func (e *Engine) tell(ctx context.Context) {
	e.mu.Lock()
	homes := make(map[*session]bool)
	for _, s := range e.pool.all {
		if len(s.gone) > 0 {
			homes[s] = true
		}
	}
	for _, sh := range e.shares {
		homes[sh.book.home] = true
	}
	e.mu.Unlock()
	for s := range homes {
		e.await(ctx, s, e.publish(s))
	}
}

// freshen returns when every session that wanted names has told what lived in it when freshen
// was called, or has had the time to: two heartbeats, as one may have been under way. wanted
// returns the sessions and how many heartbeats they have had.
func (e *Engine) freshen(ctx context.Context, wanted func() (map[int64]int64, error)) error {
	e.tell(ctx)
	before, err := wanted()
	if err != nil {
		return err
	}
	limit := time.Now().Add(3*e.cfg.Heartbeat + 2*time.Second)
	for time.Now().Before(limit) {
		now, err := wanted()
		if err != nil {
			return err
		}
		stale := false
		for id, beats := range before {
			if later, there := now[id]; there && later < beats+2 && !e.isOwn(id) {
				stale = true
			}
		}
		if !stale {
			return nil
		}
		select {
		case <-time.After(e.cfg.Heartbeat / 8):
		case <-ctx.Done():
			return driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			return errClosed
		}
	}
	return nil
}

// Inspect implements driver.Inspector. It takes about two heartbeats of those who hold the
// name. Who waits is not counted, and until when shares live is not told.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enterCall(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	info, _, err := e.inspect(ctx, name)
	return info, err
}

func (e *Engine) inspect(ctx context.Context, name string) (driver.Info, []seen, error) {
	k := e.cfg.keysOf(name)
	err := e.freshen(ctx, func() (map[int64]int64, error) {
		all, err := e.lookAt(ctx, k, name)
		beats := make(map[int64]int64)
		for _, v := range all {
			if v.session != 0 {
				beats[v.session] = v.beat
			}
		}
		return beats, err
	})
	if err != nil {
		return driver.Info{}, nil, err
	}
	all, err := e.lookAt(ctx, k, name)
	info := driver.Info{Name: name, Holders: []driver.Holder{}, Waiters: -1}
	for _, v := range all {
		addTo(&info, &v)
	}
	return info, all, err
}

// List implements driver.Inspector. It takes about two heartbeats, and does not know of the
// locks of other clients.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enterCall(ctx); err != nil {
		return nil, err
	}
	defer e.leave()
	err := e.freshen(ctx, func() (map[int64]int64, error) {
		rows, err := e.ask(ctx, beatsText)
		beats := make(map[int64]int64)
		for _, row := range rows {
			id, _ := number(row[0])
			beats[id], _ = number(row[1])
		}
		return beats, err
	})
	if err != nil {
		return nil, err
	}
	rows, err := e.ask(ctx, listText, prefix)
	if err != nil {
		return nil, err
	}
	var infos []driver.Info
	for _, row := range rows {
		name := text(row[0])
		if len(infos) == 0 || infos[len(infos)-1].Name != name {
			if len(infos) == limit {
				break
			}
			infos = append(infos, driver.Info{Name: name, Holders: []driver.Holder{}, Waiters: -1})
		}
		var v seen
		v.read(row[1:])
		addTo(&infos[len(infos)-1], &v)
	}
	return infos, nil
}

// addTo adds what was seen of one holder.
func addTo(info *driver.Info, v *seen) {
	info.Holders = append(info.Holders, v.holder)
	info.Limit = max(info.Limit, v.limit)
	info.Fence = max(info.Fence, v.holder.Fence)
}

// Break implements driver.Inspector. Processes that hold the name are asked to let go of it,
// which they do with their next heartbeat, and nothing else of theirs is touched. A process
// that does not answer is frozen or cut off: its session is ended, and with it all its locks,
// as the server's lease would do later. Other clients' locks are not broken: their sessions
// may be in the middle of something. By and Reason are not recorded.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enterCall(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	info, all, err := e.inspect(ctx, req.Name)
	if err != nil {
		return info, err
	}
	hit := req.Fence == 0
	var sessions list
	for _, v := range all {
		hit = hit || v.first <= req.Fence && req.Fence <= v.holder.Fence
		if v.session == 0 {
			return info, driver.Failf(driver.Unsupported, "the name is held by a client that is not holdfast, which cannot be asked to let go: "+
				"end its session with SELECT pg_terminate_backend(%d), with everything that it is doing", v.pid)
		}
		sessions.add(v.session)
	}
	switch {
	case len(all) == 0:
		return info, driver.Fail(driver.NotHeld, nil)
	case !hit:
		return info, driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
	}
	if _, err := e.ask(ctx, breakText, req.Name, sessions.String()); err != nil {
		return info, err
	}
	return info, e.awaitBreak(ctx, req.Name, all)
}

// awaitBreak returns when the sessions have let go of what was seen in them.
func (e *Engine) awaitBreak(ctx context.Context, name string, before []seen) error {
	k := e.cfg.keysOf(name)
	limit := time.Now().Add(2*e.cfg.Heartbeat + 2*time.Second)
	for {
		e.breakOwn(ctx)
		now, err := e.lookAt(ctx, k, name)
		if err != nil {
			return err
		}
		var left list
		rest := 0
		for _, v := range now {
			if slices.ContainsFunc(before, func(b seen) bool { return b.session == v.session && (b.share == v.share || v.share == 0) }) {
				left.add(v.session)
				rest++
			}
		}
		switch {
		case rest == 0:
			return nil
		case time.Now().After(limit):
			limit = limit.Add(time.Hour)
			if _, err := e.ask(ctx, endText, left.String()); err != nil {
				return err
			}
		}
		select {
		case <-time.After(e.cfg.Heartbeat / 8):
		case <-ctx.Done():
			return &driver.Error{Kind: driver.Unavailable, Err: ctx.Err()}
		case <-e.closing:
			return errClosed
		}
	}
}

// breakOwn has the sessions of this engine look for what was broken.
func (e *Engine) breakOwn(ctx context.Context) {
	e.mu.Lock()
	all := slices.Clone(e.pool.all)
	all = slices.DeleteFunc(all, func(s *session) bool { return s.blocked != nil })
	e.mu.Unlock()
	for _, s := range all {
		e.await(ctx, s, e.publish(s))
	}
}
