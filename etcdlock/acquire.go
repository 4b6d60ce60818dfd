package etcdlock

import (
	"context"
	"errors"
	"math"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// request is a call of Acquire under way.
type request struct {
	*driver.Request
	keys
	engine  *Engine
	note    note
	session *session
	place   *place // nil before it has one

	// Since its key was last written:
	lease   *lease
	create  int64   // of the key, 0 before it is there
	written int64   // revision of the last write
	before  []entry // what stood before the key at that write, as far as it matters
	answer  answer
}

// Acquire implements driver.Engine. A lock that is free takes one round trip.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer e.leave()
	r := &request{Request: &req, engine: e, note: newNote(&req), session: e.session(req.TTL)}
	r.all = e.cfg.keysOf(req.Name)
	g, err := r.run(ctx)
	if err != nil {
		return driver.Grant{}, e.refusal(ctx, err)
	}
	return g, nil
}

func (r *request) run(ctx context.Context) (driver.Grant, error) {
	c := &r.engine.claims
	held, holds := c.get(r.Token)
	switch {
	case r.Upgrade:
		return r.upgrade(ctx)
	case holds && held.name == r.Name: // the answer to an earlier call was lost
		r.hold(held.place, held.create)
		if g, err := r.again(ctx); !errors.Is(err, errKeyGone) {
			return g, err
		}
		_ = r.engine.lost(&held)
		r.place = nil
	}
	left, err := c.begin(r.Token)
	if err != nil {
		return driver.Grant{}, err
	}
	var g driver.Grant
	if left != nil { // whatever it did is undone first
		_, err = r.engine.delete(ctx, r.Name, left.key)
	}
	if err == nil {
		g, err = r.acquire(ctx)
	}
	settled := err == nil || r.engine.failure(err).Outcome != driver.Unknown
	c.end(r.Token, settled)
	if err != nil && settled && r.place != nil {
		r.place.leave()
	}
	return g, err
}

// hold says where the request has its key.
func (r *request) hold(p *place, create int64) { r.place, r.own, r.create = p, p.key, create }

// settle takes a place of the current lease. One that the request had before has no key.
func (r *request) settle() {
	if r.place == nil || r.place.home != r.lease {
		if r.place != nil {
			r.place.leave()
		}
		r.hold(r.lease.take(r.Name), 0)
		r.engine.claims.at(r.Token, r.place)
	}
	r.create, r.written = 0, 0
}

// again grants anew what the request holds already.
func (r *request) again(ctx context.Context) (g driver.Grant, err error) {
	if err = r.touch(ctx); err == nil {
		g, err = r.grant(ctx)
	}
	return g, err
}

func (r *request) acquire(ctx context.Context) (driver.Grant, error) {
	for {
		err := r.ask(ctx)
		if err == nil {
			err = r.wait(ctx)
		}
		if err == nil {
			var g driver.Grant
			if g, err = r.grant(ctx); err == nil {
				return g, nil
			}
		}
		if !errors.Is(err, errKeyGone) {
			return driver.Grant{}, r.withdraw(ctx, err)
		}
		// The lease ran out while the process was frozen or cut off, or somebody has taken the
		// key away. The request goes back to the end of the queue.
		if !r.Wait {
			return driver.Grant{}, driver.Fail(driver.Unavailable, errKeyGone)
		}
	}
}

// self is the request as the others see it. Before its key is there it comes after all.
func (r *request) self() *entry {
	return &entry{note: r.note, mode: r.Mode, key: r.own, create: r.created()}
}

func (r *request) created() int64 {
	if r.create == 0 {
		return math.MaxInt64
	}
	return r.create
}

// ask puts the key in place, unless that is not wanted: a request that does not wait leaves no
// key behind where it is refused, not even for a moment, which would keep others out who come
// then. So it writes only where nobody is, or when it has seen that there is room.
func (r *request) ask(ctx context.Context) error {
	join := r.Wait && r.Mode != driver.Permits // with another limit there is nothing to wait for
	for {
		if err := r.hang(ctx); err != nil {
			return err
		}
		r.settle()
		put, read := r.put(&r.note, r.lease), r.readAll()
		t := &txn{then: []clientv3.Op{read, put}}
		if !join {
			t = &txn{cmps: []clientv3.Cmp{r.free()}, then: []clientv3.Op{put}, otherwise: []clientv3.Op{read}}
		}
		a, err := r.send(ctx, t)
		if leaseIsGone(err) {
			r.lease.kill()
			continue
		}
		if err != nil {
			return err
		}
		switch {
		case join:
			r.entered(a, parseAll(a.found(0)))
			return nil
		case a.succeeded:
			r.entered(a, nil)
			return nil
		}
		if err := r.admit(parseAll(a.found(0))); err != nil {
			return err
		}
		join = true
	}
}

// send sends a transaction that writes the request's key.
func (r *request) send(ctx context.Context, t *txn) (answer, error) {
	t.name, t.lease = r.Name, r.lease
	return r.engine.sender.send(ctx, t)
}

// hang finds the lease that the key is to hang on. The request keeps the one it has where that
// fails.
func (r *request) hang(ctx context.Context) error {
	l, err := r.session.get(ctx)
	if err != nil {
		d := r.engine.failure(err)
		return &driver.Error{Kind: d.Kind, Outcome: driver.NotApplied, Err: d.Err} // of the request, nothing was sent
	}
	l.freshen()
	r.lease = l
	return nil
}

// admit says whether a request that has no key yet may enter behind those entries.
func (r *request) admit(entries []entry) error {
	me := r.self()
	if limit := otherLimit(entries, me); limit != 0 {
		return driver.Failf(driver.Invalid, "the limit is %d, and others count these permits against %d: agree on one", r.Limit, limit)
	}
	if o := findObstacle(entries, me); o.entry != nil && !r.Wait {
		return held(entries)
	}
	return nil
}

// held says who holds the lock: the first key is always granted.
func held(entries []entry) error {
	return &driver.Error{Kind: driver.Held, Outcome: driver.NotApplied, Holder: entries[0].holder()}
}

// entered takes note of a write to the key, and of what stood before it just then.
func (r *request) entered(a answer, entries []entry) {
	r.answer, r.written = a, a.revision
	if r.create == 0 {
		r.create = r.written
	}
	r.before = entries
}

// touch writes the key once more, which proves that it stands, and reads what is before it.
// It fails with errKeyGone when the key is not there any more.
func (r *request) touch(ctx context.Context) error {
	for {
		if err := r.hang(ctx); err != nil {
			return err
		}
		r.note.Since = newNote(r.Request).Since
		a, err := r.send(ctx, &txn{
			cmps: []clientv3.Cmp{stands(r.own, r.create)},
			then: []clientv3.Op{r.readBefore(r.Mode, r.create), r.put(&r.note, r.lease)},
		})
		if leaseIsGone(err) {
			r.lease.kill()
			continue
		}
		if err != nil {
			return err
		}
		if !a.succeeded {
			return errKeyGone
		}
		r.entered(a, parseAll(a.found(0)))
		return nil
	}
}

// wait waits until nothing stands in the way any more.
func (r *request) wait(ctx context.Context) error {
	for {
		o := findObstacle(r.before, r.self())
		switch {
		case o.entry == nil:
			return nil
		case !r.Wait:
			return held(r.before)
		case ctx.Err() != nil:
			return r.gaveUp(ctx.Err())
		}
		if err := r.await(ctx, o, r.look); err != nil {
			return err
		}
	}
}

// gaveUp is the answer to a request whose context ended while it waited for a holder.
func (r *request) gaveUp(err error) error {
	d := driver.Fail(driver.Held, err)
	if len(r.before) > 1 { // of one alone it is not known whether it waits, too
		d.Holder = r.before[0].holder()
	}
	return d
}

// grant makes a grant of a key that nothing stands before. Its number is the revision of the
// write that showed it: every grant before it that could not be held at the same time comes
// from a write that came before the end of that share, and this one came after it.
func (r *request) grant(ctx context.Context) (driver.Grant, error) {
	e, a := r.engine, r.answer
	err := r.lease.confirm(ctx, a.sent, a.term, func() (uint64, error) {
		again, err := e.transact(ctx, &txn{cmps: []clientv3.Cmp{stands(r.own, r.create)}})
		switch {
		case err != nil:
			return 0, err
		case !again.succeeded:
			return 0, errKeyGone
		}
		return again.term, nil
	})
	if leaseIsGone(err) {
		err = errKeyGone // it hung on that lease
	}
	if err != nil {
		return driver.Grant{}, e.failure(err)
	}
	e.claims.put(claim{
		name: r.Name, token: r.Token, place: r.place, create: r.create, mod: r.written, lease: r.lease.id,
		note: r.note, granted: r.written, deadline: a.sent.Add(r.TTL),
	})
	return driver.Grant{Fence: fenceOf(r.written), FenceSpan: span(r.Span), Sent: a.sent}, nil
}

// withdraw deletes the key of a request that failed, and returns why it did.
func (r *request) withdraw(ctx context.Context, cause error) error {
	failure := r.engine.failure(cause)
	if r.create == 0 && failure.Outcome != driver.Unknown {
		return failure // it never had a key
	}
	if r.engine.isClosing() {
		return errClosed // its lease is about to be revoked
	}
	bounded, cancel := r.engine.patience(ctx)
	defer cancel()
	if _, err := r.engine.delete(bounded, r.Name, r.own); err != nil {
		r.engine.giveUp(r.lease.id)
		return unsettled(failure)
	}
	return failure
}
