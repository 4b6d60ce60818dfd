package mysqllock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

const (
	// The gate of a semaphore is held for a few statements. Who finds it shut looks again this
	// often, at this distance; then the permit counts as held.
	gateTries = 50
	gatePause = 2 * time.Millisecond
)

// permit tries for a permit, in a turn of the main session.
func (a *attempt) permit() error {
	fresh := a.s.conn == nil
	err := a.permitOnce()
	if err != nil && !fresh && a.s.conn == nil && !errors.Is(err, context.DeadlineExceeded) {
		// The connection had ended, as one does that was silent while nothing was held in it, and
		// what it may have granted with it.
		err = a.permitOnce()
	}
	return err
}

// permitOnce is permit on one connection. While it counts, the gate of the semaphore keeps others
// from counting.
func (a *attempt) permitOnce() error {
	s := a.s
	a.want.granted = false
	if err := s.need(a.req.TTL); err != nil {
		return err
	}
	if err := s.register(a.req.Owner); err != nil {
		return err
	}
	if err := s.announcePermits(); err != nil {
		return s.failed(err)
	}
	full := s.e.full(a.req.Name)
	key, gate := keyOf(full), gateOf(full)
	open, err := s.passGate(gate, key)
	if err == nil && open {
		err = a.count(key)
		if s.conn != nil {
			err = errors.Join(err, s.freeKeys([]string{gate}))
		}
	}
	var d *driver.Error
	if err != nil && !errors.As(err, &d) {
		s.survives(err)
		err = s.e.classify(err, driver.Unknown)
	}
	return err
}

// passGate locks the gate, unless the name is locked as a whole. It reports whether it did.
func (s *session) passGate(gate, key string) (bool, error) {
	for range gateTries {
		var passed sql.NullInt64
		var held sql.Null[uint64]
		err := s.query(fmt.Sprintf("SELECT GET_LOCK('%s',0),IS_USED_LOCK('%s')", gate, key), &passed, &held)
		switch {
		case err != nil:
			return false, err
		case passed.Int64 == 1 && held.Valid:
			return false, s.freeKeys([]string{gate})
		case passed.Int64 == 1:
			return true, nil
		case held.Valid:
			return false, nil
		}
		time.Sleep(gatePause)
	}
	return false, nil
}

// count enters the permit if there is room for it. The gate is held.
func (a *attempt) count(key string) error {
	s, req := a.s, a.req
	rows, err := s.entries("grp='" + key + "'")
	if err != nil {
		return err
	}
	weight := req.Weight
	for _, r := range rows {
		if r.limit != req.Limit {
			return mismatch(req.Limit, r.limit)
		}
		weight += r.weight
	}
	if weight > req.Limit {
		return nil
	}
	w := &a.want
	w.key, w.group = shareKey(req.Token), key
	w.held = false
	if err := s.take([]*wanted{w}, 0); err != nil || !w.granted {
		return err
	}
	if err := s.tellPermit(w); err != nil {
		return err
	}
	// The row is there for all to see. Who locks the name from now on finds it; who has locked
	// it before is found here.
	held, err := s.userOf(key)
	if err == nil && held == 0 {
		return nil
	}
	w.granted = false
	s.e.mu.Lock()
	s.e.spent[w.key] = w.fence + int64(w.got) - 1
	s.e.tidyLater()
	s.e.mu.Unlock()
	return errors.Join(err, s.freeKeys([]string{w.key}))
}

// renumber gets new numbers for the permit that the token holds, or takes it anew if it was lost
// meanwhile.
func (a *attempt) renumber() error {
	s, own := a.s, a.want.again
	s.e.mu.Lock()
	_, held := s.shares[own]
	s.e.mu.Unlock()
	if !held || s.conn == nil {
		a.want.again = nil
		return a.permit()
	}
	if err := s.need(a.req.TTL); err != nil {
		s.survives(err)
		return s.e.classify(err, driver.Unknown)
	}
	a.want.group, a.want.held = keyOf(s.e.full(own.name)), true
	if err := s.take([]*wanted{&a.want}, 0); err != nil {
		return err
	}
	return s.tellPermit(&a.want)
}

// tellPermit writes the row of a permit that was just granted: others count it.
func (s *session) tellPermit(w *wanted) error {
	if err := s.write([]entry{w.row(s)}); err != nil {
		if undone := s.undo([]*wanted{w}, err); undone != nil {
			return s.e.classify(undone, driver.Unknown)
		}
		return s.e.classify(err, driver.NotApplied)
	}
	w.told = true
	return nil
}
