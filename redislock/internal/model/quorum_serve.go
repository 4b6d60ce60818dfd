package model

import (
	"fmt"
	"strings"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// epochNames are the epochs of seeded nodes; those of others are words.
var epochNames = [...]string{"-", "E1", "E2", "E3"}

// wordOf is what a node that is not seeded is known by.
func wordOf(c *column) string {
	words := [...]string{"-f0", "-f1", "-f2", "-f3"}
	if c.state == blank {
		words = [...]string{"-v0", "-v1", "-v2", "-v3"}
	}
	return words[c.epoch-unseeded]
}

// nameOf is the epoch that a node says it is in.
func nameOf(c *column) string {
	if c.epoch >= unseeded {
		return wordOf(c)
	}
	return epochNames[c.epoch]
}

const (
	qMicros = instant * 1000
	forever = 1_000_000 // ms
)

// load puts what a node has into the node that the scripts run on.
func (w *Quorum) load(c *column) {
	n := &w.node
	n.Micros, n.Flaws, n.Ahead = qMicros, w.Flaws, w.Ahead
	n.Top, n.HasTop = int64(c.top), c.state != blank
	n.Record = QuorumRecord{Set: true, Term: n.Term, Epoch: nameOf(c), Floor: int64(c.floor), Mark: int64(c.mark), Since: instant, Constants: w.constants}
	switch {
	case c.state == blank && c.epoch == 0:
		n.Record = QuorumRecord{}
	case c.state == forgetful && c.epoch == 0:
		n.Record.Term, n.Record.Epoch = "old", "E1"
	case c.state == inGrace:
		n.Record.Start = instant
		if w.TTL > 0 {
			n.Record.Start += int64(c.grace)*w.Tick.Milliseconds() - w.constants.Grace().Milliseconds()
		}
	}
	l := &n.Locks[0]
	*l = QuorumLock{Count: int64(c.count), CountEnds: instant + forever}
	if c.holder > 0 {
		l.Kind, l.Ends = Exclusive, instant+forever
		l.Value = Value{ID: tokens[c.holder-1], First: int64(c.first), More: int64(c.last - c.first)}
		if w.TTL > 0 {
			l.Ends = instant + int64(c.left)*w.Tick.Milliseconds()
		}
	}
}

// store takes what the scripts left.
func (w *Quorum) store(s *QuorumState, c *column) {
	n, l := &w.node, &w.node.Locks[0]
	c.top, c.count = uint8(n.Top), uint8(l.Count)
	c.holder, c.first, c.last = 0, 0, 0
	if l.Kind == Exclusive {
		c.holder = uint8(strings.IndexByte("ABC", l.Value.ID[len(l.Value.ID)-1])) + 1
		c.first, c.last = uint8(l.Value.First), uint8(l.last())
		if w.TTL > 0 {
			c.left = uint8((l.Ends - instant + w.Tick.Milliseconds() - 1) / w.Tick.Milliseconds())
		}
	} else {
		c.left = 0
	}
	r := &n.Record
	if !r.Set {
		return
	}
	c.floor, c.mark = uint8(r.Floor), uint8(r.Mark)
	switch {
	case r.Epoch[0] == 'E' && r.Term == n.Term:
		epoch := r.Epoch[1] - '0'
		if c.epoch != epoch && (c.state == blank || c.state == forgetful) {
			c.state, c.grace = inGrace, w.grace
			if r.Start == 0 {
				c.state, c.grace = serving, 0
			}
		}
		c.epoch = epoch
	case r.Epoch[0] == '-' && c.epoch == 0:
		c.epoch = unseeded + s.forgets
	}
}

// ask lets node j carry out a request of attempt a.
func (w *Quorum) ask(s *QuorumState, a, j int, op byte, epoch uint8, clock uint8) reply {
	c := &s.nodes[j]
	w.load(c)
	if op != 'e' {
		w.node.Flaws &^= RenewByToken | RenewTakesBack
	}
	token := a
	if a == 1 && w.Flaws.Has(OneToken) {
		token = 0
	}
	k := &s.tries[a]
	q := QuorumRequest{Op: op, ID: tokens[token], TTL: 1000}
	if w.TTL > 0 {
		q.TTL = w.TTL.Milliseconds()
	}
	switch op {
	case 'x':
		q.A, q.B = int64(w.Tries[a].Span), int64(clock)
	case 'v':
		q.A, q.B = int64(k.last), int64(k.last-k.first)+1
	case 'e':
		q.Op, q.A, q.B = 'v', int64(k.last), 1
		if k.next > 0 {
			q.A = int64(k.next)
		}
	case 'm':
		q.A, q.B = int64(k.last), int64(k.next)
	}
	w.call.Requests[0], w.call.Epoch = q, epochNames[epoch]
	if w.Flaws.Has(EpochsMix) {
		w.call.Epoch = nameOf(c)
	}
	if _, ok := w.node.Call(&w.call, w.words[:]); !ok {
		panic("refused")
	}
	w.store(s, c)
	r := &w.words[0]
	return reply{r.Kind, uint8(r.N), uint8(r.Span)}
}

// messages are those of attempt a that node j may carry out.
func (w *Quorum) messages(s *QuorumState, a, j int, emit func(QuorumState, string, int, int)) {
	k := &s.tries[a]
	if k.stage == idle {
		return
	}
	clocks := []uint8{w.Tries[a].Clock, 0}
	if !w.Clamps {
		clocks = clocks[:1]
	}
	bit := uint8(1) << a
	if w.TTL > 0 {
		w.freed(s, a, j, emit)
	}
	first := s.nodes[j].carried&bit == 0
	for _, clock := range clocks {
		t := *s
		if w.TTL == 0 && t.nodes[j].holder > 0 {
			if k.stage == asking && !first { // it is told again what it was granted
				t := *s
				w.answer(&t, a, j, w.ask(&t, a, j, 'x', k.asked, clock), "asks again", emit)
			}
			t.nodes[j].free()
		}
		if !first {
			if t.copies == 0 {
				break
			}
			t.copies--
		}
		r := w.ask(&t, a, j, 'x', k.asked, clock)
		t.nodes[j].carried |= bit
		emit(t, "asks without an answer", a, j)
		if k.stage == asking {
			w.answer(&t, a, j, r, "asks", emit)
		}
	}
	if !k.vouched {
		return
	}
	if k.next > 0 { // it may be late
		t := *s
		r := w.ask(&t, a, j, 'm', k.epoch, 0)
		emit(t, "moves without an answer", a, j)
		if k.stage == moving {
			w.answer(&t, a, j, r, "moves", emit)
			return
		}
	}
	op := byte('v')
	if k.stage == renewing {
		op = 'e'
	}
	t := *s
	if w.Flaws.Has(RenewTakesBack) && op == 'e' && t.nodes[j].holder != uint8(a)+1 {
		t.nodes[j].free()
	}
	r := w.ask(&t, a, j, op, k.epoch, 0)
	emit(t, "vouches without an answer", a, j)
	if (k.stage == vouching || k.stage == renewing) && s.nodes[j].answers[a].kind == protocol.Pending {
		w.answer(&t, a, j, r, "vouches", emit)
	}
}

func (c *column) free() { c.holder, c.first, c.last, c.left = 0, 0, 0, 0 }

// answer lets an answer arrive. Only those matter that bring an attempt further, for the others
// make it give up at most.
func (w *Quorum) answer(s *QuorumState, a, j int, r reply, verb string, emit func(QuorumState, string, int, int)) {
	if r.kind != protocol.Granted && r.kind != protocol.Done {
		return
	}
	s.nodes[j].answers[a] = r
	// Who has what it needs may as well say so at once: it would say the same later.
	if !w.Flaws.Has(LeaseFromAnswer) {
		enough := false
		w.decide(s, a, func(t QuorumState, what string, a, b int) {
			if strings.HasPrefix(what, "has") {
				enough = true
				emit(t, verb+" and "+what, a, j)
			}
		})
		if enough {
			return
		}
	}
	emit(*s, verb, a, j)
}

// freed lets node j carry out that the attempt is over.
func (w *Quorum) freed(s *QuorumState, a, j int, emit func(QuorumState, string, int, int)) {
	if s.tries[a].stage == ended {
		t := *s
		w.ask(&t, a, j, 'd', 0, 0)
		emit(t, "gives back", a, j)
	}
}

// healSteps are the messages of a healer that node j may carry out.
func (w *Quorum) healSteps(s *QuorumState, h, j int, emit func(QuorumState, string, int, int)) {
	k, bit := &s.healers[h], uint8(1)<<h
	if k.stage == looking && s.nodes[j].seen[h] == 0 {
		if h > 0 && !begun(s, h-1) {
			return // they are alike
		}
		t := *s
		if w.AtOnce {
			for j := range int(w.Nodes) {
				w.look(&t, h, j)
			}
		} else {
			w.look(&t, h, j)
		}
		emit(t, "looks at", h, j)
		return
	}
	if k.stage == looking || s.nodes[j].seen[h] == 0 || s.nodes[j].seen[h] == spent {
		return
	}
	seen := s.nodes[j].seen[h] - 1
	was := column{epoch: seen, state: s.nodes[j].state}
	if seen >= unseeded {
		if k.stage == seeding {
			t := *s
			w.tend(&t, h, j, "seed", nameOf(&was))
			emit(t, "seeds", h, j)
		}
		return
	}
	if w.Flaws.Has(ReseedWithoutEpoch) {
		return
	}
	t := *s
	top, done := w.tend(&t, h, j, "raise", nameOf(&was))
	if !done {
		return
	}
	emit(t, "raises without an answer", h, j)
	if k.stage == raising {
		t.nodes[j].raised |= bit
		t.healers[h].floor = max(k.floor, top)
		emit(t, "raises", h, j)
	}
}

func (w *Quorum) look(s *QuorumState, h, j int) {
	top, _ := w.tend(s, h, j, "status", "")
	c := &s.nodes[j]
	c.seen[h] = c.epoch + 1
	if w.Flaws.Has(ReseedWithoutEpoch) && c.epoch < unseeded {
		s.healers[h].floor = max(s.healers[h].floor, top)
	}
}

func begun(s *QuorumState, h int) bool {
	for j := range s.nodes {
		if s.nodes[j].seen[h] > 0 {
			return true
		}
	}
	return false
}

// tend lets node j carry out a call of healer h.
func (w *Quorum) tend(s *QuorumState, h, j int, op, seen string) (top uint8, done bool) {
	c := &s.nodes[j]
	w.load(c)
	w.heal = QuorumHeal{Constants: w.constants, Op: op, Word: epochNames[2+h], Seen: seen, Floor: int64(s.healers[h].floor), None: w.TTL == 0}
	if w.Flaws.Has(ReseedWithoutEpoch) {
		w.heal.Word = epochNames[1]
	}
	status, done, ok := w.node.Heal(&w.heal)
	if !ok {
		panic("refused")
	}
	w.store(s, c)
	return uint8(status.Top), done
}

// healerDecides is what a healer does once it has seen or raised enough.
func (w *Quorum) healerDecides(s *QuorumState, h int, emit func(QuorumState, string, int, int)) {
	q := w.Nodes
	if w.Flaws.Has(SeedAfterTooFew) {
		q = protocol.Quorum(2*q.Majority() - 3)
	}
	var nodes [maxQuorum]protocol.NodeStatus
	n := 0
	for j := range w.Nodes {
		c := &s.nodes[j]
		switch {
		case s.healers[h].stage == raising:
			if c.raised&(1<<h) > 0 {
				nodes[n] = protocol.NodeStatus{Top: int64(s.healers[h].floor)}
				n++
			}
		case c.seen[h] == 0:
		case c.seen[h]-1 >= unseeded:
			nodes[j].State = protocol.Forgetful
		default:
			nodes[j].State, nodes[j].Epoch = protocol.Serving, epochNames[c.seen[h]-1]
		}
	}
	t := *s
	switch s.healers[h].stage {
	case looking:
		if q.Needs(nodes[:w.Nodes]) == protocol.Heal {
			t.healers[h].stage = raising
			if w.Flaws.Has(ReseedWithoutEpoch) {
				t.healers[h].stage = seeding
			}
			emit(t, "has seen enough", h, 0)
		}
	case raising:
		if _, enough := q.Floor(nodes[:n]); enough {
			t.healers[h].stage = seeding
			emit(t, "has raised enough", h, 0)
		}
	}
}

// Say implements World.
func (w *Quorum) Say(step Step, after *QuorumState) string {
	var what string
	switch {
	case step.Verb == "tick":
		what = fmt.Sprintf("%v passes", w.Tick)
	case strings.HasSuffix(step.Verb, " at"), strings.HasSuffix(step.Verb, " by"):
		what = step.Verb + " a node"
	case strings.HasPrefix(step.Verb, "raise"), strings.HasPrefix(step.Verb, "seed"), strings.HasPrefix(step.Verb, "looks"),
		strings.HasPrefix(step.Verb, "has seen"), strings.HasPrefix(step.Verb, "has raised"):
		what = fmt.Sprintf("healer %d %s", step.A, step.Verb)
	default:
		what = fmt.Sprintf("%c %s", 'A'+step.A, step.Verb)
	}
	var b strings.Builder
	for j := range w.Nodes {
		c := &after.nodes[j]
		fmt.Fprintf(&b, " %c%d(", "sgfv"[c.state], c.epoch)
		if c.holder > 0 {
			fmt.Fprintf(&b, "%c%d-%d ", '@'+c.holder, c.first, c.last)
		}
		fmt.Fprintf(&b, "c%d t%d)", c.count, c.top)
	}
	for a := range w.Tries {
		if k := &after.tries[a]; k.won {
			fmt.Fprintf(&b, " %c has %d-%d", 'A'+a, k.first, k.last)
		}
	}
	return fmt.Sprintf("%-34s%s", what, b.String())
}
