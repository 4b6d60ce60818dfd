package model

import (
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// The most that a state has room for.
const (
	maxNodes   = 5
	maxClients = 3
)

// Failover is a deployment of one master and its replicas, of whom any may be promoted at any
// moment while the old master lives on, and clients that want one name. Every client may reach
// every node that takes itself for a master at any time: whatever a network or a pause can do
// is among that. What replicas have may be any earlier state of what they follow.
//
// Time goes in ticks. Intervals are half-open, as on the server: what lives for n ticks is
// there before the n-th and gone with it. States keep what is left of an interval instead of
// points in time, capped where more makes no difference, so their number is finite.
//
// A client holds while it believes in a lease that is valid by its own clock, which runs at
// the servers' rate here. The core stops 6 % of the TTL earlier; the model does not.
//
// Replicas acknowledge all the time: it is what lets an old master go on. What is left of an
// acknowledgement counts from the moment at which the replica turned to another master.
type Failover struct {
	Nodes   int
	Limits  protocol.Constants
	Tick    time.Duration
	Clients []Client
	Limit   int64 // of permits

	Promotions, Restarts int
	OldDies              bool // a promotion ends the master before it
	Chained              bool // replicas may follow replicas
	Skew                 int  // ticks by which each node's clock is ahead of that of the node before it
	AckStep              bool // an acknowledgement may arrive a second later, as a step of its own
	Queue                bool // clients wait in the queue
	Known                bool // clients say for how long they know a term, which they may hear from other slots
	Slots                bool // nodes are masters of a Cluster, each on its own, that have one slot in turn
	Moves                int  // of the slot
	Flaws                Flaws

	server        Server
	lock          *Lock
	call          Call
	ops, renewals [maxClients]string
	grace         uint8 // ticks
	ack           uint8 // ticks for which an acknowledgement counts
	flight        uint8 // ticks for which it may be under way
}

// Client is who wants the name.
type Client struct {
	Mode   byte // 'x', 's' or 'p'
	Weight int64
	TTL    time.Duration
	Late   bool // its requests may be carried out, and answered, any time after they were sent
}

// FailoverState is a state.
type FailoverState struct {
	nodes    [maxNodes]node
	clients  [maxClients]client
	term     uint8 // the newest
	promote  uint8 // promotions left
	restarts uint8
	owner    uint8 // with Slots: whose slot it is
	moves    uint8 // of the slot that may still come
}

type node struct {
	master bool
	term   uint8 // its own as a master, otherwise that of whom it follows
	from   uint8 // whom a replica follows
	has    data
	acks   [maxNodes]uint8 // by replica: ticks for which its last one counts, and old
	flight [maxNodes]uint8 // ticks for which another may arrive from it, and old
	since  uint8           // with Slots: ticks since its term began
}

// old marks an acknowledgement from before the promotion.
const old = 0x80

// data is what is replicated.
type data struct {
	ends  [maxClients]uint8 // ticks until the share of each ends, 0 for none
	epoch uint8
	age   uint8 // ticks since the start that the epoch has
	queue uint8 // bits of who waits
}

// What the epoch is to the node that has it. From runs on, it is the node that wrote it.
const (
	missing uint8 = iota
	mine
	others
	runs
)

type client struct {
	stage    uint8
	left     uint8 // ticks for which it believes to hold
	released bool  // a release may be under way
	sent     uint8 // a request may be: 'a' or 'r'
	sentLeft uint8 // ticks until the lease would end that it asked for
	met      bool  // it was answered by somebody

	// For how many ticks it has had live answers of the node's present term, + 1.
	known [maxNodes]uint8
}

const (
	wants uint8 = iota
	holds
	over
)

var termNames = [...]string{mine: "aa", others: "bb"}

var tokens = [maxClients]string{"000000000000000000000A", "000000000000000000000B", "000000000000000000000C"}

const key = "lock"

// instant is now, in every state.
const instant = 1_000_000_000 // ms

func (w *Failover) ticks(d time.Duration) uint8 { return uint8((d + w.Tick - 1) / w.Tick) }

// Start implements World.
func (w *Failover) Start() []FailoverState {
	w.lock = &Lock{Members: make([]Member, 0, maxClients), Queue: make([]Entry, 0, maxClients)}
	w.server = Server{
		Micros: instant * 1000, Began: 1, Replicas: make([]Acks, w.Nodes-1), Brief: true,
		Locks: map[string]*Lock{key: w.lock}, Listens: func(string) bool { return true }, Flaws: w.Flaws,
	}
	limits := w.Limits
	if w.Flaws.Has(FewReplicas) {
		limits.Replicas = 1
	}
	w.call = Call{Constants: limits.String(), Limits: limits, Micros: 1, Inbox: "in", Requests: make([]Request, 1)}
	for c := range w.Clients {
		w.ops[c], w.renewals[c] = w.opOf(c), w.renewalOf(c)
	}
	const resolution, delay = time.Second, time.Second
	w.grace = w.ticks(limits.Grace())
	w.ack, w.flight = w.ticks(w.Limits.Lag+resolution+delay), 0
	if w.AckStep {
		w.ack, w.flight = w.ticks(w.Limits.Lag+resolution), w.ticks(delay)
	}
	var s FailoverState
	s.term, s.promote, s.restarts = 1, uint8(w.Promotions), uint8(w.Restarts)
	for i := range w.Nodes {
		s.nodes[i].term = 1
	}
	s.nodes[0].master = true
	for c := len(w.Clients); c < maxClients; c++ {
		s.clients[c].stage = over
	}
	if w.Slots {
		s.moves = uint8(w.Moves)
		for i := range w.Nodes {
			s.nodes[i].master, s.nodes[i].term, s.nodes[i].since = true, uint8(i+1), w.grace
		}
	}
	// The first master has been one for long, and maybe no script has run on it.
	virgin := s
	s.nodes[0].has.epoch, s.nodes[0].has.age = mine, w.grace
	if w.Flaws.Has(RunIDAsTerm) {
		s.nodes[0].has.epoch = runs
	}
	w.settle(&s)
	w.settle(&virgin)
	return []FailoverState{s, virgin}
}

// follows reports whether node r is a live replica of node m.
func (s *FailoverState) follows(r, m int) bool {
	return r != m && !s.nodes[r].master && int(s.nodes[r].from) == m && s.nodes[r].term == s.nodes[m].term
}

// settle lets replicas acknowledge, and brings what makes no difference into one form.
func (w *Failover) settle(s *FailoverState) {
	for m := range w.Nodes {
		n := &s.nodes[m]
		for r := range w.Nodes {
			if s.follows(r, m) {
				n.acks[r], n.flight[r] = w.ack, w.flight
			}
		}
		if n.has.epoch == others || n.has.epoch == missing {
			if !w.Flaws.Has(OwnGraceKey) {
				n.has.age = 0
			}
		}
		if s.restarts == 0 && n.master && !w.mayServe(s, m) {
			n.has = data{}
		}
		if s.promote == 0 && !n.master && !w.Chained {
			n.has, n.acks, n.flight = data{}, [maxNodes]uint8{}, [maxNodes]uint8{}
		}
	}
	// Not where a trace is short to find and easier to read with names that stay.
	if w.Flaws&^(OldAcksCount|TermWhenCutOff|MovedEarly) == 0 {
		w.order(s)
	}
	// Of the terms only the order matters.
	rank := [64]uint8{}
	for i := range w.Nodes {
		rank[s.nodes[i].term] = 1
	}
	next := uint8(0)
	for t, used := range rank {
		if used > 0 {
			next++
			rank[t] = next
		}
	}
	for i := range w.Nodes {
		s.nodes[i].term = rank[s.nodes[i].term]
	}
	s.term = next
}

// order numbers the clients that are alike by what they are up to.
func (w *Failover) order(s *FailoverState) {
	rank := func(c int) uint64 {
		k := &s.clients[c]
		n := uint64(k.stage)<<8 | uint64(k.left)
		for i := range w.Nodes {
			n = n*31 + uint64(s.nodes[i].has.ends[c])<<1 + uint64(s.nodes[i].has.queue>>c&1)
			n = n*31 + uint64(k.known[i])
		}
		n = n*31 + uint64(k.sent)
		n = n*31 + uint64(k.sentLeft)
		if k.released {
			n++
		}
		return n
	}
	for i := 1; i < len(w.Clients); i++ {
		for j := i; j > 0 && w.Clients[j] == w.Clients[j-1] && rank(j) < rank(j-1); j-- {
			s.clients[j], s.clients[j-1] = s.clients[j-1], s.clients[j]
			for i := range w.Nodes {
				h := &s.nodes[i].has
				h.ends[j], h.ends[j-1] = h.ends[j-1], h.ends[j]
				a, b := h.queue>>j&1, h.queue>>(j-1)&1
				h.queue = h.queue&^(3<<(j-1)) | a<<(j-1) | b<<j
			}
		}
	}
}

// mayServe reports whether a master may ever again be acknowledged by enough.
func (w *Failover) mayServe(s *FailoverState, m int) bool {
	n := 0
	for r := range w.Nodes {
		if r != m && (s.nodes[m].acks[r]|s.nodes[m].flight[r] > 0 || s.nodes[r].term < s.nodes[m].term || w.Flaws.Has(Reattach)) {
			n++
		}
	}
	return n >= w.call.Limits.Replicas || w.Flaws.Has(NoReplicas) || w.Flaws.Has(RenewalSkipsGate)
}

// Steps implements World.
func (w *Failover) Steps(s *FailoverState, next func(FailoverState, Step)) {
	emit := func(t FailoverState, verb string, a, b int) {
		w.settle(&t)
		if t != *s {
			next(t, Step{verb, uint8(a), uint8(b)})
		}
	}
	t := *s
	w.tick(&t)
	emit(t, "tick", 0, 0)
	for i := range w.Nodes {
		w.nodeSteps(s, i, emit)
		if !s.nodes[i].master {
			continue
		}
		for c := range w.Clients {
			if w.Known && s.clients[c].known[i] == 0 {
				t := *s
				w.hear(&t, i, c)
				emit(t, "hear", c, i)
			}
			if !w.Slots || int(s.owner) == i {
				w.clientSteps(s, i, c, emit)
			}
		}
		if w.Slots && int(s.owner) == i && s.moves > 0 && (w.Flaws.Has(MovedEarly) || s.nodes[i].since >= w.grace) {
			w.moveSteps(s, i, emit)
		}
	}
	for c := range w.Clients {
		w.lonelySteps(s, c, emit)
	}
}

func less(n uint8) uint8 { return n - min(n, 1) }

// lessAck is less of what may be marked as old.
func lessAck(n uint8) uint8 {
	if n&^old <= 1 {
		return 0
	}
	return n - 1
}

func (w *Failover) tick(s *FailoverState) {
	for i := range w.Nodes {
		n := &s.nodes[i]
		for c := range n.has.ends {
			n.has.ends[c] = less(n.has.ends[c])
		}
		n.has.age = min(n.has.age+1, w.grace)
		if w.Slots {
			n.since = min(n.since+1, w.grace)
		}
		for r := range n.acks {
			n.acks[r], n.flight[r] = lessAck(n.acks[r]), lessAck(n.flight[r])
		}
	}
	for c := range s.clients {
		k := &s.clients[c]
		k.left, k.sentLeft = less(k.left), less(k.sentLeft)
		for i := range k.known {
			if k.known[i] > 0 {
				k.known[i] = min(k.known[i]+1, w.grace+1)
			}
		}
		if k.stage == holds && k.left == 0 && !w.Flaws.Has(LateRevives) {
			k.stage, k.released = over, true
		}
	}
}

// disown notes that what a node has was written in a term that is not its own.
func (n *node) disown() {
	if n.has.epoch == mine {
		n.has.epoch = others
	}
}

func (w *Failover) nodeSteps(s *FailoverState, i int, emit func(FailoverState, string, int, int)) {
	n := &s.nodes[i]
	if !n.master && s.promote > 0 {
		t := *s
		t.promote--
		t.term++
		if w.OldDies {
			for m := range w.Nodes {
				if o := &t.nodes[m]; o.master {
					*o = node{from: uint8(m), term: o.term}
				}
			}
		}
		p := &t.nodes[i]
		p.disown()
		p.master, p.from, p.term = true, 0, t.term
		t.unknown(i)
		for r := range p.acks {
			if p.acks[r] > 0 {
				p.acks[r] |= old
			}
			if p.flight[r] > 0 {
				p.flight[r] |= old
			}
		}
		emit(t, "promote", i, 0)
	}
	if n.master && s.restarts > 0 {
		for lost := range 4 {
			t := *s
			t.restarts--
			t.term++
			p := &t.nodes[i]
			p.disown()
			p.term, p.since, p.acks, p.flight = t.term, 0, [maxNodes]uint8{}, [maxNodes]uint8{}
			t.unknown(i)
			if lost&1 > 0 {
				p.has.ends, p.has.queue = [maxClients]uint8{}, 0
			}
			if lost&2 > 0 {
				p.has.epoch = missing
			}
			emit(t, "restart", i, lost)
		}
	}
	for m := range w.Nodes {
		w.between(s, i, m, emit)
	}
}

// between are the steps of replica r and of whom it follows, or may.
func (w *Failover) between(s *FailoverState, r, m int, emit func(FailoverState, string, int, int)) {
	if r == m || w.Slots {
		return
	}
	n, to := &s.nodes[r], &s.nodes[m]
	newer := to.master && to.term > n.term
	chain := w.Chained && !n.master && !to.master && to.term == n.term && int(to.from) != r && int(n.from) != m
	back := w.Chained && !n.master && to.master && to.term == n.term && int(n.from) != m
	if newer || chain || back || w.Flaws.Has(Reattach) && to.master && !s.follows(r, m) {
		t := *s
		p := &t.nodes[r]
		p.disown()
		p.master, p.term, p.from = false, to.term, uint8(m)
		t.unknown(r)
		emit(t, "follow", r, m)
	}
	if s.follows(r, m) {
		t := *s
		p := &t.nodes[r]
		p.has = to.has
		p.disown()
		// A key ends at a time by the clock of whoever has it.
		for c, left := range p.has.ends {
			if left > 0 {
				p.has.ends[c] = uint8(max(0, int(left)-w.Skew*(r-m)))
			}
		}
		emit(t, "copy", r, m)
	} else if to.flight[r] > 0 {
		t := *s
		t.nodes[m].acks[r], t.nodes[m].flight[r] = w.ack|to.flight[r]&old, 0
		emit(t, "ack", r, m)
	}
}

func (w *Failover) opOf(c int) string {
	k := &w.Clients[c]
	op := string(k.Mode) + "1"
	if w.Queue {
		op = string(k.Mode-'a'+'A') + "1"
	}
	if k.Mode == 'p' {
		op += fmt.Sprintf(" %d %d", w.Limit, k.Weight)
	}
	return op
}

func (w *Failover) renewalOf(c int) string {
	k := &w.Clients[c]
	return fmt.Sprintf("e1 %c %d %d", k.Mode, w.Limit, max(k.Weight, 1))
}

// clientSteps are what client c can do at master i.
func (w *Failover) clientSteps(s *FailoverState, i, c int, emit func(FailoverState, string, int, int)) {
	k := &s.clients[c]
	if k.released {
		t := *s
		w.ask(&t, i, c, "r")
		emit(t, "release", c, i)
	}
	if w.Clients[c].Late {
		if k.sent > 0 {
			w.arrives(s, i, c, emit)
		}
		return
	}
	switch k.stage {
	case wants:
		t := *s
		w.acquired(&t.clients[c], w.ask(&t, i, c, w.ops[c]), now, c)
		emit(t, "acquire", c, i)
	case holds:
		t := *s
		w.renewed(&t.clients[c], w.ask(&t, i, c, w.renewals[c]), now, c)
		emit(t, "renew", c, i)
	}
}

func (w *Failover) acquired(k *client, a protocol.Answer, sent driver.Instant, c int) {
	if g, ok := a.Grant(sent); ok && k.stage == wants {
		w.granted(k, g, w.Clients[c].TTL)
	}
}

func (w *Failover) renewed(k *client, a protocol.Answer, sent driver.Instant, c int) {
	if k.stage != holds {
		return
	}
	switch a.Renewal() {
	case protocol.Renewed:
		w.granted(k, driver.Grant{Sent: sent}, w.Clients[c].TTL)
	case protocol.Lost:
		k.stage, k.left, k.released = over, 0, true
	}
}

// arrives carries out a request that was under way. Its answer comes at once, or never.
func (w *Failover) arrives(s *FailoverState, i, c int, emit func(FailoverState, string, int, int)) {
	k := s.clients[c]
	sent := now.Add(time.Duration(k.sentLeft)*w.Tick - w.Clients[c].TTL)
	t, op, verb := *s, w.ops[c], "acquire"
	if k.sent == 'r' {
		op, verb = w.renewals[c], "renew"
	}
	answer := w.ask(&t, i, c, op)
	t.clients[c].sent, t.clients[c].sentLeft = 0, 0
	lost := t
	lost.clients[c].stage, lost.clients[c].left = k.stage, k.left
	emit(lost, verb+" without answer", c, i)
	if k.sent == 'r' {
		w.renewed(&t.clients[c], answer, sent, c)
	} else {
		w.acquired(&t.clients[c], answer, sent, c)
	}
	emit(t, verb, c, i)
}

// lonelySteps are what client c can do without a server.
func (w *Failover) lonelySteps(s *FailoverState, c int, emit func(FailoverState, string, int, int)) {
	k := &s.clients[c]
	if k.stage == holds && k.left > 0 || w.Clients[c].Late && k.stage == wants {
		t := *s
		t.clients[c].stage, t.clients[c].left, t.clients[c].released = over, 0, true
		emit(t, "give up", c, 0)
	}
	if w.Clients[c].Late && k.sent == 0 && k.stage != over {
		t := *s
		t.clients[c].sent, t.clients[c].sentLeft = 'a', w.ticks(w.Clients[c].TTL)
		if k.stage == holds {
			t.clients[c].sent = 'r'
		}
		emit(t, "send", c, 0)
	}
}

// Wrong implements World.
func (w *Failover) Wrong(s *FailoverState) string {
	holders, weight := 0, int64(0)
	exclusive := false
	for c := range w.Clients {
		if s.clients[c].left > 0 {
			holders++
			weight += w.Clients[c].Weight
			exclusive = exclusive || w.Clients[c].Mode == 'x'
		}
	}
	if exclusive && holders > 1 {
		return "two holders"
	}
	if w.Limit > 0 && weight > w.Limit {
		return "more permits than there are"
	}
	return ""
}
