package redislock

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// mastersOnly returns a client for the masters of the Cluster that c is a client of. The
// connections of c, if it reads from replicas, tell every node that stale answers will do: a
// master that was demoted would go on answering scripts.
func mastersOnly(c *redis.ClusterClient) *redis.ClusterClient {
	o := *c.Options()
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	return redis.NewClusterClient(&o)
}

// do makes the request. It does not wait for anything.
func (e *Engine) do(r *request) {
	switch {
	case e.cluster == nil:
		e.only.make(r)
	case e.mapped.Load():
		e.route(r)
	default: // who has which slot has to be asked first, which may take long
		r.wake()
		e.calls.Go(func() {
			if err := e.remap(); err != nil {
				e.strand(r, err)
				return
			}
			e.route(r)
		})
	}
}

// doAll makes the requests. Those for one node are entered at once, so that they fill calls.
func (e *Engine) doAll(all []*request) {
	if e.cluster == nil {
		e.only.submit(all...)
		return
	}
	byNode := make(map[*combiner][]*request)
	for _, r := range all {
		if r == nil {
			continue
		}
		if !e.mapped.Load() {
			e.do(r)
		} else if c, err := e.nodeOf(e.slotOf(r.key)); err != nil {
			e.strand(r, err)
		} else {
			byNode[c] = append(byNode[c], r)
		}
	}
	for c, requests := range byNode {
		c.submit(requests...)
	}
}

// route hands the request to what sends requests about its slot.
func (e *Engine) route(r *request) {
	c, err := e.nodeOf(e.slotOf(r.key))
	if err != nil {
		e.strand(r, err)
		return
	}
	c.make(r)
}

// strand answers a request that cannot be sent.
func (e *Engine) strand(r *request, err error) {
	if r.state.CompareAndSwap(pending, sent) {
		r.via = e.nowhere
		r.finish("", "", &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: err})
	}
}

// slotOf returns the slot of a key, 0 on a server on its own.
func (e *Engine) slotOf(key string) int {
	if e.cluster == nil {
		return 0
	}
	return slotOf(key)
}

// nodeOf returns what sends requests about keys of a slot. In a Cluster it waits for nothing
// once the Cluster was asked who has which.
func (e *Engine) nodeOf(slot int) (*combiner, error) {
	if e.cluster == nil {
		return e.only, nil
	}
	node, err := e.cluster.MasterForKey(e.life, tags()[slot])
	if err != nil {
		return nil, err
	}
	return e.combinerOf(node), nil
}

func (e *Engine) combinerOf(node *redis.Client) *combiner {
	if e.cluster == nil {
		return e.only
	}
	if c, ok := e.nodes.Load(node); ok {
		return c.(*combiner)
	}
	c, _ := e.nodes.LoadOrStore(node, e.newCombiner(node))
	return c.(*combiner)
}

// await runs f, which may wait for the network longer than ctx allows: what f sets must not be
// read when await returns an error other than f's.
func (e *Engine) await(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	e.calls.Go(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remap asks the Cluster who has which slot. Calls that wait for each other share an answer.
func (e *Engine) remap() error {
	asked := e.clock.Now()
	e.mapping.Lock()
	defer e.mapping.Unlock()
	if e.mapping.done && e.mapping.at >= asked {
		return e.mapping.err // somebody asked after this call began
	}
	e.mapping.at, e.mapping.done = e.clock.Now(), true
	// The client's own way to ask again returns before it has asked.
	e.mapping.err = e.cluster.ForEachMaster(e.life, func(context.Context, *redis.Client) error { return nil })
	if e.mapping.err == nil {
		e.mapped.Store(true)
	}
	return e.mapping.err
}

// remapSoon asks who has which slot in the background, unless that is under way.
func (e *Engine) remapSoon() {
	if !e.remapping.CompareAndSwap(false, true) {
		return
	}
	e.calls.Go(func() {
		_ = e.remap()
		e.remapping.Store(false)
	})
}

// maxMoves is how often a request follows the slot that it is for. With the pauses between
// that takes half a second.
const maxMoves = 5

// astray says what to do with requests that a node of a Cluster did not carry out: whether to
// make them again, and whether to ask before who has their slot.
func astray(err error) (again, elsewhere bool) {
	_, moved := redis.IsMovedError(err)
	_, asked := redis.IsAskError(err)
	switch {
	case moved, byReplica(err), errors.Is(err, redis.ErrClosed):
		return true, true // closed is the client of a node that has left
	case asked, redis.IsTryAgainError(err):
		// While keys of the slot are under way no node has all that a lock consists of, so
		// ASK is not followed: the request waits until they have arrived.
		return true, false
	}
	return false, true
}

// suspect has the Cluster asked for its nodes when err says that one may be gone: another may
// take its place.
func (e *Engine) suspect(err error) {
	var reply redis.Error
	if !errors.As(err, &reply) || redis.IsClusterDownError(err) || redis.IsLoadingError(err) {
		e.remapSoon()
	}
}

// follow makes those requests again that a node of a Cluster refused as it was not the right
// one. Nothing was carried out then, so this is no second copy. It returns the others.
func (c *combiner) follow(requests []*request, err error) []*request {
	e := c.engine
	again, elsewhere := astray(err)
	if errors.Is(err, redis.ErrClosed) {
		e.nodes.Delete(c.node)
	}
	if !again {
		e.suspect(err)
		return requests
	}
	var left, back []*request
	moves := 0
	for _, r := range requests {
		if r.moved >= maxMoves {
			left = append(left, r)
		} else if r.state.CompareAndSwap(sent, pending) { // else nobody waits for it
			r.moved++
			moves = max(moves, int(r.moved))
			back = append(back, r)
			r.wake()
		}
	}
	if len(back) > 0 {
		e.calls.Go(func() { e.retrace(back, moves, elsewhere) })
	}
	return left
}

// retrace makes requests again that have moved so often.
func (e *Engine) retrace(requests []*request, moves int, elsewhere bool) {
	if !elsewhere {
		moves++ // there is nothing to learn, only to wait for
	}
	pause := time.NewTimer(time.Duration(moves-1) * 50 * time.Millisecond)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-e.life.Done(): // nobody waits for anything
	}
	if elsewhere {
		_ = e.remap() // what is known from before may do
	}
	e.doAll(requests) // together, and none behind one that is held up
}

// exchangeSlots sends one call for each slot, all in one pipeline.
func (b *batch) exchangeSlots(c *combiner) {
	e := c.engine
	b.bySlot = append(b.bySlot[:0], b.requests...)
	for _, r := range b.bySlot {
		r.slot = slotOf(r.key)
	}
	slices.SortStableFunc(b.bySlot, func(x, y *request) int { return cmp.Compare(x.slot, y.slot) })
	n := 0
	for rest := b.bySlot; len(rest) > 0; n++ {
		same := 1
		for same < len(rest) && rest[same].slot == rest[0].slot {
			same++
		}
		b.frame(n).encode(b, c, rest[:same], e.layoutOf(rest[0].slot))
		rest = rest[same:]
	}
	if n == 1 {
		f := b.frame(0)
		reply, err := f.call.send(e.life, nil, c.node, lockScript(), f.args)
		c.deliver(f.requests, reply, err)
		return
	}
	pipe := c.node.Pipeline()
	for i := range n {
		f := b.frame(i)
		f.args[0], f.args[1] = &evalsha, &lockScript().hash
		_ = pipe.Process(e.life, f.call.with(f.args))
	}
	_, _ = pipe.Exec(e.life) // each call has its own error
	for i := range n {
		f := b.frame(i)
		reply, err := f.call.Val(), f.call.Err()
		if isNoScript(err) {
			reply, err = f.call.send(e.life, nil, c.node, lockScript(), f.args)
		}
		c.deliver(f.requests, reply, err)
	}
}

// layoutOf returns the names that requests about keys of a slot share.
func (e *Engine) layoutOf(slot int) *layout {
	if l := e.layouts[slot].Load(); l != nil {
		return l
	}
	l := e.newLayout(tags()[slot])
	e.layouts[slot].Store(l)
	return l
}

// greet finds out, once, what the node is: whether its slots bind it, for a client for a
// Cluster may also have been told to spread keys over servers on their own or to find the one
// behind Sentinel, and how to send messages.
func (c *combiner) greet() error {
	if c.greeted.Load() {
		return nil
	}
	c.meeting.Lock()
	defer c.meeting.Unlock()
	if c.greeted.Load() {
		return nil
	}
	reply, err := c.node.Do(c.engine.life, "hello").Result()
	unknown := err != nil && strings.HasPrefix(err.Error(), "ERR ") && !redis.IsMaxClientsError(err)
	if err != nil && !unknown && !redis.IsPermissionError(err) {
		return err
	}
	said := pairsOf(reply)
	// Who cannot be asked is what the client was made for.
	c.slotted = said["mode"] == "cluster" || said["mode"] == "" && c.engine.cluster.Options().ClusterSlots == nil
	if major, _, _ := strings.Cut(said["version"], "."); c.slotted {
		// A message to a plain channel would go to every node of the Cluster.
		if n, err := strconv.Atoi(major); err == nil && n >= 7 {
			c.publish = "SPUBLISH"
		}
	}
	c.greeted.Store(true)
	return nil
}

// publishes returns the command that pushes are sent with, as far as it is known: servers that
// nobody has asked so far are taken for ones of today.
func (e *Engine) publishes() string {
	if e.cluster == nil || e.cluster.Options().ClusterSlots != nil {
		return "PUBLISH"
	}
	command := "SPUBLISH"
	e.each(func(c *combiner) {
		if c.greeted.Load() {
			command = c.publish
		}
	})
	return command
}
