package redislock

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// combinerFor returns what sends requests about key.
func (e *Engine) combinerFor(ctx context.Context, key string) (*combiner, error) {
	if e.cluster == nil {
		return e.only, nil
	}
	node, err := e.cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil, err
	}
	if c, ok := e.nodes.Load(node); ok {
		return c.(*combiner), nil
	}
	c, _ := e.nodes.LoadOrStore(node, e.newCombiner(node))
	return c.(*combiner), nil
}

// do makes the request.
func (e *Engine) do(ctx context.Context, r *request) {
	c, err := e.combinerFor(ctx, r.key)
	if err != nil {
		r.state.Store(sent)
		r.via = e.nowhere
		r.finish("", "", &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: err})
		return
	}
	if r.then != nil || !c.sendAlone(r) {
		c.submit(r)
	}
}

// maxMoves is how often a request follows the slot that it is for.
const maxMoves = 5

// redirect makes r again when err says that the slot lies elsewhere by now or is being moved.
// Nothing was carried out then, so this is no second copy. It reports whether it did.
func (e *Engine) redirect(r *request, err error) bool {
	if e.cluster == nil || r.moved >= maxMoves {
		return false
	}
	_, moved := redis.IsMovedError(err)
	_, asked := redis.IsAskError(err)
	// While keys of the slot are under way no node has all that a lock consists of, so ASK
	// is not followed: the request waits until they have arrived.
	if !moved && !asked && !redis.IsTryAgainError(err) {
		return false
	}
	r.moved++
	r.wake()
	pause := time.Duration(r.moved-1) * 50 * time.Millisecond
	e.calls.Go(func() {
		select {
		case <-time.After(pause):
		case <-e.closing:
		}
		e.cluster.ReloadState(context.Background())
		if r.state.CompareAndSwap(sent, pending) {
			e.do(context.Background(), r)
		}
	})
	return true
}

// exchangeSlots sends one call for each slot, all in one pipeline.
func (b *batch) exchangeSlots(c *combiner) {
	groups := make(map[int][]*request)
	for _, r := range b.requests {
		s := slotOf(r.key)
		groups[s] = append(groups[s], r)
	}
	e := c.engine
	if len(groups) == 1 {
		for s, g := range groups {
			l := e.layoutOf(tags()[s])
			b.encode(c, g, &l)
			reply, err := b.call.send(c.node, lockScript, b.args)
			c.deliver(g, reply, err)
		}
		return
	}
	calls := make([]*call, 0, len(groups))
	owners := make([][]*request, 0, len(groups))
	pipe := c.node.Pipeline()
	for s, g := range groups {
		var p batch
		p.known, p.now = b.known, b.now
		l := e.layoutOf(tags()[s])
		p.encode(c, g, &l)
		p.args[0], p.args[1] = &evalsha, &lockScript.hash
		k := newCall()
		k.args = p.args
		calls, owners = append(calls, k), append(owners, g)
		_ = pipe.Process(context.Background(), k)
	}
	_, _ = pipe.Exec(context.Background()) // each call has its own error
	for i, k := range calls {
		reply, err := k.Val(), k.Err()
		if isNoScript(err) {
			reply, err = k.send(c.node, lockScript, k.args)
		}
		c.deliver(owners[i], reply, err)
	}
}

// terms is for how long a node has answered without a change of its mastership. In a Cluster
// it stands in for the epochs of slots that nobody has locked anything in so far, which would
// each have to wait out a grace otherwise.
type terms struct {
	now   func() driver.Instant
	term  string
	since driver.Instant
}

func (t *terms) heard(term string, at driver.Instant) {
	if t.term != term {
		t.term, t.since = term, at
	}
}

func (t *terms) known() string {
	if t.term == "" || t.now == nil {
		return ""
	}
	return t.term + " " + formatInt(t.now().Sub(t.since).Milliseconds())
}
