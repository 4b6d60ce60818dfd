package redislock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

const (
	// healDelay bounds the random time before a heal, so that not all clients begin at once:
	// each would undo what the others began.
	healDelay = 500 * time.Millisecond

	// healEvery is how long a client rests after a heal, or after a look at nodes that it
	// cannot heal.
	healEvery = time.Second
)

// status is what a node says of itself, or why it does not.
type status struct {
	protocol.NodeStatus
	done bool // what was asked for was done
	err  error
}

// care runs the script that looks after nodes, at one node. The arguments are those that
// follow the constants.
func (q *Quorum) care(ctx context.Context, n *node, args ...any) (s status) {
	call := newCall()
	all := append([]any{nil, nil, 2, nodeKey, topKey, q.constants}, args...)
	reply, err := call.send(ctx, nil, n.only.node, healScript(), all)
	if err != nil {
		return status{err: n.classify(err)}
	}
	if s.NodeStatus, s.done, s.err = protocol.ParseStatus(reply); s.err == nil {
		q.learn(n, s.NodeHead)
	}
	return s
}

// careAll runs it at several nodes at once, with the arguments that f gives for each: none for
// a node that is left out.
func (q *Quorum) careAll(ctx context.Context, f func(i int) []any) []status {
	all := make([]status, len(q.nodes))
	var running sync.WaitGroup
	for i, n := range q.nodes {
		args := f(i)
		if args == nil {
			all[i].err = errNotAsked
			continue
		}
		running.Go(func() { all[i] = q.care(ctx, n, args...) })
	}
	running.Wait()
	return all
}

var errNotAsked = errors.New("not asked")

// statuses asks all nodes how they are.
func (q *Quorum) statuses(ctx context.Context) []status {
	return q.careAll(ctx, func(int) []any { return []any{"status", rand.Text()} })
}

// reporting returns the statuses of the nodes that answered; those of the others are zero.
func reporting(all []status) []protocol.NodeStatus {
	nodes := make([]protocol.NodeStatus, len(all))
	for i, s := range all {
		if s.err == nil {
			nodes[i] = s.NodeStatus
		}
	}
	return nodes
}

// twins is the error that two nodes are one server: it would vote twice, and forget for two.
func (q *Quorum) twins(all []status) *driver.Error {
	seen := make(map[string]int)
	for i, s := range all {
		if s.err != nil {
			continue
		}
		if other, twice := seen[s.Term]; twice {
			return driver.Failf(driver.Invalid, "%s and %s are one server: give each server once", q.nodes[other].addr, q.nodes[i].addr)
		}
		seen[s.Term] = i
	}
	return nil
}

// healSoon looks after the nodes in the background, unless that is under way. It is called by
// who learned of a node that is not as the others are.
func (q *Quorum) healSoon() {
	if !q.healing.CompareAndSwap(false, true) {
		return
	}
	q.begin(func() {
		defer q.healing.Store(false)
		if nap(q.life, mathrand.N(healDelay)) {
			_ = q.heal(q.life) // who needs the nodes comes back to it
			nap(q.life, healEvery)
		}
	})
}

// heal does what is proven to be safe, whatever happens meanwhile and whoever does the same:
// nodes that have forgotten what they promised take part again once those that remember are in
// a new epoch, and where all are blank they are founded. See protocol.Quorum.Needs.
func (q *Quorum) heal(ctx context.Context) error {
	q.caring.Lock()
	defer q.caring.Unlock()
	all := q.statuses(ctx)
	if err := q.twins(all); err != nil {
		return err
	}
	nodes := reporting(all)
	switch q.size.Needs(nodes) {
	case protocol.AllWell:
		return nil
	case protocol.Heal:
		return q.repair(ctx, nodes)
	case protocol.Found:
		return q.seed(ctx, nodes, protocol.Foundation(nodes), "")
	}
	return errors.New("too few nodes remember what they promised")
}

// repair raises the nodes that remember into a new epoch and seeds the others with what those
// have answered.
func (q *Quorum) repair(ctx context.Context, nodes []protocol.NodeStatus) error {
	epoch := rand.Text()
	raised := q.careAll(ctx, func(i int) []any {
		if !nodes[i].State.Seeded() {
			return nil
		}
		return []any{"raise", epoch, nodes[i].Epoch}
	})
	var done []protocol.NodeStatus
	for _, s := range raised {
		if s.err == nil && s.done {
			done = append(done, s.NodeStatus)
		}
	}
	floor, enough := q.size.Floor(done)
	if !enough {
		return errors.New("too few nodes could be raised into a new epoch: somebody else heals them, or they have stopped answering")
	}
	q.seedInto(ctx, epoch, floor, "", func(i int) bool { return nodes[i].State != protocol.Unreachable && !nodes[i].State.Seeded() }, nodes)
	return nil
}

// seed begins anew on all nodes that answered, with a floor that rests on their clocks.
func (q *Quorum) seed(ctx context.Context, nodes []protocol.NodeStatus, floor int64, grace string) error {
	n := q.seedInto(ctx, rand.Text(), floor, grace, func(i int) bool { return nodes[i].State != protocol.Unreachable }, nodes)
	if n < q.size.Majority() {
		return fmt.Errorf("%d nodes were seeded, and %d are needed: somebody else does the same, or they have stopped answering", n, q.size.Majority())
	}
	return nil
}

// seedInto seeds some nodes, which are as they were seen, and counts those that were.
func (q *Quorum) seedInto(ctx context.Context, epoch string, floor int64, grace string, some func(int) bool, seen []protocol.NodeStatus) int {
	n := 0
	for _, s := range q.careAll(ctx, func(i int) []any {
		if !some(i) {
			return nil
		}
		return []any{"seed", epoch, seen[i].Epoch, floor, grace}
	}) {
		if s.err == nil && s.done {
			n++
		}
	}
	return n
}

// knownEpoch returns the epoch of a majority. Where it is not known the nodes are asked: not
// longer than until a majority has said the same.
func (q *Quorum) knownEpoch(ctx context.Context) (string, *defeat) {
	q.mu.Lock()
	epoch := q.epoch
	if epoch != "" {
		q.mu.Unlock()
		return epoch, nil
	}
	look := q.looking
	if look == nil {
		look = &lookout{done: make(chan struct{}), found: make(chan struct{})}
		q.looking = look
		q.begin(func() {
			look.all = q.statuses(q.life)
			q.mu.Lock()
			q.looking = nil
			q.mu.Unlock()
			close(look.done)
		})
	}
	q.mu.Unlock()
	for found, done := look.found, false; ; {
		select {
		case <-found:
			found = nil
		case <-look.done:
			done = true
		case <-ctx.Done():
			return "", &defeat{Error: driver.Fail(driver.Unavailable, ctx.Err())}
		case <-q.closing:
			return "", &defeat{Error: errClosed}
		}
		if epoch = q.currentEpoch(); epoch != "" {
			return epoch, nil
		}
		if done {
			return "", q.unknown(look.all)
		}
	}
}

// lookout is a look at all nodes for their epoch.
type lookout struct {
	found chan struct{} // closed when the epoch is known
	done  chan struct{} // closed when all have answered
	all   []status
	told  bool
}

// tell says that the epoch is known. q.mu is locked.
func (l *lookout) tell() {
	if !l.told {
		l.told = true
		close(l.found)
	}
}

// unknown is why there is no epoch that a majority is in.
func (q *Quorum) unknown(all []status) *defeat {
	e := &QuorumError{Status: QuorumMissing, Nodes: make([]NodeResult, len(all)), need: q.size.Majority()}
	fault := q.twins(all)
	for i, s := range all {
		r := &e.Nodes[i]
		r.Addr = q.nodes[i].addr
		if s.err != nil {
			r.Status, r.Err = NodeFailed, s.err
			var d *driver.Error
			if errors.As(s.err, &d) && d.Kind != driver.Unavailable {
				fault = d
			}
			continue
		}
		r.Status, r.Err = NodeSitsOut, stateError(s.State, s.Left)
		if s.Constants != "" && s.Constants != q.constants {
			r.Status, r.Err = NodeFailed, &quorumConstantsError{ours: q.constants, theirs: s.Constants}
			fault = driver.Fail(driver.Invalid, r.Err)
		}
	}
	d := &defeat{Error: driver.Fail(driver.Unavailable, e), quorum: e}
	switch care := q.size.Needs(reporting(all)); {
	case fault != nil:
		d.Error = fault
	case care == protocol.Heal || care == protocol.Found:
		d.left = healDelay // it is under way
	}
	return d
}

// stateError says why a node sits out.
func stateError(s protocol.NodeState, left time.Duration) error {
	switch s {
	case protocol.Serving:
		return errors.New("it is in another epoch than the others: they are being healed")
	case protocol.Grace:
		return fmt.Errorf("it has lost what it had promised, and grants nothing for another %v", left.Round(time.Millisecond))
	case protocol.Blank:
		return errors.New("it is new, or has lost all its data: until it is healed it grants nothing")
	}
	return errors.New("it has restarted, or lost data: until it is healed it grants nothing")
}

// sitsOut says why a node answered that it does not take part.
func (n *node) sitsOut(a protocol.Answer) error {
	switch a.Kind {
	case protocol.Wait:
		return stateError(protocol.Grace, time.Duration(a.N)*time.Millisecond)
	case protocol.OtherEpoch:
		return stateError(protocol.Serving, 0)
	}
	return stateError(protocol.Forgetful, 0)
}

// Init implements driver.Initializer: it founds a quorum whose nodes are all new, so that the
// first lock need not wait until what they may have forgotten must have ended. It refuses, and
// changes nothing, unless all nodes answer and none has ever been used. Empty servers that have
// lost their data look like new ones: only the operator knows.
func (q *Quorum) Init(ctx context.Context) error {
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	q.caring.Lock()
	defer q.caring.Unlock()
	all := q.statuses(ctx)
	for i, s := range all {
		if s.err != nil {
			return driver.Fail(driver.Unavailable, fmt.Errorf("nothing was written, for all nodes have to answer: %s: %w", q.nodes[i].addr, s.err))
		}
	}
	if err := q.twins(all); err != nil {
		return err
	}
	nodes := reporting(all)
	used := slices.ContainsFunc(nodes, func(n protocol.NodeStatus) bool { return n.Top > 0 })
	if used || q.size.Needs(nodes) != protocol.Found {
		return driver.Failf(driver.Invalid, "nothing was written: nodes have been used before; see holdfast doctor for what they need")
	}
	// Nothing has to be kept below the fences, so they begin at the clock: were they ahead of it
	// there would be no spans until it has caught up.
	floor := int64(0)
	for _, n := range nodes {
		floor = max(floor, n.Micros)
	}
	if err := q.seed(ctx, nodes, floor, "none"); err != nil {
		return driver.Fail(driver.Unavailable, err)
	}
	return nil
}

// Heal implements driver.Healer: an operator says that nodes which have forgotten what they
// promised are to take part again, though too few of the others remember enough for that to be
// safe by itself. It puts all that answer, a majority at least, into a new epoch; those that
// have forgotten grant nothing for a MaxTTL. Locks stay exclusive by that, as long as nodes that
// do not answer never come back with what they had; fences grow if the clocks of the nodes were
// never set back by an hour.
func (q *Quorum) Heal(ctx context.Context) error {
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	q.caring.Lock()
	defer q.caring.Unlock()
	all := q.statuses(ctx)
	if err := q.twins(all); err != nil {
		return err
	}
	nodes := reporting(all)
	present := 0
	for i, s := range all {
		if s.err == nil {
			present++
		}
		if s.Constants != "" && s.Constants != q.constants {
			return driver.Failf(driver.Invalid, "%s: %w", q.nodes[i].addr, &quorumConstantsError{ours: q.constants, theirs: s.Constants})
		}
	}
	if present < q.size.Majority() {
		return driver.Fail(driver.Unavailable, fmt.Errorf("nothing was written: %d nodes answer, and %d have to", present, q.size.Majority()))
	}
	var err error
	switch q.size.Needs(nodes) {
	case protocol.AllWell:
		return nil
	case protocol.Heal:
		err = q.repair(ctx, nodes)
	default:
		err = q.override(ctx, nodes)
	}
	if err != nil {
		return driver.Fail(driver.Unavailable, err)
	}
	return nil
}

// override raises what remembers, and seeds the others with a floor that rests on the clocks.
func (q *Quorum) override(ctx context.Context, nodes []protocol.NodeStatus) error {
	epoch, floor := rand.Text(), protocol.Foundation(nodes)
	n := 0
	for _, s := range q.careAll(ctx, func(i int) []any {
		if !nodes[i].State.Seeded() {
			return nil
		}
		return []any{"raise", epoch, nodes[i].Epoch}
	}) {
		if s.err == nil && s.done {
			n++
			floor = max(floor, s.Top)
		}
	}
	n += q.seedInto(ctx, epoch, floor, "", func(i int) bool { return nodes[i].State != protocol.Unreachable && !nodes[i].State.Seeded() }, nodes)
	if n < q.size.Majority() {
		return fmt.Errorf("%d nodes are in the new epoch, and %d have to be: somebody else does the same, or they have stopped answering", n, q.size.Majority())
	}
	return nil
}
