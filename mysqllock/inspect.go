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

// look returns who holds a name, and the connection of a foreign holder, 0 for none.
func (s *session) look(name string) (rows []entry, stranger uint64, err error) {
	key := keyOf(s.e.full(name))
	for range 5 {
		if rows, err = s.entries("k='" + key + "' OR grp='" + key + "'"); err != nil {
			return nil, 0, err
		}
		if stranger, err = s.userOf(key); err != nil {
			return nil, 0, err
		}
		if stranger == 0 || slices.ContainsFunc(rows, func(r entry) bool { return r.key == key }) {
			return rows, 0, nil
		}
		time.Sleep(2 * time.Millisecond) // one of ours has its lock, and its row in a moment
	}
	return rows, stranger, nil
}

// nameHolder adds to a refusal who holds the share, as far as that can be found out.
func (e *Engine) nameHolder(ctx context.Context, refusal error, req *driver.Request) error {
	d, _ := refusal.(*driver.Error)
	if d == nil || d.Holder != nil {
		return refusal
	}
	_ = e.onMain(ctx, func(s *session) error {
		rows, stranger, err := s.look(req.Name)
		var h driver.Holder
		switch {
		case err != nil:
			return err
		case len(rows) > 0:
			h = rows[0].holder()
		case stranger != 0:
			h = foreign(stranger)
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

// Inspect implements driver.Inspector. Who waits is not known.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	info := make(chan driver.Info, 1)
	err := e.onMain(ctx, func(s *session) error {
		rows, stranger, err := s.look(name)
		info <- infoOf(name, rows, stranger)
		return err
	})
	if err != nil {
		return driver.Info{}, err
	}
	return <-info, nil
}

// List implements driver.Inspector. It reads the whole table, and does not show locks of clients
// that are not of this package.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.leave()
	found := make(chan map[string][]entry, 1)
	err := e.onMain(ctx, func(s *session) error {
		rows, err := s.entries(fmt.Sprintf("LEFT(name,%d)=x'%x'", len(prefix), prefix))
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
