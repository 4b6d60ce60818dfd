package model

import (
	"bytes"
	"time"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// The most that a state has room for.
const (
	maxQuorum  = 5
	maxTries   = 3
	maxHealers = 2
)

// Quorum is a deployment of independent nodes, attempts to lock one name, and healers. Messages
// may be carried out any time after they were sent, in any order, or never; so may answers
// arrive. Copies of the first request of an attempt count against a limit, for each may take a
// node anew; all else may be copied for ever.
//
// There are two kinds of time. Without TTL, the key of an attempt may be gone at any moment,
// and a grace be over at once: then only fences are looked at, for they must hold whatever
// clocks do. That a key is gone is a step together with what then takes it, for whatever else
// comes of that might as well not have been carried out. With TTL, time goes in ticks, as in
// Failover, and nobody may believe in a lease beside somebody else.
type Quorum struct {
	Nodes   protocol.Quorum
	Tries   []Try
	Healers int
	Blank   int   // nodes that have forgotten already
	Healed  bool  // a healer has been at work before, and messages of its may be under way
	Forgets int   // how often a node forgets
	Stale   bool  // what it loses may be its last steps only
	Copies  int   // of first requests
	Renews  int   // rounds of each holder
	Moves   bool  // a holder may ask for another number, once
	Clamps  bool  // a node may not accept the clock that is proposed
	AtOnce  bool  // healers look at all nodes at once
	RunOut  bool  // counters may run out
	Ahead   int64 // of top, see QuorumNode

	TTL, Tick time.Duration

	Flaws QuorumFlaws

	node      QuorumNode
	call      QuorumCall
	words     [1]QuorumWord
	constants protocol.QuorumConstants
	heal      QuorumHeal
	lease     uint8 // ticks
	grace     uint8 // ticks, or 1
}

// Try is an attempt: the clock that it proposes, and how many numbers it asks for.
type Try struct {
	Clock, Span uint8
}

// QuorumState is a state. The nodes are in an order of their own, for they are alike.
type QuorumState struct {
	nodes   [maxQuorum]column
	tries   [maxTries]attempt
	healers [maxHealers]healer
	forgets uint8 // left
	copies  uint8 // left
	wrong   uint8
}

// column is a node, and what everybody knows of it.
type column struct {
	holder, first, last uint8 // of the key: attempt + 1; its numbers
	left                uint8 // ticks until the key ends
	count               uint8 // 0 for none
	floor, mark, top    uint8
	state, epoch        uint8
	grace               uint8 // ticks

	carried uint8             // bits: the first request of the attempt was carried out
	answers [maxTries]reply   // to the round that each is in
	seen    [maxHealers]uint8 // the epoch that a healer saw, + 1
	raised  uint8             // bits: the healer was answered to its raise
}

// reply is an answer.
type reply struct{ kind, n, span uint8 }

// The states of nodes.
const (
	serving uint8 = iota
	inGrace
	forgetful
	blank
)

// What an epoch is: 0 for no word, 1 for the first, 2 and on those of the healers; with
// unseeded, the word of a node that forgot when so many times were left.
const unseeded = 0x40

type attempt struct {
	stage       uint8
	asked       uint8 // the epoch of its first round
	epoch       uint8 // of the round
	first, last uint8 // its numbers
	next        uint8 // the number that it asks for besides, and was given once it is not moving
	won         bool  // they were handed out
	vouched     bool  // there was a round that asked for vouches
	need        uint8 // what was handed out before it began
	overtaken   bool  // larger numbers were handed out before the renewal began
	renews      uint8 // left
	age         uint8 // ticks since the round began
	left        uint8 // ticks for which it believes to hold
}

// The stages of an attempt.
const (
	idle uint8 = iota
	asking
	vouching
	holding
	renewing
	moving
	ended
)

type healer struct {
	stage uint8
	floor uint8
}

// The stages of a healer.
const (
	looking uint8 = iota
	raising
	seeding
)

// What is wrong.
const (
	duplicate uint8 = iota + 1
	disorder
	revival
	together
)

var wrongs = [...]string{"", "a number twice", "a smaller number after a larger one", "a lease renewed that others have followed", "two holders"}

func (c *column) key() [36]byte {
	k := [36]byte{c.holder, c.first, c.last, c.left, c.count, c.floor, c.mark, c.top, c.state, c.epoch, c.grace, c.carried, c.raised, c.seen[0], c.seen[1]}
	for i, a := range c.answers {
		k[15+3*i], k[16+3*i], k[17+3*i] = a.kind, a.n, a.span
	}
	return k
}

// Start implements World.
func (w *Quorum) Start() []QuorumState {
	w.constants = protocol.QuorumConstants{MaxTTL: time.Second, Nodes: w.Nodes}
	w.grace = 1
	if w.TTL > 0 {
		w.constants.MaxTTL = w.TTL
		w.lease = uint8(w.TTL / w.Tick)
		w.grace = uint8((w.constants.Grace() + w.Tick - 1) / w.Tick)
	}
	w.node = QuorumNode{Term: "aa", Locks: make([]QuorumLock, 1), Flaws: w.Flaws}
	w.call = QuorumCall{Constants: w.constants, Inbox: "in", Requests: make([]QuorumRequest, 1)}
	var s QuorumState
	s.forgets, s.copies = uint8(w.Forgets), uint8(w.Copies)
	for j := range w.Nodes {
		s.nodes[j].epoch = 1
	}
	for j := range w.Blank {
		s.nodes[j] = column{state: blank}
	}
	if w.Healed {
		s.healers[0].stage = seeding
		for j := range w.Nodes {
			s.nodes[j].epoch, s.nodes[j].seen[0] = 2, 2
		}
		s.nodes[0].seen[0] = unseeded + 2 // the one that it was for
	}
	for a := range w.Tries {
		s.tries[a].renews = uint8(w.Renews)
	}
	return []QuorumState{s}
}

// settle brings what makes no difference into one form.
func (w *Quorum) settle(s *QuorumState) {
	all := s.nodes[:w.Nodes]
	if w.Forgets == 0 && w.Healers == 0 && !w.RunOut {
		for j := range all {
			all[j].top = 0 // nobody asks for it
		}
	}
	for h := range w.Healers {
		w.tidy(s, h)
	}
	for i := 1; i < len(all); i++ {
		for j := i; j > 0; j-- {
			a, b := all[j].key(), all[j-1].key()
			if bytes.Compare(a[:], b[:]) >= 0 {
				break
			}
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
}

// spent stands for the epoch that a healer saw where it can do nothing there any more: a node
// is never in the same epoch again.
const spent = 0xff

// tidy forgets what can make no difference to a healer any more.
func (w *Quorum) tidy(s *QuorumState, h int) {
	k := &s.healers[h]
	if k.stage == looking || h == 0 && w.Flaws.Has(RaiseWithoutComparing|SeedWithoutComparing) {
		return
	}
	left := false
	for j := range w.Nodes {
		c := &s.nodes[j]
		if c.seen[h] != c.epoch+1 {
			c.seen[h] = spent
		}
		if k.stage == seeding {
			c.raised &^= 1 << h
		}
		left = left || c.seen[h] != spent
	}
	if k.stage == seeding && !left {
		k.floor = 0
	}
}

// Steps implements World.
func (w *Quorum) Steps(s *QuorumState, next func(QuorumState, Step)) {
	emit := func(t QuorumState, verb string, a, b int) {
		w.settle(&t)
		if t != *s {
			next(t, Step{verb, uint8(a), uint8(b)})
		}
	}
	if w.TTL > 0 {
		t := *s
		w.tick(&t)
		emit(t, "tick", 0, 0)
	}
	for j := range int(w.Nodes) {
		if j > 0 && s.nodes[j] == s.nodes[j-1] {
			continue // the same again
		}
		w.nodeSteps(s, j, emit)
		for a := range w.Tries {
			w.messages(s, a, j, emit)
		}
		for h := range w.Healers {
			w.healSteps(s, h, j, emit)
		}
	}
	for a := range w.Tries {
		w.decide(s, a, emit)
	}
	for h := range w.Healers {
		w.healerDecides(s, h, emit)
	}
}

func (w *Quorum) tick(s *QuorumState) {
	for j := range s.nodes {
		c := &s.nodes[j]
		c.grace = less(c.grace)
		if c.state == inGrace && c.grace == 0 {
			c.state = serving
		}
		if c.left = less(c.left); c.left == 0 {
			c.holder, c.first, c.last = 0, 0, 0
		}
	}
	for a := range s.tries {
		k := &s.tries[a]
		k.left = less(k.left)
		switch {
		case (k.stage == holding || k.stage == renewing) && k.left == 0:
			w.ends(s, a)
		case k.stage == asking || k.stage == vouching || k.stage == renewing:
			if k.age = min(k.age+1, w.lease); k.age == w.lease && !w.Flaws.Has(LeaseFromAnswer) {
				w.ends(s, a) // what it is answered from now on is too late
			}
		}
	}
}

// ends lets an attempt believe no longer.
func (w *Quorum) ends(s *QuorumState, a int) {
	k := &s.tries[a]
	k.stage, k.left, k.age, k.need, k.overtaken, k.renews = ended, 0, 0, 0, false, 0
	w.forget(s, a)
}

// nodeSteps are what happens to a node by itself.
func (w *Quorum) nodeSteps(s *QuorumState, j int, emit func(QuorumState, string, int, int)) {
	c := &s.nodes[j]
	if w.RunOut && c.state == serving {
		t := *s
		t.nodes[j].mark = c.top
		emit(t, "the mark follows at", 0, j)
		if c.count <= c.mark || w.Flaws.Has(CountersRunOut) {
			t := *s
			t.nodes[j].count = 0
			emit(t, "the counter runs out at", 0, j)
		}
	}
	if s.forgets == 0 {
		return
	}
	t := *s
	t.forgets--
	o := column{carried: c.carried, answers: c.answers, seen: c.seen, raised: c.raised, state: blank}
	if w.Flaws.Has(NoEpoch) {
		o.state, o.epoch = serving, c.epoch
	}
	t.nodes[j] = o
	emit(t, "all is forgotten by", 0, j)
	if !w.Stale {
		return
	}
	// It restarts with its key or without, and without its last number.
	for kept := *c; ; kept.holder, kept.first, kept.last, kept.left = 0, 0, 0, 0 {
		o = kept
		o.state, o.epoch, o.floor, o.mark, o.grace = forgetful, 0, 0, 0, 0
		if w.Flaws.Has(NoEpoch) {
			o.state, o.epoch = serving, c.epoch
		}
		o.count, o.top = less(c.count), less(c.top)
		t.nodes[j] = o
		emit(t, "the last number is forgotten by", 0, j)
		if kept.holder == 0 {
			return
		}
	}
}

// begin starts a round in any epoch that a node is in: the attempt may have learned it.
func (w *Quorum) begin(s *QuorumState, a int, stage uint8, emit func(QuorumState, string, int, int), verb string) {
	var known [256]bool
	for j := range w.Nodes {
		c := &s.nodes[j]
		if c.epoch == 0 || c.epoch >= unseeded || known[c.epoch] {
			continue
		}
		known[c.epoch] = true
		t := *s
		k := &t.tries[a]
		k.stage, k.epoch, k.age = stage, c.epoch, 0
		if stage == asking {
			k.asked = c.epoch
		} else {
			k.vouched = true
		}
		w.forget(&t, a)
		emit(t, verb, a, int(c.epoch))
	}
}

// forget drops the answers to a round that is over.
func (w *Quorum) forget(s *QuorumState, a int) {
	for j := range w.Nodes {
		s.nodes[j].answers[a] = reply{}
	}
}

// decide is what an attempt does on the answers that it has.
func (w *Quorum) decide(s *QuorumState, a int, emit func(QuorumState, string, int, int)) {
	k := &s.tries[a]
	var answers [maxQuorum]protocol.Answer
	for j := range w.Nodes {
		r := s.nodes[j].answers[a]
		answers[j] = protocol.Answer{Kind: r.kind, N: int64(r.n), Span: int(r.span)}
	}
	round := answers[:w.Nodes]
	q := w.Nodes
	if w.Flaws.Has(Minority) {
		q = protocol.Quorum(2*q.Majority() - 3)
	}
	switch k.stage {
	case idle:
		if a > 0 && s.tries[a-1].stage == idle && w.Tries[a-1] == w.Tries[a] {
			return // attempts that are alike begin in their order
		}
		t := *s
		for b := range w.Tries {
			t.tries[a].need = max(t.tries[a].need, s.tries[b].most())
		}
		w.begin(&t, a, asking, emit, "begins")
	case asking:
		r, last, span := q.Acquired(round)
		t := *s
		t.tries[a].first, t.tries[a].last = uint8(last)-uint8(span)+1, uint8(last)
		switch {
		case r == protocol.Won || r == protocol.Split && w.Flaws.Has(NoSecondRound):
			w.wins(&t, a)
			emit(t, "has won", a, 0)
		case r == protocol.Split:
			w.begin(&t, a, vouching, emit, "begins a second round")
		}
	case vouching:
		if q.Vouched(round) == protocol.Won {
			t := *s
			w.wins(&t, a)
			emit(t, "has won", a, 0)
		}
	case holding:
		w.goesOn(s, a, emit)
	case moving:
		if q.Vouched(round) == protocol.Won {
			t := *s
			w.moved(&t, a)
			emit(t, "has moved", a, 0)
		}
	case renewing:
		w.renewed(s, a, q.Renewal(round), emit)
	}
	if w.TTL > 0 && (k.stage == holding || k.stage == renewing) {
		t := *s
		w.ends(&t, a)
		emit(t, "gives up", a, 0)
	}
}

// wins hands the numbers out, and looks whether that is right.
func (w *Quorum) wins(s *QuorumState, a int) {
	k := &s.tries[a]
	if !w.believes(k) {
		w.ends(s, a)
		return
	}
	for b := range w.Tries {
		if o := &s.tries[b]; b != a && o.won && (o.first <= k.last && k.first <= o.last || o.most() >= k.first && o.most() <= k.last) {
			s.wrong = duplicate
		}
	}
	if k.first <= k.need {
		s.wrong = disorder
	}
	k.stage, k.won, k.need, k.age = holding, true, 0, 0
	w.forget(s, a)
	w.alone(s)
}

// goesOn is what a holder may begin: a renewal, or to ask for another number.
func (w *Quorum) goesOn(s *QuorumState, a int, emit func(QuorumState, string, int, int)) {
	k := &s.tries[a]
	if k.renews > 0 {
		t := *s
		t.tries[a].renews--
		for b := range w.Tries {
			if b != a && s.tries[b].most() > k.most() {
				t.tries[a].overtaken = true
			}
		}
		w.begin(&t, a, renewing, emit, "begins to renew")
	}
	if w.Moves && k.next == 0 {
		t := *s
		n := &t.tries[a]
		n.next = k.last + 1
		for b := range w.Tries {
			n.need = max(n.need, s.tries[b].most())
		}
		w.begin(&t, a, moving, emit, "begins to move")
	}
}

// most is the largest number that was handed out to the attempt, 0 for none.
func (k *attempt) most() uint8 {
	switch {
	case !k.won:
		return 0
	case k.next > 0 && k.stage != moving:
		return k.next
	}
	return k.last
}

// moved hands out the number that a holder asked for, and looks whether that is right.
func (w *Quorum) moved(s *QuorumState, a int) {
	k := &s.tries[a]
	for b := range w.Tries {
		if o := &s.tries[b]; b != a && o.won && (o.first <= k.next && k.next <= o.last || o.most() == k.next) {
			s.wrong = duplicate
		}
	}
	if k.next <= k.need {
		s.wrong = disorder
	}
	k.stage, k.need = holding, 0
	w.forget(s, a)
}

// believes lets an attempt hold from when its round began, if there is time left of that.
func (w *Quorum) believes(k *attempt) bool {
	if w.TTL == 0 {
		return true
	}
	if w.Flaws.Has(LeaseFromAnswer) {
		k.left = w.lease
		return true
	}
	age := time.Duration(k.age) * w.Tick
	if protocol.Left(now.Add(-age), now, w.TTL) <= 0 {
		return false
	}
	k.left = w.lease - k.age
	return true
}

func (w *Quorum) alone(s *QuorumState) {
	n := 0
	for a := range s.tries {
		if s.tries[a].left > 0 {
			n++
		}
	}
	if n > 1 {
		s.wrong = together
	}
}

func (w *Quorum) renewed(s *QuorumState, a int, v protocol.Verdict, emit func(QuorumState, string, int, int)) {
	t := *s
	k := &t.tries[a]
	switch v {
	case protocol.Renewed:
		if k.overtaken {
			t.wrong = revival
		}
		k.stage, k.overtaken = holding, false
		w.forget(&t, a)
		w.believes(k)
		k.age = 0
		w.alone(&t)
		emit(t, "has renewed", a, 0)
	case protocol.Lost:
		w.ends(&t, a)
		emit(t, "has lost", a, 0)
	}
}

// Wrong implements World.
func (w *Quorum) Wrong(s *QuorumState) string { return wrongs[s.wrong] }
