package etcdlock

import (
	"context"
	"slices"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// renewal is one claim of a call of Renew.
type renewal struct {
	driver.Claim
	claim claim
	err   *error // the answer
}

// Renew implements driver.Engine. It renews the lease once for all claims, and then looks
// whether their keys stand, --max-txn-ops of them in a transaction. Claims whose key hangs on
// another lease, because their TTL has changed or that lease was given up, move to the new one.
func (e *Engine) Renew(ctx context.Context, driverClaims []driver.Claim) []error {
	errs := make([]error, len(driverClaims))
	if err := e.enter(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer e.leave()
	sent := e.clock.Now()
	bySession := map[*session][]renewal{}
	for i, c := range driverClaims {
		held, ok := e.claims.get(c.Token)
		if !ok || held.name != c.Name {
			e.claims.awaitEnd(ctx, c.Token)
			errs[i] = errLost
			continue
		}
		s := e.session(c.TTL)
		bySession[s] = append(bySession[s], renewal{c, held, &errs[i]})
	}
	var all sync.WaitGroup
	for s, renewals := range bySession {
		all.Go(func() { s.renew(ctx, sent, renewals) })
	}
	all.Wait()
	return errs
}

var errLost = driver.Failf(driver.Lost, "%w", errKeyGone)

// renew renews claims of one TTL, which counts from sent on.
func (s *session) renew(ctx context.Context, sent driver.Instant, renewals []renewal) {
	e := s.engine
	bounded, cancel := e.bound(ctx)
	defer cancel()
	l, err := s.renewLease(bounded)
	if err != nil {
		for _, r := range renewals {
			*r.err = e.refusal(ctx, err)
		}
		return
	}
	hanging, others := part(renewals, func(r renewal) bool { return r.claim.lease == l.id && !r.claim.marked })
	// A transaction within another counts towards the limit of both.
	for batch := range slices.Chunk(others, e.cfg.MaxTxnOps-2) {
		hanging = append(hanging, s.move(ctx, l, batch)...)
	}
	var all sync.WaitGroup
	for batch := range slices.Chunk(hanging, e.cfg.MaxTxnOps) {
		all.Go(func() { s.verify(ctx, l, sent, batch) })
	}
	all.Wait()
}

// part parts a list in two.
func part(all []renewal, in func(renewal) bool) (yes, no []renewal) {
	for _, r := range all {
		if in(r) {
			yes = append(yes, r)
		} else {
			no = append(no, r)
		}
	}
	return yes, no
}

// renewLease returns the session's lease, renewed so lately that it covers a TTL from now on.
func (s *session) renewLease(ctx context.Context) (*lease, error) {
	for {
		l, err := s.get(ctx)
		if err != nil {
			return nil, err
		}
		if l.age() <= l.spare/2 {
			return l, nil // has just been granted, or renewed for others
		}
		err = l.renew().wait(ctx)
		if err == nil {
			return l, nil
		}
		if !leaseIsGone(err) {
			return nil, err
		}
	}
}

// verify looks whether the keys of claims that hang on the lease stand.
func (s *session) verify(ctx context.Context, l *lease, sent driver.Instant, batch []renewal) {
	e := s.engine
	cmps := make([]clientv3.Cmp, len(batch))
	reads := make([]clientv3.Op, len(batch))
	for i, r := range batch {
		cmps[i] = stands(r.claim.place.key, r.claim.create)
		reads[i] = clientv3.OpGet(r.claim.place.key, clientv3.WithKeysOnly())
	}
	var a answer
	ask := func() (uint64, error) {
		var err error
		if a, err = e.transact(ctx, &txn{cmps: cmps, otherwise: reads}); err != nil {
			return 0, err
		}
		return a.term, nil
	}
	term, err := ask()
	if err == nil {
		err = l.confirm(ctx, sent, term, ask)
	}
	for i, r := range batch {
		switch {
		case err != nil:
			*r.err = e.refusal(ctx, err)
		case !a.succeeded && !stood(a.found(i), r.claim.create):
			*r.err = e.lost(&r.claim)
		default:
			*r.err = e.prolong(ctx, &r.claim, sent.Add(r.TTL))
		}
	}
}

// stood reports whether a read has found the key that was created then.
func stood(kvs []*mvccpb.KeyValue, create int64) bool {
	return len(kvs) == 1 && kvs[0].CreateRevision == create
}

// lost strikes out a claim whose key is gone.
func (e *Engine) lost(c *claim) error {
	if e.claims.removeThis(c) {
		c.place.leave()
	}
	return errLost
}

// prolong moves the end of a claim, unless that has come: what has ended stays ended.
func (e *Engine) prolong(ctx context.Context, c *claim, deadline driver.Instant) error {
	if !e.claims.change(c, func(now *claim) { now.deadline = deadline }) {
		e.claims.awaitEnd(ctx, c.token)
		return errLost
	}
	return nil
}

// move has the keys of claims hang on the lease, and takes marks of upgrades off that are no
// more. It returns those claims whose keys stand. A key that was written meanwhile, by an
// upgrade or by a move whose answer was lost, is left to the next renewal.
func (s *session) move(ctx context.Context, l *lease, batch []renewal) []renewal {
	e := s.engine
	ops := make([]clientv3.Op, len(batch))
	for i := range batch {
		c := &batch[i].claim
		c.note.Granted = c.granted
		c.note.Upgrading = c.note.Upgrading && !c.marked
		ops[i] = clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(c.place.key), "=", c.mod)},
			[]clientv3.Op{clientv3.OpPut(c.place.key, c.note.encode(), clientv3.WithLease(l.id))},
			[]clientv3.Op{clientv3.OpGet(c.place.key)})
	}
	a, err := e.transact(ctx, &txn{then: ops, lease: l})
	var moved []renewal
	for i, r := range batch {
		if err != nil {
			*r.err = e.refusal(ctx, err)
			continue
		}
		one := a.responses[i].GetResponseTxn()
		if one.Succeeded {
			e.claims.change(&r.claim, func(now *claim) {
				now.lease, now.mod, now.note, now.marked = l.id, a.revision, r.claim.note, false
			})
			moved = append(moved, r)
			continue
		}
		kvs := one.Responses[0].GetResponseRange().Kvs
		if !stood(kvs, r.claim.create) {
			*r.err = e.lost(&r.claim)
			continue
		}
		e.claims.change(&r.claim, func(now *claim) { now.mod = kvs[0].ModRevision })
		*r.err = driver.Failf(driver.Unavailable, "the key was written meanwhile")
	}
	return moved
}
