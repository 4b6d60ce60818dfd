package etcdlock

import (
	"context"
	"errors"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// An upgrade turns an upgradeable share into an exclusive one. Its key stays where it is, and
// is first marked: readers whose key was created after the mark wait behind it, and those from
// before hold their shares or wait for something else that came after the upgradeable share.
// When the former are gone the key is written as that of an exclusive share. That write must
// not happen when one of the latter was granted meanwhile because what it waited for has gone;
// so the write demands that this is still there. From then on the key conflicts with all that
// come after it.

// upgrade waits until the readers are gone, or tries once. Whatever goes wrong, the upgradeable
// share is kept.
func (r *request) upgrade(ctx context.Context) (driver.Grant, error) {
	held, ok := r.engine.claims.get(r.Token)
	if !ok || held.name != r.Name {
		return driver.Grant{}, driver.Failf(driver.NotHeld, "this process has no share under the request's token")
	}
	r.hold(held.place, held.create)
	var err error
	if held.note.Mode == driver.Exclusive.String() { // the answer to an earlier call was lost
		err = r.touch(ctx)
	} else {
		err = r.raise(ctx, &held)
	}
	var g driver.Grant
	if err == nil {
		g, err = r.grant(ctx)
	}
	switch {
	case errors.Is(err, errKeyGone):
		return driver.Grant{}, r.engine.lost(&held)
	case err != nil && held.note.Mode != driver.Exclusive.String():
		return driver.Grant{}, r.lower(ctx, &held, err)
	}
	return g, err
}

// raise returns when the key is that of an exclusive share.
func (r *request) raise(ctx context.Context, held *claim) error {
	if err := r.hang(ctx); err != nil {
		return err
	}
	mark := held.note
	mark.Granted, mark.Upgrading = held.granted, true
	for {
		state, err := r.survey(ctx)
		switch {
		case err != nil:
			return err
		case state.reader == nil:
			if done, err := r.rewrite(ctx, state.own.mod, state.guards, &r.note); done || err != nil {
				return err
			}
		case !r.Wait:
			return &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: state.reader.holder()}
		case !state.own.Upgrading:
			done, err := r.rewrite(ctx, state.own.mod, nil, &mark)
			if err != nil {
				return err
			}
			if done {
				r.engine.claims.change(held, func(c *claim) { c.mod, c.lease, c.note = r.written, r.lease.id, mark })
			}
		default:
			if err := r.await(ctx, obstacle{entry: state.reader}, r.watchReader); err != nil {
				return err
			}
		}
	}
}

// watchReader reports whether a reader that an upgrade waits for may be gone.
func (r *request) watchReader(ctx context.Context, o obstacle, _ bool) (changed bool, err error) {
	a, err := r.engine.transact(ctx, &txn{cmps: []clientv3.Cmp{stands(o.entry.key, o.entry.create), stands(r.own, r.create)}})
	return err == nil && !a.succeeded, err
}

// lower makes the key that of the upgradeable share again, after an upgrade that failed for
// cause. A write of the upgrade that may still take effect does not after that: each demands
// that the key was not written meanwhile.
func (r *request) lower(ctx context.Context, held *claim, cause error) error {
	bounded, cancel := r.engine.patience(ctx)
	defer cancel()
	n := held.note
	n.Granted = held.granted
	failure := r.engine.failure(cause)
	err := r.hang(bounded)
	if err == nil {
		var a answer
		a, err = r.send(bounded, &txn{cmps: []clientv3.Cmp{stands(r.own, r.create)}, then: []clientv3.Op{r.put(&n, r.lease)}})
		if err == nil {
			r.engine.claims.change(held, func(c *claim) {
				c.mod, c.lease, c.note, c.marked = a.revision, r.lease.id, n, false
			})
			return failure
		}
	}
	r.engine.claims.change(held, func(c *claim) { c.note, c.marked = n, true }) // a renewal will do it
	return unsettled(failure)
}

// survey is what stands in the way of an upgrade.
type survey struct {
	own    entry
	reader *entry         // one who has to leave first, nil when nobody has
	guards []clientv3.Cmp // what has to hold still when the upgrade is written
}

func (r *request) survey(ctx context.Context) (survey, error) {
	a, err := r.engine.transact(ctx, &txn{cmps: []clientv3.Cmp{stands(r.own, r.create)}, then: []clientv3.Op{r.readAll()}})
	if err != nil {
		return survey{}, err
	}
	if !a.succeeded {
		return survey{}, errKeyGone
	}
	return surveyOf(parseAll(a.found(0)), r.keys, a.revision), nil
}

// surveyOf looks at all keys of the name, in their order, as they were at that revision.
func surveyOf(entries []entry, k keys, revision int64) survey {
	var s survey
	reader := &entry{mode: driver.Shared}
	passed := false
	for i := range entries {
		e := &entries[i]
		switch {
		case e.key == k.own:
			s.own, passed = *e, true
		case !passed:
			s.reader = e // it came before, so it is one: anything else would have kept us out
		case conflicts(e, reader):
			// Whoever comes after it waits for it, or was created after the mark.
			s.guards = append(s.guards, stands(e.key, e.create))
			return s
		case e.mode == driver.Shared && (!s.own.Upgrading || e.create < s.own.mod):
			s.reader = e
		}
	}
	if !s.own.Upgrading {
		// Nobody is kept out yet.
		s.guards = append(s.guards, clientv3.Compare(clientv3.CreateRevision(k.all), "<", revision+1).WithPrefix())
	}
	return s
}

// rewrite writes the key anew if it is still as it was last written at mod. It reports false
// when it is not, or when a guard does not hold.
func (r *request) rewrite(ctx context.Context, mod int64, guards []clientv3.Cmp, n *note) (bool, error) {
	for {
		if err := r.hang(ctx); err != nil {
			return false, err
		}
		cmps := append([]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(r.own), "=", mod)}, guards...)
		a, err := r.send(ctx, &txn{cmps: cmps, then: []clientv3.Op{r.put(n, r.lease)}})
		if leaseIsGone(err) {
			r.lease.kill()
			continue
		}
		if err != nil || !a.succeeded {
			return false, err
		}
		r.answer, r.written = a, a.revision
		return true, nil
	}
}
