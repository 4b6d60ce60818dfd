package redislock

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// thrift is for how long an attempt makes do with a majority of the nodes, where they are all
// well: then it asks the rest as well, whether it has won or not.
const thrift = 10 * time.Millisecond

// straggle is for how long at least the nodes that have not answered are waited for once a
// majority has, when that was not enough to decide. Where that majority took longer, all are
// slow, and they get as long again.
const straggle = 100 * time.Millisecond

// message is a request to one node, made on behalf of a round.
type message struct {
	request
	round *round // nil when nobody wants the answer
	node  *node
	epoch string // that the round is of, '' for requests that are carried out in any
}

// receive implements receiver.
func (m *message) receive() {
	switch m.op[0] {
	case 'x', 'X', 'v', 'm':
		well := m.err == nil && strings.IndexByte("efw!?", m.word[0]) < 0
		if m.node.ailing.Load() == well {
			m.node.ailing.Store(!well)
		}
	}
	if m.round != nil {
		m.round.receive(m)
	}
}

func (m *message) submit() { m.node.only.submit(&m.request) }

// drop sees to it that the message is never sent, and reports whether that is so.
func (m *message) drop() bool { return m.state.CompareAndSwap(pending, abandoned) }

// forget makes a request of one node whose answer nobody needs.
func (q *Quorum) forget(n *node, key, op, id string) {
	m := &message{node: n}
	m.key, m.op, m.id, m.to = key, op, id, m
	m.submit()
}

// errand is what a round asks of every node.
type errand struct {
	key, op, id string
	ttl         int64 // ms
	span        int   // of an op that acquires
	epoch       string
}

// round is an errand, and the answers to it.
type round struct {
	errand
	q     *Quorum
	sent  driver.Instant // read before the first request was handed over
	judge func(answers []protocol.Answer) bool
	stray func(m *message) // deals with answers that come after the end; may be nil

	mu       sync.Mutex
	changed  chan struct{} // signalled when the answers may decide
	messages []message     // the last one to each node
	rest     []int         // nodes that are not asked unless the others are not enough
	answers  []protocol.Answer
	details  []detail
	over     bool
}

// detail is what comes with an answer.
type detail struct {
	payload string
	err     *driver.Error
}

// newRound prepares an errand. Judge reports whether the answers so far decide.
func (q *Quorum) newRound(e errand, judge func([]protocol.Answer) bool) *round {
	n := len(q.nodes)
	r := &round{
		errand: e, q: q, judge: judge, sent: q.clock.Now(), changed: make(chan struct{}, 1),
		messages: make([]message, n), answers: make([]protocol.Answer, n), details: make([]detail, n),
	}
	for i := range r.messages {
		r.fill(&r.messages[i], i)
	}
	return r
}

func (r *round) fill(m *message, i int) {
	m.round, m.node, m.epoch = r, r.q.nodes[i], r.epoch
	m.key, m.op, m.id, m.ttl, m.to = r.key, r.op, r.id, r.ttl, m
}

// submit asks all nodes.
func (r *round) submit() *round {
	for i := range r.messages {
		r.messages[i].submit()
	}
	return r
}

// submitThrifty asks a majority of the nodes, the same for all who want a key, while all are
// well and none of those is farther away than others: the rest is asked when they turn out not
// to be enough. The requests to the rest are late, as any may be.
func (r *round) submitThrifty() {
	q := r.q
	order, most := q.size.Order(r.key), q.size.Majority()
	if slices.ContainsFunc(q.nodes, func(n *node) bool { return n.ailing.Load() }) || !q.near(order[:most]) {
		r.submit()
		return
	}
	r.rest = order[most:]
	for _, i := range order[:most] {
		r.messages[i].submit()
	}
}

// near reports whether the nodes of a majority answer about as fast as the fastest majority:
// where all are asked, that is what decides.
func (q *Quorum) near(majority []int) bool {
	var room [16]int64
	all, slowest := room[:0], int64(0)
	for _, n := range q.nodes {
		all = append(all, n.took.Load())
	}
	for _, i := range majority {
		slowest = max(slowest, all[i])
	}
	slices.Sort(all)
	return slowest <= 2*all[len(majority)-1]+int64(time.Millisecond)
}

// broaden asks the rest, and reports whether there was any. Who was asked and has not answered
// by then is not relied on until it does.
func (r *round) broaden() bool {
	r.mu.Lock()
	rest := r.rest
	if r.rest = nil; len(rest) > 0 {
		for i, a := range r.answers {
			if a.Kind == protocol.Pending && !slices.Contains(rest, i) {
				r.messages[i].node.ailing.Store(true)
			}
		}
	}
	r.mu.Unlock()
	for _, i := range rest {
		r.messages[i].submit()
	}
	return len(rest) > 0
}

// submitTo asks those nodes only. The others count as having nothing to say.
func (r *round) submitTo(nodes []int) *round {
	r.mu.Lock()
	for i := range r.answers {
		r.answers[i].Kind = protocol.Nothing
	}
	for _, i := range nodes {
		r.answers[i].Kind = protocol.Pending
	}
	decided := r.judge(r.answers) || len(nodes) == 0
	r.mu.Unlock()
	for _, i := range nodes {
		r.messages[i].submit()
	}
	if decided {
		r.signal()
	}
	return r
}

// again runs the errand once more at those nodes, which have answered.
func (r *round) again(nodes []int) {
	all := make([]*message, len(nodes))
	r.mu.Lock()
	for k, i := range nodes {
		all[k] = new(message)
		r.fill(all[k], i)
		r.answers[i], r.details[i] = protocol.Answer{}, detail{}
	}
	r.mu.Unlock()
	for _, m := range all {
		m.submit()
	}
}

// receive takes down an answer.
func (r *round) receive(m *message) {
	i := m.node.index
	ans := protocol.Parse(m.word, max(r.span, 1))
	if m.err != nil {
		ans.Kind = protocol.Silent
	}
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		if r.stray != nil {
			r.stray(m)
		}
		return
	}
	r.answers[i], r.details[i] = ans, detail{payload: m.payload}
	errors.As(m.err, &r.details[i].err)
	decided := r.judge(r.answers) || r.open() == len(r.rest)
	r.mu.Unlock()
	if decided {
		r.signal()
	}
}

func (r *round) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// open counts the nodes that have not answered. r.mu is locked.
func (r *round) open() int {
	n := 0
	for _, a := range r.answers {
		if a.Kind == protocol.Pending {
			n++
		}
	}
	return n
}

// await waits until the answers may decide. It reports false when there is no point in waiting
// any longer: ctx has ended, the engine was closed, or what is missing has not come for a while
// after a majority had.
func (r *round) await(ctx context.Context) bool {
	select {
	case <-r.changed:
		return true
	default:
	}
	patience := straggle
	if r.thrifty() {
		patience = thrift
	}
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for half := false; ; {
		select {
		case <-r.changed:
			return true
		case <-ctx.Done():
			return false
		case <-r.q.life.Done():
			return false
		case <-tick.C:
			if r.broaden() {
				tick.Reset(straggle)
				continue
			}
			if half {
				return false
			}
			r.mu.Lock()
			half = len(r.answers)-r.open() >= r.q.size.Majority()
			r.mu.Unlock()
			if half {
				tick.Reset(max(straggle, r.q.clock.Now().Sub(r.sent)))
			}
		}
	}
}

// thrifty reports whether there are nodes that were not asked.
func (r *round) thrifty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rest) > 0
}

// close ends the round. Answers that are missing stay so.
func (r *round) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// end closes the round: answers that are missing count as none. It returns the nodes that may
// have carried the errand out; with drop, what has not left yet is not sent any more.
func (r *round) end(drop bool) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	var may []int
	for i, a := range r.answers {
		switch a.Kind {
		case protocol.Pending:
			r.answers[i].Kind = protocol.Silent
			if !drop || !r.messages[i].drop() {
				may = append(may, i)
			}
		case protocol.Granted, protocol.Done, protocol.HalfDone:
			may = append(may, i)
		case protocol.Silent:
			if d := r.details[i].err; d == nil || d.Outcome != driver.NotApplied {
				may = append(may, i)
			}
		}
	}
	return may
}
