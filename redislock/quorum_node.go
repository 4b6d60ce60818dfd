package redislock

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// node is one of the servers. Its engine is what talks to it; the locks of that engine are not
// used.
type node struct {
	*Engine
	index int
	addr  string

	// ailing is whether it failed, sat out or was late when it last was to grant or to vouch.
	ailing atomic.Bool

	took atomic.Int64 // ns, of the last calls: how long they took on the whole

	record atomic.Pointer[protocol.Record] // as it last was; nil when that is not known
}

// timed takes down how long a call took that was answered. Two at once may lose one.
func (n *node) timed(d time.Duration) {
	took := n.took.Load()
	n.took.Store(took + (int64(d)-took)/8)
}

// The keys that a node knows itself by, see lua/quorum_node.lua.
var nodeKey, topKey = companions + "node", companions + "top"

// exchange sends requests to a node, in one call unless they are of different epochs, and hands
// out the answers.
func (q *Quorum) exchange(n *node, b *batch) {
	for rest := b.requests; len(rest) > 0; {
		epoch, same := "", 0
		for ; same < len(rest); same++ {
			e := rest[same].to.(*message).epoch
			if epoch == "" {
				epoch = e
			} else if e != "" && e != epoch {
				break
			}
		}
		q.deliver(n, b, rest[:same], epoch)
		rest = rest[same:]
	}
}

// deliver hands out the answers to requests of one epoch. The script for plain cases is asked
// first where it knows the ops, and what it leaves goes to the other one.
func (q *Quorum) deliver(n *node, b *batch, requests []*request, epoch string) {
	settled, tried := false, false
	if len(requests) == 1 {
		settled, tried = q.askLone(n, b, requests[0], epoch)
	}
	if settled {
		return
	}
	if !tried && !slices.ContainsFunc(requests, func(r *request) bool { return plainRank(r) < 0 }) {
		b.sorted = append(b.sorted[:0], requests...) // others look at the batch
		requests = b.sorted
		slices.SortStableFunc(requests, func(x, y *request) int { return plainRank(x) - plainRank(y) })
		if requests = q.call(n, b, requests, epoch, plainScript()); len(requests) == 0 {
			return
		}
	}
	q.call(n, b, requests, epoch, quorumScript())
}

// plainRank is the place of a request in a call of lua/quorum_plain.lua, -1 for none.
func plainRank(r *request) int {
	switch r.op[0] {
	case 'r', 'd':
		return 0
	case 'x', 'X':
		return 1
	}
	return -1
}

// call makes one call, and returns the requests that are for the other script.
func (q *Quorum) call(n *node, b *batch, requests []*request, epoch string, s *script) (left []*request) {
	f := b.frame(0)
	f.keys = 2 + len(requests)
	a := append(f.args[:0], nil, nil, &f.keys, &nodeKey, &topKey)
	for _, r := range requests {
		a = append(a, &r.key)
	}
	a = append(a, &q.constants, &epoch, &n.single.inbox)
	for _, r := range requests {
		a = append(a, &r.op, &r.id, &r.ttl)
	}
	f.args = a
	asked := q.clock.Now()
	reply, err := f.call.send(n.life, b.line, n.only.node, s, a)
	if err != nil && len(requests) > 1 && isKeyBarred(err) {
		// One of the keys is beyond the rights of the user: the others must not suffer.
		for i := range requests {
			left = append(left, q.call(n, b, requests[i:i+1:i+1], epoch, s)...)
		}
		return left
	}
	words := ""
	if err == nil {
		n.timed(q.clock.Now().Sub(asked))
		words, err = q.open(n, reply, requests, epoch, s)
	}
	if err != nil {
		q.fail(n, requests, err)
		return nil
	}
	payloads := reply[1:]
	left = requests[:0]
	for _, r := range requests {
		var word, payload string
		word, words, _ = strings.Cut(words, " ")
		if word == "~" {
			left = append(left, r)
			continue
		}
		if hasPayload(word) && len(payloads) > 0 {
			payload, payloads = payloads[0], payloads[1:]
		}
		r.finish(word, payload, nil)
	}
	return left
}

// fail answers requests of a call that failed.
func (q *Quorum) fail(n *node, requests []*request, err error) {
	failure := n.classify(err)
	var constants *quorumConstantsError
	if errors.As(err, &constants) {
		failure = driver.Fail(driver.Invalid, err)
	}
	for _, r := range requests {
		r.finish("", "", failure)
	}
}

// open checks the first string of a reply, and learns what it says about the node. The script
// for plain cases grants and refuses on a node that serves, and says nothing of others.
func (q *Quorum) open(n *node, reply []string, requests []*request, epoch string, s *script) (string, error) {
	if len(reply) == 2 && reply[0] == "!constants" {
		return "", &quorumConstantsError{ours: q.constants, theirs: reply[1]}
	}
	if len(reply) == 0 {
		return "", errGarbled
	}
	head, words, err := protocol.NodeHead{State: protocol.Serving, Epoch: epoch}, reply[0], error(nil)
	if s != plainScript() {
		head, words, err = protocol.ParseHead(reply[0])
	}
	if err != nil || strings.Count(words, " ") != len(requests)-1 {
		return "", errGarbled
	}
	if s != plainScript() || plainRank(requests[len(requests)-1]) == 1 && !strings.HasSuffix(words, "~") {
		q.learn(n, head)
	}
	return words, nil
}

// quorumConstantsError says that clients of one node were told different constants.
type quorumConstantsError struct{ ours, theirs string }

func (e *quorumConstantsError) Error() string {
	return fmt.Sprintf("this client has the quorum settings %q (MaxTTL in ms, number of nodes, their group), the node has %q: "+
		"give all clients the same nodes, MaxTTL and Group; where the nodes were changed on purpose see docs/operations.md", e.ours, e.theirs)
}

// learn takes down how a node is.
func (q *Quorum) learn(n *node, head protocol.NodeHead) {
	q.mu.Lock()
	if q.heads[n.index] != head {
		q.heads[n.index] = head
		if epoch := q.size.Epoch(q.heads); epoch != q.epoch {
			if q.epoch = epoch; epoch != "" && q.looking != nil {
				q.looking.tell()
			}
		}
	}
	ails := !head.State.Seeded() || head.Epoch != q.epoch
	q.mu.Unlock()
	if ails {
		q.healSoon()
	}
}

// currentEpoch is the one that rounds are made in, ” when it is not known.
func (q *Quorum) currentEpoch() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.epoch
}

// result is what a node's answer looks like to people.
func (q *Quorum) result(i int, a protocol.Answer, d detail) NodeResult {
	n := q.nodes[i]
	r := NodeResult{Addr: n.addr}
	switch a.Kind {
	case protocol.Granted, protocol.Done:
		r.Status = NodeGranted
	case protocol.Held:
		r.Status = NodeHeld
	case protocol.Nothing, protocol.Higher:
		r.Status = NodeLost
	case protocol.Wait, protocol.Forgot, protocol.OtherEpoch:
		r.Status, r.Err = NodeSitsOut, n.sitsOut(a)
	case protocol.Failed, protocol.HalfDone:
		r.Status, r.Err = NodeFailed, n.refused(d.payload)
	default:
		if d.err != nil {
			r.Status, r.Err = NodeFailed, d.err
		}
	}
	return r
}

// results are the answers of all nodes, for people. r.mu is locked.
func (r *round) results() []NodeResult {
	all := make([]NodeResult, len(r.answers))
	for i := range all {
		all[i] = r.q.result(i, r.answers[i], r.details[i])
	}
	return all
}

// fault returns the error of a node that says that nothing will get better by asking again.
func (r *round) fault() *driver.Error {
	for i, d := range r.details {
		if d.err != nil && d.err.Kind != driver.Unavailable {
			return d.err
		}
		if k := r.answers[i].Kind; k == protocol.Failed || k == protocol.HalfDone {
			if err := r.q.nodes[i].refused(d.payload); err.Kind != driver.Unavailable {
				return err
			}
		}
	}
	return nil
}
