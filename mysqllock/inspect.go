package mysqllock

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// holder describes a row to others.
func (r *entry) holder() driver.Holder {
	h := driver.Holder{Owner: r.owner, Mode: driver.Exclusive, Fence: r.fence, Since: time.UnixMicro(r.since)}
	if r.group != "" {
		h.Mode, h.Weight = driver.Permits, r.weight
	}
	return h
}

// foreign describes a client that is not of this package.
func foreign(conn uint64) driver.Holder {
	return driver.Holder{Owner: fmt.Sprintf("another client, connection %d", conn), Mode: driver.Exclusive}
}

// sight is what is to be seen of a name.
type sight struct {
	rows     []entry
	stranger uint64 // the connection of a holder without a row, 0 for none
	session  *entry // its row, if it is a process's of this package
}

func (s *session) look(name string) (v sight, err error) {
	key := keyOf(s.e.full(name))
	if v.rows, err = s.entries("k='" + key + "' OR grp='" + key + "'"); err != nil {
		return sight{}, err
	}
	if v.stranger, err = s.userOf(key); err != nil {
		return sight{}, err
	}
	if v.stranger == 0 || slices.ContainsFunc(v.rows, func(r entry) bool { return r.key == key }) {
		v.stranger = 0
		return v, nil
	}
	sessions, err := s.entries(fmt.Sprintf("conn=%d AND %s", v.stranger, sessionRows))
	if len(sessions) > 0 {
		v.session = &sessions[0]
	}
	return v, err
}

// look returns who holds a name, and the connection of a foreign holder, 0 for none. A holder of ours
// who has no row yet is waited for.
func (e *Engine) look(ctx context.Context, name string) (rows []entry, stranger uint64, err error) {
	if err := e.tellOthers(ctx); err != nil {
		return nil, 0, err
	}
	over := time.NewTimer(answerFor)
	defer over.Stop()
	for {
		seen := make(chan sight, 1)
		err := e.onMain(ctx, func(s *session) error {
			v, err := s.look(name)
			seen <- v
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		v := <-seen
		if v.session == nil {
			return v.rows, v.stranger, nil
		}
		select {
		case <-time.After(askAgain):
		case <-over.C:
			return v.rows, v.stranger, nil
		case <-ctx.Done():
			return nil, 0, ended(ctx.Err())
		case <-e.closing:
			return nil, 0, errClosed
		}
	}
}

// nameHolder adds to a refusal who holds the share, as far as that can be found out at once.
func (e *Engine) nameHolder(ctx context.Context, refusal error, req *driver.Request) error {
	d, _ := refusal.(*driver.Error)
	if d == nil || d.Holder != nil {
		return refusal
	}
	_ = e.onMain(ctx, func(s *session) error {
		v, err := s.look(req.Name)
		var h driver.Holder
		switch {
		case err != nil:
			return err
		case len(v.rows) > 0:
			h = v.rows[0].holder()
		case v.session != nil:
			h = driver.Holder{Owner: v.session.owner, Mode: driver.Exclusive}
		case v.stranger != 0:
			h = foreign(v.stranger)
		default:
			return nil // it was let go by now
		}
		d = &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: &h}
		return nil
	})
	return d
}

// infoOf describes a name by its rows.
func infoOf(name string, rows []entry, stranger uint64) driver.Info {
	info := driver.Info{Name: name, Holders: []driver.Holder{}, Waiters: -1}
	for i := range rows {
		info.Holders = append(info.Holders, rows[i].holder())
		info.Limit = max(info.Limit, rows[i].limit)
		info.Fence = max(info.Fence, rows[i].fence)
	}
	if stranger != 0 {
		info.Holders = append(info.Holders, foreign(stranger))
	}
	return info
}

// Inspect implements driver.Inspector. Who waits is not known. A lock that was taken within the last
// half second may take that long to be told of.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	rows, stranger, err := e.look(ctx, name)
	if err != nil {
		return driver.Info{}, err
	}
	return infoOf(name, rows, stranger), nil
}

// List implements driver.Inspector. It asks all processes to tell what they hold, which takes half a
// second, or five where one is frozen. It reads the whole table, and does not show locks of clients
// that are not of this package.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.leave()
	if err := e.ask(ctx); err != nil {
		return nil, err
	}
	found := make(chan map[string][]entry, 1)
	err := e.onMain(ctx, func(s *session) error {
		rows, err := s.entries(fmt.Sprintf("name<>'' AND LEFT(name,%d)=x'%x'", len(prefix), prefix))
		byName := make(map[string][]entry)
		for _, r := range rows {
			if key := keyOf(e.full(r.name)); key == r.key || key == r.group { // of this prefix
				byName[r.name] = append(byName[r.name], r)
			}
		}
		found <- byName
		return err
	})
	if err != nil {
		return nil, err
	}
	var infos []driver.Info
	for name, rows := range <-found {
		infos = append(infos, infoOf(name, rows, 0))
	}
	slices.SortFunc(infos, func(a, b driver.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos[:min(limit, len(infos))], nil
}
