package model

import (
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// load puts what a node has into the server that the scripts run on.
func (w *Failover) load(s *FailoverState, i int) {
	n := &s.nodes[i]
	v := &w.server
	ms := w.Tick.Milliseconds()
	v.Term, v.Counter = termNames[mine], 0
	v.Epoch = Epoch{Set: n.has.epoch != missing, Constants: w.call.Constants, Start: instant - int64(n.has.age)*ms}
	switch e := n.has.epoch; {
	case w.Flaws.Has(RunIDAsTerm):
		v.Term = strconv.Itoa(i)
		v.Epoch.Term = strconv.Itoa(int(e) - int(runs))
	case e != missing:
		v.Epoch.Term = termNames[e]
	}
	if n.has.age >= w.grace {
		v.Epoch.Start -= int64(w.grace) * ms
	}
	k := 0
	for r := range w.Nodes {
		if r == i {
			continue
		}
		a := Acks{Online: true, Lag: 1000}
		if n.acks[r]&^old > 0 || w.Flaws.Has(NoReplicas) {
			a.Lag = 0
		}
		if n.acks[r]&old == 0 {
			a.Offset = 1
		}
		v.Replicas[k] = a
		k++
	}
	l := w.lock
	*l = Lock{Members: l.Members[:0], Queue: l.Queue[:0], QueueEnds: instant + keepFor}
	for c := range w.Clients {
		if n.has.queue&(1<<c) > 0 {
			l.Queue = append(l.Queue, Entry{Inbox: "in", Mode: 'x', Weight: 1, TTL: w.Clients[c].TTL.Milliseconds(), Span: 1, ID: tokens[c], Order: int64(c) + 1, Seen: instant})
		}
		left := n.has.ends[c]
		if left == 0 {
			continue
		}
		k, ends := &w.Clients[c], instant+int64(left)*ms
		if k.Mode == 'x' {
			l.Kind, l.Value, l.Ends = Exclusive, Value{ID: tokens[c]}, ends
			continue
		}
		l.Kind, l.Limit, l.Held, l.Ends = Group, w.Limit, l.Held+k.Weight, max(l.Ends, ends)
		l.Members = append(l.Members, Member{Token: tokens[c], Mode: k.Mode, Weight: k.Weight, Ends: ends})
	}
}

// store takes what the scripts left.
func (w *Failover) store(s *FailoverState, i int) {
	n := &s.nodes[i]
	v, l := &w.server, w.lock
	ms := w.Tick.Milliseconds()
	if v.Epoch.Set {
		n.has.epoch = mine
		if w.Flaws.Has(RunIDAsTerm) {
			e, _ := strconv.Atoi(v.Epoch.Term)
			n.has.epoch = runs + uint8(e)
		} else if v.Epoch.Term == termNames[others] {
			n.has.epoch = others
		}
		n.has.age = uint8(min((instant-v.Epoch.Start)/ms, int64(w.grace)))
	}
	n.has.ends, n.has.queue = [maxClients]uint8{}, 0
	for c := range w.Clients {
		ends := int64(instant)
		if m := l.find(tokens[c]); m != nil {
			ends = m.Ends
		} else if l.Kind == Exclusive && l.Value.ID == tokens[c] {
			ends = l.Ends
		}
		n.has.ends[c] = uint8((ends - instant + ms - 1) / ms)
		for _, e := range l.Queue {
			if e.ID == tokens[c] {
				n.has.queue |= 1 << c
			}
		}
	}
}

// ask lets node i carry out a request of client c.
func (w *Failover) ask(s *FailoverState, i, c int, op string) protocol.Answer {
	w.load(s, i)
	q := &w.call.Requests[0]
	*q = Request{Key: key, Op: op, ID: tokens[c], TTL: w.Clients[c].TTL.Milliseconds()}
	k := &s.clients[c]
	term := knownTerm(k.known[i], w.Tick)
	w.call.Known = ""
	if w.Known {
		w.call.Known = term.Known(now)
	}
	w.server.Flaws = w.Flaws
	if w.Flaws.Has(OpenToStrangers) && !k.met {
		w.server.Flaws |= MissingIsOpen
	}
	reply := w.server.Call(&w.call)
	w.store(s, i)
	for _, m := range w.server.Published {
		w.push(s, m)
	}
	w.heard(k, i, reply.Term)
	k.met = w.Flaws.Has(OpenToStrangers)
	if reply.Refused != "" {
		panic("refused: " + reply.Refused)
	}
	return protocol.Parse(reply.Words[0], 1)
}

// now is the client's clock.
const now = driver.Instant(instant * int64(time.Millisecond))

// push tells a waiter, who has just polled, at once.
func (w *Failover) push(s *FailoverState, m Message) {
	for c := range w.Clients {
		if k := &s.clients[c]; tokens[c] == m.Token && k.stage == wants {
			p := protocol.Push{Fence: m.Fence, Span: 1, TTL: time.Duration(m.TTL) * time.Millisecond}
			place := protocol.Place{Known: true, Sent: now, Count: m.Fence - 1}
			if place.Believes(p, now) {
				w.granted(k, place.Grant(p), w.Clients[c].TTL)
			}
		}
	}
}

func (w *Failover) granted(k *client, g driver.Grant, ttl time.Duration) {
	if left := g.Sent.Add(g.Lives(ttl)).Sub(now); left > 0 {
		k.stage, k.left = holds, uint8(left/w.Tick)
	}
}

// knownTerm is what a client knows of a term.
func knownTerm(ticks uint8, tick time.Duration) (t protocol.Term) {
	if ticks > 0 {
		t.Heard(termNames[mine], now.Add(-time.Duration(ticks-1)*tick))
	}
	return t
}

// heard notes the term that an answer of node i named.
func (w *Failover) heard(k *client, i int, name string) {
	if !w.Known || name == "" {
		return
	}
	t := knownTerm(k.known[i], w.Tick)
	t.Heard(name, now)
	_, since, _ := strings.Cut(t.Known(now), " ")
	k.known[i] = uint8(min(parseInt(since)/w.Tick.Milliseconds(), int64(w.grace))) + 1
}

// hear lets client c have an answer of node i that is about another slot.
func (w *Failover) hear(s *FailoverState, i, c int) {
	w.load(s, i)
	w.server.Epoch, w.call.Known = Epoch{}, ""
	w.call.Requests[0] = Request{Key: key, Op: "x1", ID: tokens[c], TTL: 1}
	w.heard(&s.clients[c], i, w.server.Call(&w.call).Term)
}

// unknown notes that the node's term is a new one, of which nobody has heard.
func (s *FailoverState) unknown(i int) {
	for c := range s.clients {
		s.clients[c].known[i] = 0
	}
}

// moveSteps give the slot of master i to another. Its keys go along and are deleted where
// they were; without them, they may be deleted, or may not.
func (w *Failover) moveSteps(s *FailoverState, i int, emit func(FailoverState, string, int, int)) {
	for m := range w.Nodes {
		if m == i {
			continue
		}
		t := *s
		t.moves--
		t.owner = uint8(m)
		if w.Flaws.Has(MovedWithoutKeys) {
			emit(t, "moved", i, m)
			t.nodes[i].has = data{}
			emit(t, "moved and deleted", i, m)
			continue
		}
		t.nodes[m].has = t.nodes[i].has
		t.nodes[m].disown()
		t.nodes[i].has = data{}
		emit(t, "moved with its keys", i, m)
	}
}
