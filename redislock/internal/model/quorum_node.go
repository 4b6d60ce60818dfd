package model

import (
	"cmp"
	"slices"
	"strings"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// QuorumNode is one node of a quorum, and what the scripts lua/quorum_node.lua, lua/quorum.lua
// and lua/quorum_heal.lua do on it.
type QuorumNode struct {
	// What the scripts ask the server for.
	Micros  int64 // TIME
	Replica bool  // INFO: role
	Term    string
	Listens func(inbox string) bool // PUBLISH: somebody does

	Record QuorumRecord
	Top    int64
	HasTop bool
	Locks  []QuorumLock
	Audit  []string

	Ahead     int64    // by how much top is ahead of the largest number when it is written
	Published []string // by the last call: inbox and message
	Flaws     QuorumFlaws

	ms    int64
	state protocol.NodeState
	epoch string
	left  int64
}

// QuorumRecord is what a node keeps about itself.
type QuorumRecord struct {
	Set                       bool
	Term, Epoch               string
	Start, Floor, Mark, Since int64
	Constants                 protocol.QuorumConstants
}

// QuorumLock is the key of a name and its companions.
type QuorumLock struct {
	Kind  Kind // Free, Exclusive or Wrong
	Value Value
	Ends  int64 // ms; 0 for never

	Count, CountEnds int64 // 0 for none
	Waiting          []QuorumWaiter
	WaitEnds         int64
}

// QuorumWaiter is who wants to be woken.
type QuorumWaiter struct {
	Inbox string
	Order int64
}

// QuorumCall is a call of lua/quorum.lua.
type QuorumCall struct {
	Constants protocol.QuorumConstants
	Epoch     string
	Inbox     string
	Requests  []QuorumRequest
}

// QuorumRequest is one request of a call. The op is its letter and the numbers behind it.
type QuorumRequest struct {
	Lock int // index
	Op   byte
	A, B int64
	At   int64 // of X: when who asks arrived
	ID   string
	TTL  int64

	stamp int64 // what the value says since when; 0 for the node's clock
}

// QuorumWord answers a request: in the form that protocol.Parse reads words in.
type QuorumWord struct {
	protocol.Answer
	Payload string
}

// Constants of the scripts: ms that a counter outlives its lock by, s that a number may be ahead
// of the clock, and the largest number.
const (
	keep       = 3_600_000
	aheadOf    = 3600
	mostNumber = 9_000_000_000_000_000
)

// begin begins a call.
func (n *QuorumNode) begin() {
	n.Published = n.Published[:0]
	n.ms = n.Micros / 1000
	n.expire()
}

// look is lua/quorum_node.lua.
func (n *QuorumNode) look() {
	n.begin()
	r := &n.Record
	n.left = 0
	switch {
	case n.Replica:
	case !r.Set:
		n.state, n.epoch = protocol.Blank, "-"
	case r.Term == n.Term && r.Epoch[0] == '-':
		n.state, n.epoch = protocol.NodeState(r.Epoch[1]), r.Epoch
	case r.Term == n.Term && n.HasTop:
		n.state, n.epoch = protocol.Serving, r.Epoch
		n.age()
	default:
		n.state, n.epoch = protocol.Forgetful, "-"
	}
}

// age lets the grace end, and the mark follow top.
func (n *QuorumNode) age() {
	r := &n.Record
	if r.Start > n.ms {
		r.Start = n.ms
	}
	if r.Start > 0 {
		n.left = r.Start + r.Constants.Grace().Milliseconds() - n.ms
		if n.left > 0 {
			n.state = protocol.Grace
		} else {
			r.Start, n.left = 0, 0
		}
	}
	if r.Since > n.ms || n.ms-r.Since >= keep/2 {
		r.Mark, r.Since = n.Top, n.ms
	}
}

func (n *QuorumNode) expire() {
	for i := range n.Locks {
		l := &n.Locks[i]
		if l.Ends > 0 && n.ms > l.Ends {
			l.free()
		}
		if n.ms > l.CountEnds {
			l.Count, l.CountEnds = 0, 0
		}
		if len(l.Waiting) > 0 && n.ms > l.WaitEnds {
			l.Waiting = l.Waiting[:0]
		}
	}
}

func (l *QuorumLock) free() { l.Kind, l.Value, l.Ends = Free, Value{}, 0 }

// floor is what no number that is granted here may be up to, 0 where the node is not seeded.
func (n *QuorumNode) floor() int64 {
	if !n.state.Seeded() {
		return 0
	}
	return n.Record.Floor
}

// GiveBack is lua/quorum_plain.lua when all that it is asked is to give back: it does not look
// at the record. The rest of what it does is what Call does.
func (n *QuorumNode) GiveBack(requests []QuorumRequest, words []QuorumWord) {
	n.begin()
	for i := range requests {
		words[i] = n.release(&n.Locks[requests[i].Lock], &requests[i])
	}
}

// Lone is lua/quorum_lone.lua, asked with the record that the node has, of a request that is
// one for it: it answers the request where it is to be answered, and does not look after the
// record. In other cases that script leaves the key and the numbers of the name alone.
func (n *QuorumNode) Lone(c *QuorumCall) (w QuorumWord, mine bool) {
	kept, q := n.Record, c.Requests[0]
	n.look()
	aged := n.Record != kept
	n.Record = kept
	l := &n.Locks[q.Lock]
	switch {
	case n.Replica, n.state != protocol.Serving, kept.Start > 0, n.epoch != c.Epoch, kept.Constants != c.Constants,
		q.B > n.Top && q.B > (n.Micros/1_000_000+aheadOf)*1_000_000,
		l.Kind == Wrong, l.signed(tokenOf(q.ID)),
		l.Kind == Free && (l.Count >= q.B || l.Count == 0 && aged):
		return w, false
	}
	q.stamp = q.B
	return n.acquire(l, &q, c.Inbox), true
}

// Call is lua/quorum.lua: it answers the requests into words, and says how the node is. ok is
// false where the node is a replica or has other constants.
func (n *QuorumNode) Call(c *QuorumCall, words []QuorumWord) (head protocol.NodeHead, ok bool) {
	if n.look(); n.Replica {
		return head, false
	}
	if n.state != protocol.Blank && n.Record.Constants != c.Constants {
		return head, false
	}
	for turn := 1; turn <= 3; turn++ {
		for i := range c.Requests {
			if q := &c.Requests[i]; turnOf(q.Op) == turn {
				words[i] = n.answer(c, q)
			}
		}
	}
	return protocol.NodeHead{State: n.state, Epoch: n.epoch}, true
}

func turnOf(op byte) int {
	switch op {
	case 'r', 'd':
		return 1
	case 'v', 'm':
		return 2
	}
	return 3
}

func word(kind byte, n int64) QuorumWord {
	return QuorumWord{Answer: protocol.Answer{Kind: kind, N: n}}
}

func (n *QuorumNode) answer(c *QuorumCall, q *QuorumRequest) QuorumWord {
	l := &n.Locks[q.Lock]
	switch q.Op {
	case 'r', 'd':
		return n.release(l, q)
	case 'l':
		return n.leave(l, q, c.Inbox)
	case 'b':
		return n.breakUp(l, q)
	}
	switch {
	case !n.state.Seeded():
		return word(protocol.Forgot, 0)
	case n.state == protocol.Grace:
		return word(protocol.Wait, n.left)
	case n.epoch != c.Epoch:
		return word(protocol.OtherEpoch, 0)
	case q.Op == 'v':
		return n.vouch(l, q)
	case q.Op == 'm':
		return n.move(l, q)
	}
	return n.acquire(l, q, c.Inbox)
}

// raise keeps top above c, and reports whether c is in range.
func (n *QuorumNode) raise(c int64) bool {
	if c > mostNumber {
		return false
	}
	if c > n.Top {
		n.Top = c + n.Ahead
	}
	return true
}

// signed reports whether the holder's value can be taken apart with that token.
func (l *QuorumLock) signed(token string) bool {
	return l.Kind == Exclusive && !l.Value.Foreign && strings.Contains(l.Value.ID, token)
}

func (l *QuorumLock) last() int64 { return l.Value.First + l.Value.More }

func (n *QuorumNode) acquire(l *QuorumLock, q *QuorumRequest, inbox string) QuorumWord {
	wait, now := q.Op == 'X', min(q.B, (n.Micros/1_000_000+aheadOf)*1_000_000)
	if l.Kind == Wrong {
		return word(protocol.Failed, 0)
	}
	if l.Kind == Exclusive {
		if !l.signed(tokenOf(q.ID)) || l.last() <= n.floor() {
			if wait {
				l.enlist(inbox, q.At)
				l.WaitEnds = n.ms + 60000
			}
			w := word(protocol.Held, -1)
			if l.Ends > 0 {
				w.N = l.Ends - n.ms
			}
			w.Payload = "x 1 " + l.Value.String()
			return w
		}
		l.Ends = n.ms + q.TTL
		w := word(protocol.Granted, l.Value.First)
		w.Span = int(l.Value.More + 1)
		return w
	}
	c := n.Record.Mark
	if l.Count > 0 {
		c = max(l.Count, n.floor())
	}
	span := max(1, min(q.A, now-c))
	step := span
	if n.Flaws.Has(SpanCountsOnce) {
		span, step = q.A, 1
	}
	last := max(c+step, now)
	if !n.raise(now) || !n.raise(last) {
		return word(protocol.Failed, 0)
	}
	l.Count, l.CountEnds = last, n.ms+keep+q.TTL
	l.Kind, l.Ends = Exclusive, n.ms+q.TTL
	stamp := cmp.Or(q.stamp, n.Micros)
	l.Value = Value{ID: q.ID, First: last - span + 1, More: span - 1, Sec: stamp / 1_000_000, Micro: stamp % 1_000_000}
	if wait {
		l.strike(inbox)
	}
	w := word(protocol.Granted, last-span+1)
	w.Span = int(span)
	return w
}

func (l *QuorumLock) enlist(inbox string, at int64) {
	l.strike(inbox)
	l.Waiting = append(l.Waiting, QuorumWaiter{inbox, at})
	slices.SortFunc(l.Waiting, func(a, b QuorumWaiter) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Inbox, b.Inbox))
	})
}

func (l *QuorumLock) strike(inbox string) bool {
	n := len(l.Waiting)
	l.Waiting = slices.DeleteFunc(l.Waiting, func(w QuorumWaiter) bool { return w.Inbox == inbox })
	return len(l.Waiting) < n
}

// set makes the numbers of an attempt end with fence.
func (n *QuorumNode) set(l *QuorumLock, first, fence, ttl int64) QuorumWord {
	if !n.raise(fence) {
		return word(protocol.Failed, 0)
	}
	l.Count, l.CountEnds = fence, n.ms+keep+ttl
	l.Value.First, l.Value.More, l.Ends = first, fence-first, n.ms+ttl
	return word(protocol.Done, 0)
}

func (n *QuorumNode) vouch(l *QuorumLock, q *QuorumRequest) QuorumWord {
	fence, span := q.A, q.B
	if w, planted := n.flawedVouch(l, q); planted {
		return w
	}
	if !l.signed(tokenOf(q.ID)) {
		return word(protocol.Nothing, 0)
	}
	if c := max(l.last(), n.floor()); c > fence || l.Value.First > fence-span+1 {
		return word(protocol.Higher, c)
	}
	if l.last() < fence {
		return n.set(l, fence-span+1, fence, q.TTL)
	}
	l.Ends = n.ms + q.TTL
	return word(protocol.Done, 0)
}

func (n *QuorumNode) move(l *QuorumLock, q *QuorumRequest) QuorumWord {
	if !l.signed(tokenOf(q.ID)) {
		return word(protocol.Nothing, 0)
	}
	if c := max(l.last(), n.floor()); !n.Flaws.Has(MoveWhateverWasSince) && (c != q.A && c != q.B || q.A > q.B) {
		return word(protocol.Higher, c)
	}
	return n.set(l, q.B, q.B, q.TTL)
}

func (n *QuorumNode) wake(l *QuorumLock, what string) {
	for len(l.Waiting) > 0 {
		inbox := l.Waiting[0].Inbox
		l.Waiting = slices.Delete(l.Waiting, 0, 1)
		if n.Listens != nil && n.Listens(inbox) {
			n.Published = append(n.Published, inbox+" free "+what)
			return
		}
	}
}

func (n *QuorumNode) release(l *QuorumLock, q *QuorumRequest) QuorumWord {
	if l.Kind != Exclusive || !strings.Contains(l.Value.ID, tokenOf(q.ID)) {
		return word(protocol.Nothing, 0)
	}
	l.free()
	if q.Op == 'r' {
		n.wake(l, tokenOf(q.ID)+" "+QuorumKey(q.Lock))
	}
	return word(protocol.Done, 0)
}

func (n *QuorumNode) leave(l *QuorumLock, q *QuorumRequest, inbox string) QuorumWord {
	was := l.strike(inbox)
	if l.Kind == Free {
		n.wake(l, "- "+QuorumKey(q.Lock))
	}
	if was {
		return word(protocol.Done, 0)
	}
	return word(protocol.Nothing, 0)
}

func (n *QuorumNode) breakUp(l *QuorumLock, q *QuorumRequest) QuorumWord {
	switch l.Kind {
	case Wrong:
		return word(protocol.Failed, 0)
	case Free:
		return word(protocol.Nothing, 0)
	}
	w := word(protocol.Broken, 0)
	w.Payload = "x 1 " + l.Value.String()
	if q.A > 0 && (l.Value.Foreign || q.A < l.Value.First || q.A > l.last()) {
		w.Kind = protocol.Stale
		return w
	}
	n.Audit = append(n.Audit, itoa(n.Micros/1_000_000)+" "+q.ID)
	l.free()
	n.wake(l, "- "+QuorumKey(q.Lock))
	return w
}

// QuorumKey is the key of the lock with that index.
func QuorumKey(i int) string { return "lock:" + string(rune('a'+i)) }
