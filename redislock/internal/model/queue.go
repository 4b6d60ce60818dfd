package model

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// Queue is one server and clients that wait for one name there. Polls may be carried out long
// after they were sent, their answers may be lost, pushes may arrive at any time, twice or
// never, and a release may be repeated. Time goes in ticks, see [Failover].
//
// Answers come as soon as a request was carried out, or never. One that comes later says the
// same, of a lease that ends at the same time: it allows nothing more.
type Queue struct {
	Clients int
	TTL     time.Duration
	Tick    time.Duration
	Doubled bool // a push may arrive more than once
	Stray   bool // a poll that was given up may be carried out later
	Deaf    bool // a waiter may not be listening
	Failing bool // the server may fail to enter a grant
	Ahead   bool // the callers' clocks are ahead of the counter, so that scripts take their short ways
	Foreign bool // a client of another library takes part, without the queue
	Flaws   Flaws

	server Server
	lock   *Lock
	call   Call
	// Ticks: of a lease, and from when on the ages of a place in the queue, of a poll, and of
	// what a waiter was told make no difference.
	ttl, silent, late, stale uint8
}

const maxPushes = 3

// QueueState is a state.
type QueueState struct {
	holder  uint8 // client + 1
	left    uint8 // ticks
	first   uint8 // its fence, where a push names the holder
	counter uint8
	foreign uint8 // ticks for which the foreign client believes to hold
	queue   [maxClients]place
	clients [maxClients]waiting
	pushes  [maxPushes]push
}

// place is one in the queue, of client who - 1.
type place struct{ who, heard uint8 }

// push is a message under way to client who - 1.
type push struct{ who, fence, ttl uint8 }

type waiting struct {
	stage    uint8
	left     uint8 // ticks for which it believes to hold
	known    bool  // it was told that it is queued,
	sent     uint8 // by a poll that was sent so many ticks ago,
	count    uint8 // when this was the counter
	poll     uint8 // ticks since the poll under way was sent, + 1
	stray    bool
	released bool
}

// waits is a stage between wants and holds.
const waits = 3

const foreigner = maxClients + 1

// Start implements World.
func (w *Queue) Start() []QueueState {
	w.lock = &Lock{Queue: make([]Entry, 0, maxClients)}
	w.server = Server{Micros: instant * 1000, Brief: true, Locks: map[string]*Lock{key: w.lock}, Flaws: w.Flaws}
	w.call = Call{Requests: make([]Request, 1)}
	w.ttl = uint8(w.TTL / w.Tick)
	w.silent = uint8(silentFor*time.Millisecond/w.Tick) + 1
	offer := protocol.Push{Fence: 1, TTL: min(w.TTL, offerFor*time.Millisecond)}
	for w.stale = 0; (protocol.Place{Known: true, Sent: now.Add(-time.Duration(w.stale) * w.Tick)}).Believes(offer, now); {
		w.stale++
	}
	w.late = max(w.ttl, w.stale)
	var s QueueState
	for c := w.Clients; c < maxClients; c++ {
		s.clients[c].stage = over
	}
	return []QueueState{s}
}

// moot reports whether a push cannot make a difference any more: a waiter would not believe it
// even if it had been told right now that it is queued, and counts that it will be told are
// no lower; who waits no longer can only give back what the push is about.
func (w *Queue) moot(s *QueueState, p push) bool {
	k := &s.clients[p.who-1]
	if w.Flaws&(AnyPush|TokenAgain|DeadlineFromReceipt) != 0 || k.stage == wants {
		return false
	}
	if k.stage == waits {
		best := protocol.Place{Known: true, Sent: now, Count: int64(k.count)}
		return k.known && !best.Believes(w.message(p), now)
	}
	return s.holder != p.who || s.first != p.fence
}

// settle brings what makes no difference into one form.
func (w *Queue) settle(s *QueueState) {
	for i, p := range s.pushes {
		if p.who > 0 && w.moot(s, p) {
			s.pushes[i] = push{}
		}
	}
	for c := range s.clients {
		if k := &s.clients[c]; k.stage != waits || k.sent >= w.stale && w.Flaws == 0 {
			k.known, k.sent, k.count = false, 0, 0
		}
	}
	if w.Flaws == 0 {
		w.order(s)
	}
	w.number(s)
}

// order numbers the clients by what they are up to: they are alike.
func (w *Queue) order(s *QueueState) {
	rank := func(c int) uint64 {
		k := &s.clients[c]
		n := uint64(k.stage)<<8 | uint64(k.left)
		n = n<<8 | uint64(k.sent)
		n = n<<8 | uint64(k.count)
		n = n<<8 | uint64(k.poll)
		for i, q := range s.queue {
			if int(q.who) == c+1 {
				n = n<<4 | uint64(i+1)
			}
		}
		for _, b := range [...]bool{k.known, k.stray, k.released, int(s.holder) == c+1} {
			n <<= 1
			if b {
				n++
			}
		}
		return n
	}
	for i := 1; i < w.Clients; i++ {
		for j := i; j > 0 && rank(j) < rank(j-1); j-- {
			s.swap(j, j-1)
		}
	}
}

func (s *QueueState) swap(a, b int) {
	s.clients[a], s.clients[b] = s.clients[b], s.clients[a]
	rename := func(who *uint8) {
		switch int(*who) {
		case a + 1:
			*who = uint8(b + 1)
		case b + 1:
			*who = uint8(a + 1)
		}
	}
	rename(&s.holder)
	for i := range s.queue {
		rename(&s.queue[i].who)
	}
	for i := range s.pushes {
		rename(&s.pushes[i].who)
	}
}

// number keeps of the fences what matters: their order.
func (w *Queue) number(s *QueueState) {
	slices.SortFunc(s.pushes[:], func(a, b push) int {
		return (int(b.who)-int(a.who))<<16 + (int(b.fence)-int(a.fence))<<8 + int(b.ttl) - int(a.ttl)
	})
	pushed := 0
	for _, p := range s.pushes {
		if p.who > 0 {
			pushed |= 1 << p.who
		}
	}
	if pushed&(1<<s.holder) == 0 || s.holder == 0 {
		s.first = 0
	}
	numbers := make([]*uint8, 0, 16)
	numbers = append(numbers, &s.counter, &s.first)
	for c := range s.clients {
		numbers = append(numbers, &s.clients[c].count)
	}
	for i := range s.pushes {
		numbers = append(numbers, &s.pushes[i].fence)
	}
	var rank [64]uint8
	for _, n := range numbers {
		rank[*n] = 1
	}
	next := uint8(0)
	for v := 1; v < len(rank); v++ {
		if rank[v] > 0 {
			next++
			rank[v] = next
		}
	}
	rank[0] = 0
	for _, n := range numbers {
		*n = rank[*n]
	}
}

// Steps implements World.
func (w *Queue) Steps(s *QueueState, next func(QueueState, Step)) {
	emit := func(t QueueState, verb string, a int) {
		w.settle(&t)
		if t != *s {
			next(t, Step{verb, uint8(a), 0})
		}
	}
	t := *s
	w.tick(&t)
	emit(t, "tick", 0)
	for c := range w.Clients {
		w.clientSteps(s, c, emit)
	}
	for i, p := range s.pushes {
		if p.who > 0 {
			w.pushSteps(s, i, emit)
		}
	}
	if w.Foreign {
		t := *s
		switch {
		case s.holder == 0:
			t.holder, t.left, t.foreign = foreigner, w.ttl, w.ttl
			emit(t, "the other library takes the lock", 0)
		case s.holder == foreigner:
			t.holder, t.left, t.foreign = 0, 0, 0
			emit(t, "the other library deletes its key", 0)
		}
	}
}

func (w *Queue) tick(s *QueueState) {
	s.left, s.foreign = less(s.left), less(s.foreign)
	if s.left == 0 {
		s.holder = 0
	}
	for i := range s.queue {
		if q := &s.queue[i]; q.who > 0 {
			q.heard = min(q.heard+1, w.silent)
		}
	}
	for c := range s.clients {
		k := &s.clients[c]
		k.left = less(k.left)
		if k.stage == holds && k.left == 0 {
			w.end(k)
		}
		if k.known {
			k.sent = min(k.sent+1, w.late)
		}
		if k.poll > 0 {
			k.poll = min(k.poll+1, w.late+1)
		}
	}
}

// end is what a client does when it holds or waits no longer.
func (w *Queue) end(k *waiting) {
	stray := k.stray || w.Stray && k.poll > 0
	*k = waiting{stage: over, released: true, stray: stray}
	if w.Flaws.Has(TokenAgain) {
		k.stage = wants
	}
}

func (w *Queue) clientSteps(s *QueueState, c int, emit func(QueueState, string, int)) {
	k := &s.clients[c]
	if (k.stage == wants || k.stage == waits) && k.poll == 0 {
		t := *s
		t.clients[c].stage, t.clients[c].poll = waits, 1
		emit(t, "polls", c)
	}
	if k.poll > 0 {
		w.all(s, func(t QueueState) {
			a := w.ask(&t, c, "X1")
			t.clients[c].poll = 0
			emit(t, "its poll is carried out, the answer lost", c)
			w.polled(&t.clients[c], a, now.Add(-time.Duration(k.poll-1)*w.Tick))
			emit(t, "its poll is carried out", c)
		})
	}
	if k.stray {
		w.all(s, func(t QueueState) {
			w.ask(&t, c, "X1")
			t.clients[c].stray = false
			emit(t, "a poll of before is carried out", c)
		})
	}
	if k.released {
		w.all(s, func(t QueueState) {
			w.ask(&t, c, "r")
			emit(t, "a release is carried out", c)
		})
	}
	if k.stage == holds {
		t := *s
		if w.ask(&t, c, "e1 x 0 1").Renewal() == protocol.Renewed {
			w.granted(&t.clients[c], driver.Grant{Sent: now})
		} else {
			w.end(&t.clients[c])
		}
		emit(t, "renews", c)
	}
	if k.stage == holds || k.stage == waits {
		t := *s
		w.end(&t.clients[c])
		emit(t, "gives up", c)
	}
}

// all calls f with s once for each thing that the surroundings may do.
func (w *Queue) all(s *QueueState, f func(QueueState)) {
	deaf, failing := 1, 1
	if w.Deaf {
		deaf = 1 << w.Clients
	}
	if w.Failing {
		failing = 2
	}
	for fail := range failing {
		for mask := range deaf {
			w.server.Full = fail == 1
			w.server.Listens = func(inbox string) bool { return mask>>(inbox[0]-'0')&1 == 0 }
			f(*s)
		}
	}
	w.server.Full = false
}

func (w *Queue) polled(k *waiting, a protocol.Answer, sent driver.Instant) {
	if g, ok := a.Grant(sent); ok {
		w.granted(k, g)
		return
	}
	var p protocol.Place
	if p.Note(a, sent); p.Known {
		k.known, k.count, k.sent = true, uint8(p.Count), uint8(now.Sub(p.Sent)/w.Tick)
	}
}

func (w *Queue) granted(k *waiting, g driver.Grant) {
	left := g.Sent.Add(g.Lives(w.TTL)).Sub(now)
	if left <= 0 {
		w.end(k)
		return
	}
	*k = waiting{stage: holds, left: uint8(left / w.Tick), released: k.released, stray: k.stray}
}

// pushSteps are the ways of a message.
func (w *Queue) pushSteps(s *QueueState, i int, emit func(QueueState, string, int)) {
	p := s.pushes[i]
	c := int(p.who - 1)
	gone := *s
	gone.pushes[i] = push{}
	emit(gone, "a push is lost", c)
	k := &s.clients[c]
	if k.poll > 0 {
		return // it reads pushes when its poll was answered
	}
	for range 2 {
		t := gone
		switch k.stage {
		case waits:
			w.heard(&t.clients[c], p)
		case over:
			w.ask(&t, c, fmt.Sprintf("d%d", p.fence))
		}
		emit(t, "a push arrives", c)
		if !w.Doubled {
			break
		}
		gone = *s
	}
}

func (w *Queue) message(p push) protocol.Push {
	return protocol.Push{Fence: int64(p.fence), Span: 1, TTL: time.Duration(p.ttl) * w.Tick}
}

// heard is what a waiter makes of a push. One that it does not believe makes it poll.
func (w *Queue) heard(k *waiting, p push) {
	message := w.message(p)
	at := protocol.Place{Known: k.known, Sent: now.Add(-time.Duration(k.sent) * w.Tick), Count: int64(k.count)}
	if w.Flaws.Has(AnyPush) {
		at.Count = -1
	}
	if w.Flaws.Has(DeadlineFromReceipt) {
		at.Sent = now
	}
	if at.Believes(message, now) {
		w.granted(k, at.Grant(message))
	}
}

// ask lets the server carry out a request of client c.
func (w *Queue) ask(s *QueueState, c int, op string) protocol.Answer {
	l, v := w.lock, &w.server
	*l = Lock{Queue: l.Queue[:0], QueueEnds: instant + keepFor}
	ms := w.Tick.Milliseconds()
	v.Counter = int64(s.counter)
	if s.holder > 0 {
		l.Kind, l.Ends = Exclusive, instant+int64(s.left)*ms
		l.Value = Value{ID: "foreign", Foreign: true}
		if s.holder != foreigner {
			l.Value = Value{ID: tokens[s.holder-1], First: int64(s.first)}
		}
	}
	for i, q := range s.queue {
		if q.who > 0 {
			l.Queue = append(l.Queue, Entry{
				Inbox: inboxes[q.who-1], Mode: 'x', Weight: 1, TTL: w.TTL.Milliseconds(), Span: 1,
				ID: tokens[q.who-1], Order: int64(i) + 1, Seen: instant - int64(q.heard)*ms,
			})
		}
	}
	w.call.Inbox, w.call.Micros = inboxes[c], 0
	if w.Ahead {
		w.call.Micros = v.Counter + 1
	}
	w.call.Requests[0] = Request{Key: key, Op: op, ID: tokens[c], TTL: w.TTL.Milliseconds()}
	word := v.Call(&w.call).Words[0]
	s.counter, s.holder, s.left, s.first = uint8(v.Counter), 0, 0, 0
	if l.Kind == Exclusive {
		s.left, s.holder = uint8((l.Ends-instant)/ms), foreigner
		if !l.Value.Foreign {
			s.holder, s.first = uint8(slices.Index(tokens[:], l.Value.ID)+1), uint8(l.Value.First)
		}
	}
	queue := [maxClients]place{}
	for i, e := range l.Queue {
		q := place{who: uint8(slices.Index(tokens[:], e.ID) + 1)}
		if e.Seen > 0 {
			q.heard = uint8((instant - e.Seen) / ms)
		}
		queue[i] = q
	}
	s.queue = queue
	for _, m := range v.Published {
		p := push{who: uint8(slices.Index(tokens[:], m.Token) + 1), fence: uint8(m.Fence), ttl: uint8(m.TTL / ms)}
		if i := slices.Index(s.pushes[:], push{}); i >= 0 && !slices.Contains(s.pushes[:], p) {
			s.pushes[i] = p
		} // with no room left it is lost at once
	}
	return protocol.Parse(word, 1)
}

var inboxes = [maxClients]string{"0", "1", "2"}

// Wrong implements World.
func (w *Queue) Wrong(s *QueueState) string {
	n := 0
	for _, k := range s.clients {
		if k.left > 0 {
			n++
		}
	}
	if s.foreign > 0 {
		n++
	}
	if n > 1 {
		return "two holders"
	}
	return ""
}

// Say implements World.
func (w *Queue) Say(step Step, after *QueueState) string {
	who, what := string(rune('X'+step.A))+": ", step.Verb
	switch {
	case step.Verb == "tick":
		who, what = "", fmt.Sprintf("%v passes", w.Tick)
	case strings.HasPrefix(step.Verb, "the other"):
		who = ""
	}
	var b strings.Builder
	for c := range w.Clients {
		if k := &after.clients[c]; k.left > 0 {
			fmt.Fprintf(&b, " %c HOLDS for %d", 'X'+c, k.left)
		} else if k.known {
			fmt.Fprintf(&b, " %c queued %d ago at count %d", 'X'+c, k.sent, k.count)
		}
	}
	if after.foreign > 0 {
		fmt.Fprintf(&b, " the other library HOLDS for %d", after.foreign)
	}
	return fmt.Sprintf("%-45s key %d for %d, queue %v, pushes %v, counter %d%s",
		who+what, after.holder, after.left, after.queue[:w.Clients], after.pushes, after.counter, b.String())
}
