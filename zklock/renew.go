package zklock

import (
	"context"
	"errors"
	"sync"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// batch is how many nodes one request checks at most: far below what fits a packet.
const batch = 200

// prove has the leader check that nodes are there, in one transaction that a majority writes
// to its log: with that the session lived when it was carried out, and so did every share
// that the nodes stand for. also are further operations of the same transaction. missing is
// the index of a node that is gone, or -1 when the proof succeeded.
func (e *Engine) prove(ctx context.Context, session int64, nodes []string, also []any) (missing int, err error) {
	ops := make([]any, 0, len(nodes)+len(also))
	for _, node := range nodes {
		ops = append(ops, &zk.CheckVersionRequest{Path: node, Version: -1})
	}
	if !e.session.is(session) {
		return -1, errGone
	}
	answers, err := do(ctx, &e.session, func(c *zk.Conn) ([]zk.MultiResponse, error) { return c.Multi(append(ops, also...)...) })
	for i, a := range answers {
		if i < len(nodes) && errors.Is(a.Error, zk.ErrNoNode) {
			return i, nil
		}
		if err == nil {
			err = a.Error
		}
	}
	if err == nil && !e.session.is(session) {
		// Carried out in another session, perhaps: then it says nothing about this one, whose
		// nodes may be there for a moment yet.
		err = errGone
	}
	return -1, err
}

// renewal is a claim that may be renewed.
type renewal struct {
	at    int // in the list of claims
	share *share
	nodes []string
}

// Renew implements driver.Engine.
func (e *Engine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	fail := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	if err := e.enter(ctx); err != nil {
		return fail(err)
	}
	defer e.leave()
	session, err := e.session.ready(ctx, e.patience(false))
	if err != nil {
		return fail(e.classify(err))
	}
	todo := e.renewable(claims, session, errs)
	sent := e.clock.Now()
	var calls sync.WaitGroup
	for part := range packed(todo) {
		calls.Go(func() { e.renew(ctx, session, part, errs) })
	}
	calls.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range todo {
		s := r.share
		s.keep = s.end
		if errs[r.at] == nil && s.state != held {
			errs[r.at] = driver.Fail(driver.Lost, nil) // given back meanwhile
		}
		if errs[r.at] == nil {
			s.end = sent.Add(claims[r.at].TTL)
			s.keep = s.end
		}
		if s.state == held {
			s.timer.Reset(max(0, s.end.Sub(e.clock.Now())))
		}
	}
	return errs
}

// renewable returns the claims that may be renewed, and enters why the others may not. What
// is on its way is not ended under its hands.
func (e *Engine) renewable(claims []driver.Claim, session int64, errs []error) []renewal {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	var todo []renewal
	for i, c := range claims {
		s := e.shares[c.Token]
		switch {
		case s == nil || s.state != held || s.dir != e.path(c.Name):
			errs[i] = driver.Fail(driver.Lost, nil)
		case s.session != session:
			errs[i] = driver.Fail(driver.Lost, errGone)
		case now >= s.end:
			e.end(s)
			errs[i] = driver.Fail(driver.Lost, errDeadline)
		case c.TTL > e.caps.MaxTTL:
			errs[i] = driver.Failf(driver.Invalid, "TTL is %v: the longest is %v", c.TTL, e.caps.MaxTTL)
		default:
			s.keep = max(s.end, now.Add(c.TTL))
			todo = append(todo, renewal{i, s, s.nodes})
		}
	}
	return todo
}

// packed parts renewals into groups of about batch nodes.
func packed(all []renewal) func(yield func([]renewal) bool) {
	return func(yield func([]renewal) bool) {
		from, nodes := 0, 0
		for i, r := range all {
			if nodes += len(r.nodes); nodes >= batch || i == len(all)-1 {
				if !yield(all[from : i+1]) {
					return
				}
				from, nodes = i+1, 0
			}
		}
	}
}

// renew proves the shares of one group. Those that turn out to be gone are left out, and the
// others tried again.
func (e *Engine) renew(ctx context.Context, session int64, group []renewal, errs []error) {
	for len(group) > 0 {
		var nodes []string
		var owner []int // of each node, in group
		for i, r := range group {
			nodes = append(nodes, r.nodes...)
			for range r.nodes {
				owner = append(owner, i)
			}
		}
		missing, err := e.prove(ctx, session, nodes, nil)
		if err != nil {
			for _, r := range group {
				errs[r.at] = e.unrenewed(err)
			}
			return
		}
		if missing < 0 {
			return
		}
		gone := group[owner[missing]]
		errs[gone.at] = driver.Fail(driver.Lost, errRemoved)
		e.lose(gone.share)
		group = append(append([]renewal(nil), group[:owner[missing]]...), group[owner[missing]+1:]...)
	}
}

func (e *Engine) unrenewed(err error) error {
	if errors.Is(err, errGone) || errors.Is(err, zk.ErrSessionExpired) {
		return driver.Fail(driver.Lost, errGone)
	}
	return e.classify(err)
}

// lose ends a share one of whose nodes is gone.
func (e *Engine) lose(s *share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.state == held {
		e.end(s)
	}
}

// Release implements driver.Engine.
func (e *Engine) Release(ctx context.Context, claim driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	e.mu.Lock()
	s := e.shares[claim.Token]
	if s == nil || s.dir != e.path(claim.Name) {
		e.mu.Unlock()
		return driver.Fail(driver.NotHeld, nil)
	}
	if s.state == asking {
		s.state = over
		delete(e.shares, s.token)
		close(s.withdrawn) // its own call deletes the node, and is what knows of it
		e.mu.Unlock()
		return driver.Fail(driver.NotHeld, nil)
	}
	d := debt{session: s.session, nodes: s.nodes}
	late := e.clock.Now() >= s.end
	s.state = over
	s.stop()
	delete(e.shares, s.token)
	e.mu.Unlock()

	if !e.session.is(d.session) {
		return driver.Fail(driver.NotHeld, errGone)
	}
	n, err := e.removed(ctx, d.nodes)
	switch {
	case err != nil:
		// It is deleted in the background; until that is known, who asks again is told so.
		e.leaveBehind(d)
		return e.classify(err)
	case late || n < len(d.nodes):
		return driver.Fail(driver.NotHeld, nil)
	}
	return nil
}
