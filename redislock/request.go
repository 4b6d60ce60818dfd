package redislock

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
	"github.com/redis/go-redis/v9"
)

// request is one request of a script call, see lua/lock.lua, and what came of it.
type request struct {
	key string
	op  string
	id  string
	ttl int64 // ms

	via   *combiner // what sends it
	state atomic.Uint32
	slot  int           // of key, in a Cluster
	moved uint8         // how often it was sent to a node that was not the right one
	poll  bool          // asks again, by which the plain cases are over
	done  chan struct{} // signalled when word, payload and err say what came of it, or when that takes long
	then  func(error)   // called instead: nobody waits for this release

	word    string
	payload string
	err     error // instead of a word; of type *driver.Error
}

// The states of a request. The one who moves it out of pending or sent owns it.
const (
	pending   = iota // not sent
	sent             // in a call under way, or answered too late
	answered         // word, payload and err are set
	abandoned        // nobody waits for it any more
)

var requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 2)} }}

func newRequest(key, op, id string, ttl int64) *request {
	r := requests.Get().(*request)
	r.key, r.op, r.id, r.ttl = key, op, id, ttl
	r.state.Store(pending)
	r.moved, r.poll, r.then, r.word, r.payload, r.err = 0, false, nil, "", "", nil
	return r
}

// free lets the request be used again. Only who saw the answer may call it.
func (r *request) free() { requests.Put(r) }

// wake signals done. A signal that finds no room is not missed: who takes one of those that
// are there looks at the state after it.
func (r *request) wake() {
	select {
	case r.done <- struct{}{}:
	default:
	}
}

// await waits for the answer. Only when it does not come soon does it look at ctx, which may
// cost a timer or more: senders see to it that everybody is woken by then. When ctx has ended
// and the request was not sent yet, or no answer comes for another patience, the request is
// abandoned: that error is returned, and r is not to be used any more.
func (r *request) await(ctx context.Context, patience time.Duration) error {
	<-r.done
	if r.state.Load() == answered || r.answeredBefore(ctx.Done()) {
		return nil
	}
	if r.state.CompareAndSwap(pending, abandoned) {
		return driver.Fail(driver.Unavailable, ctx.Err())
	}
	if patience > 0 {
		over := make(chan struct{})
		timer := time.AfterFunc(patience, func() { close(over) })
		defer timer.Stop()
		if r.answeredBefore(over) {
			return nil
		}
	}
	for {
		switch state := r.state.Load(); state {
		case answered:
			return nil
		default: // a request that looks for its node goes from one state to the other
			if r.state.CompareAndSwap(state, abandoned) {
				return &driver.Error{Kind: driver.Unavailable, Outcome: outcomes[state], Err: ctx.Err()}
			}
		}
	}
}

// outcomes is what is known of a request that nobody waited for any longer.
var outcomes = [...]driver.Outcome{pending: driver.NotApplied, sent: driver.Unknown}

// answeredBefore waits for the answer or the end.
func (r *request) answeredBefore(end <-chan struct{}) bool {
	for {
		select {
		case <-r.done:
			if r.state.Load() == answered {
				return true
			}
		case <-end:
			return false
		}
	}
}

// finish hands the answer to who waits for it, or deals with it when nobody does.
func (r *request) finish(word, payload string, err error) {
	r.word, r.payload, r.err = word, payload, err
	if then := r.then; then != nil {
		then(r.via.engine.released(r))
		return
	}
	if r.state.CompareAndSwap(sent, answered) {
		r.wake()
		return
	}
	r.via.engine.orphan(r)
}

// maxBatch is how many requests travel in one call: more would keep the server from
// answering others for too long, and gain little.
const maxBatch = 128

const (
	// maxSenders bounds how many calls to one node are under way at once. One is the rule:
	// what comes while it is under way travels together in the next.
	maxSenders = 4

	// stuckAfter is when the others no longer wait for a call that is under way: its
	// connection may be dead, which takes a timeout to find out.
	stuckAfter = 50 * time.Millisecond
)

// combiner merges the requests that are made at the same time into calls to one node. A
// request that finds no call under way leaves at once; what comes while there is one travels
// with the next. Another call starts beside it when it takes long, or when there is a whole
// batch to send.
type combiner struct {
	engine *Engine
	node   *redis.Client
	ear    ear
	wake   chan struct{} // for senders that are idle

	// What greet finds out in a Cluster, written before greeted is set.
	meeting sync.Mutex
	greeted atomic.Bool
	slotted bool   // the keys of a call have to be in one slot
	publish string // PUBLISH or SPUBLISH

	mu      sync.Mutex
	queue   []*request
	senders int // goroutines
	idle    int // of them, asleep and not woken yet
	late    int // of them, with a call that takes long
	alone   *batch
	term    protocol.Term

	// leaving counts, by key, the releases that nobody waits for and that are in a call. Who
	// made one may ask for the name again before it is answered, and must not overtake it in
	// another call.
	leaving map[string]int
}

// submit makes the requests. Each is answered in any case.
func (c *combiner) submit(all ...*request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range all {
		if r != nil {
			r.via = c
			c.queue = append(c.queue, r)
		}
	}
	if !c.start() {
		for _, r := range all {
			if r != nil {
				r.wake()
			}
		}
	}
}

// start sees to it that what is in the queue leaves. It reports false when all calls under
// way are late and there may be no more. c.mu is locked.
func (c *combiner) start() bool {
	enough := 1 // calls under way that are not late
	if len(c.queue) >= maxBatch {
		enough = 2
	}
	switch {
	case c.senders-c.idle-c.late >= enough:
		// A call under way takes them along when it is back.
	case c.idle > 0:
		c.idle--
		c.wake <- struct{}{}
	case c.senders < maxSenders:
		c.senders++
		c.engine.calls.Go(c.send)
	default:
		return c.late < c.senders
	}
	return true
}

// newBatch returns a workplace for one sender.
func (c *combiner) newBatch() *batch {
	b := new(batch)
	b.watch = time.AfterFunc(time.Hour, func() { c.isLate(b) })
	return b
}

// make makes the request, from the caller's goroutine where that is possible.
func (c *combiner) make(r *request) {
	if r.then != nil || !c.sendAlone(r) {
		c.submit(r)
	}
}

// sendAlone makes the request from the caller's goroutine when there is nothing else to send
// or under way: that saves waking two goroutines, which takes about as long as the server. It
// reports whether it did. The caller cannot leave before the call is over, so this is for
// clients whose calls are known not to take long.
func (c *combiner) sendAlone(r *request) bool {
	if !c.engine.owned || c.engine.cfg.Timeout > time.Second {
		return false
	}
	c.mu.Lock()
	if len(c.queue) > 0 || c.senders > c.idle {
		c.mu.Unlock()
		return false
	}
	if c.alone == nil {
		c.alone = c.newBatch()
	}
	b := c.alone
	c.senders++ // which nobody else is while b is in use
	r.via = c
	r.state.Store(sent)
	b.requests = append(b.requests[:0], r)
	b.known = c.known()
	c.mu.Unlock()

	b.watch.Reset(stuckAfter)
	b.exchange(c)
	b.watch.Stop()

	c.mu.Lock()
	c.senders--
	if b.late {
		b.late = false
		c.late--
	}
	b.reset()
	if len(c.queue) > 0 {
		c.start()
	}
	c.mu.Unlock()
	return true
}

// send makes calls until the engine is closed.
func (c *combiner) send() {
	b := c.newBatch()
	defer b.watch.Stop()
	for {
		for c.take(b) {
			b.watch.Reset(stuckAfter)
			b.exchange(c)
		}
		b.watch.Stop()
		select {
		case <-c.wake:
		case <-c.engine.life.Done():
			return
		}
	}
}

// isLate wakes those who wait for a call that takes long, and those behind it: from now on
// they look at their contexts as well. When it comes late itself it finds other requests in
// b, which costs these a look, and no more.
func (c *combiner) isLate(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.late && len(b.requests) > 0 {
		b.late = true
		c.late++
	}
	for _, r := range b.requests {
		r.wake()
	}
	for _, r := range c.queue {
		r.wake()
	}
}

// take moves up to maxBatch requests into b, whose last call is over. When there are none it
// counts the sender as idle.
func (c *combiner) take(b *batch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.late {
		b.late = false
		c.late--
	}
	for _, key := range b.leaving {
		if c.leaving[key]--; c.leaving[key] == 0 {
			delete(c.leaving, key)
		}
	}
	b.reset()
	c.fill(b)
	if len(b.requests) == 0 {
		c.idle++
		return false
	}
	for _, r := range b.requests {
		if r.then != nil {
			b.leaving = append(b.leaving, r.key)
			c.leaving[r.key]++
		}
	}
	b.known = c.known()
	return true
}

// fill takes from the queue what is still wanted and may leave now.
func (c *combiner) fill(b *batch) {
	rest := 0
	for i, r := range c.queue {
		if len(b.requests) == maxBatch {
			rest += copy(c.queue[rest:], c.queue[i:])
			break
		}
		if c.leaving[r.key] > 0 { // the sender of that release comes for it
			r.wake()
			c.queue[rest] = r
			rest++
		} else if r.state.CompareAndSwap(pending, sent) {
			b.requests = append(b.requests, r)
		}
	}
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
}

// batch is a sender's workplace: the requests of one turn, and the arguments of their calls.
type batch struct {
	requests []*request
	leaving  []string // keys of the releases among them that nobody waits for
	late     bool     // their call takes long
	watch    *time.Timer
	bySlot   []*request // the same, in a Cluster
	known    string
	now      int64
	frames   []*frame
}

// frame is one call: in a Cluster one for each slot, otherwise one for all requests.
type frame struct {
	requests []*request
	call     *call
	args     []any
	keys     int
	names    []string // of companions
}

// frame returns the workplace of the batch's i-th call.
func (b *batch) frame(i int) *frame {
	if i == len(b.frames) {
		b.frames = append(b.frames, &frame{call: newCall()})
	}
	return b.frames[i]
}

func (b *batch) reset() {
	clear(b.requests)
	clear(b.bySlot)
	clear(b.leaving)
	b.requests, b.leaving = b.requests[:0], b.leaving[:0]
	for _, f := range b.frames {
		clear(f.args)
		clear(f.names)
		f.requests, f.args = nil, f.args[:0]
	}
}

// exchange sends the requests and hands out the answers.
func (b *batch) exchange(c *combiner) {
	if err := c.greet(); err != nil {
		failure := c.engine.classify(err)
		failure.Outcome = driver.NotApplied // they were not sent
		c.fail(b.requests, err, failure)
		return
	}
	e := c.engine
	b.now = e.wall().UnixMicro()
	if c.slotted {
		b.exchangeSlots(c)
		return
	}
	b.known = "" // only virgin slots need it
	f := b.frame(0)
	if len(b.requests) == 1 && e.constants == "" && b.exchangeSingle(c, f) {
		return
	}
	f.encode(b, c, b.requests, &e.single)
	reply, err := f.call.send(e.life, c.node, lockScript, f.args)
	c.deliver(b.requests, reply, err)
}

// exchangeSingle sends the only request the short way, and reports whether that did.
func (b *batch) exchangeSingle(c *combiner, f *frame) bool {
	r, s := b.requests[0], &c.engine.single
	if r.poll {
		return false
	}
	f.requests, f.keys = b.requests, 2
	a := append(f.args[:0], nil, nil, &f.keys, &r.key, &s.fence, &r.op, &r.id, &b.now)
	switch r.op[0] {
	case 'x', 'X':
		a = append(a, &r.ttl, &s.inbox)
	case 'r':
	default:
		return false
	}
	f.args = a
	reply, err := f.call.send(c.engine.life, c.node, singleScript, a)
	if err == nil && len(reply) == 0 {
		return false
	}
	c.deliver(b.requests, reply, err)
	return true
}

// encode writes the call for requests whose keys are all in one slot into f.args. Pointers
// instead of values keep the arguments from being allocated one by one.
func (f *frame) encode(b *batch, c *combiner, requests []*request, s *layout) {
	e := c.engine
	f.requests, f.keys = requests, 2+len(requests)
	a := append(f.args[:0], nil, nil, &f.keys, &s.epoch, &s.fence)
	for _, r := range requests {
		a = append(a, &r.key)
	}
	if s.tag != "" {
		// Companions are named so that the server refuses the call while they are under way
		// to another node.
		n := len(companionKinds) * len(requests)
		f.keys += n
		f.names = slices.Grow(f.names[:0], n) // it must not move any more
		for _, r := range requests {
			for _, kind := range companionKinds {
				f.names = append(f.names, kind+s.tag+r.key)
				a = append(a, &f.names[len(f.names)-1])
			}
		}
	}
	a = append(a, &e.constants, &b.known, &b.now, &c.publish, &s.inbox, &s.tag)
	for _, r := range requests {
		a = append(a, &r.op, &r.id, &r.ttl)
	}
	f.args = a
}

// known says for how long the node's term is known, where that is of use. c.mu is locked.
func (c *combiner) known() string {
	if c.engine.cluster == nil {
		return ""
	}
	return c.term.Known(c.engine.clock.Now())
}

// deliver hands out the answers of one call.
func (c *combiner) deliver(requests []*request, reply []string, err error) {
	if err == nil {
		reply, err = c.open(reply, len(requests))
	}
	if err != nil {
		if len(requests) > 1 && isKeyBarred(err) {
			c.oneByOne(requests)
			return
		}
		c.fail(requests, err, c.engine.classify(err))
		return
	}
	words, payloads := reply[0], reply[1:]
	if fence, ok := strings.CutPrefix(words, "+"); ok { // all as asked
		for _, r := range requests {
			if r.op[0]|0x20 == 'x' {
				r.finish(fence, "", nil)
			} else {
				r.finish("=", "", nil)
			}
		}
		return
	}
	for _, r := range requests {
		var word, payload string
		word, words, _ = strings.Cut(words, " ")
		if hasPayload(word) && len(payloads) > 0 {
			payload, payloads = payloads[0], payloads[1:]
		}
		r.finish(word, payload, nil)
	}
}

// fail ends requests whose call failed with err, but those that go to another node instead.
func (c *combiner) fail(requests []*request, err error, failure *driver.Error) {
	if c.engine.cluster != nil {
		requests = c.follow(requests, err)
	}
	for _, r := range requests {
		r.finish("", "", failure)
	}
}

// oneByOne makes the requests again of a call that the server refused to begin with, because
// the key of one of them is beyond the rights of the user: the others must not suffer.
func (c *combiner) oneByOne(requests []*request) {
	e := c.engine
	var b batch
	c.mu.Lock()
	b.known = c.known()
	c.mu.Unlock()
	f := b.frame(0)
	for i := range requests {
		one := requests[i : i+1]
		l := &e.single
		if c.slotted {
			l = e.layoutOf(slotOf(one[0].key))
		}
		b.now = e.wall().UnixMicro()
		f.encode(&b, c, one, l)
		reply, err := f.call.send(e.life, c.node, lockScript, f.args)
		c.deliver(one, reply, err)
	}
}

// open checks the first words of a reply, which are about the call as a whole.
func (c *combiner) open(reply []string, n int) ([]string, error) {
	switch {
	case len(reply) == 0:
		return nil, errGarbled
	case reply[0] == "!constants" && len(reply) == 2:
		return nil, &constantsError{ours: c.engine.constants, theirs: reply[1]}
	}
	if rest, ok := strings.CutPrefix(reply[0], "@"); ok {
		term, words, _ := strings.Cut(rest, " ")
		c.mu.Lock()
		c.term.Heard(term, c.engine.clock.Now())
		c.mu.Unlock()
		reply[0] = words
	}
	if strings.Count(reply[0], " ") != n-1 && reply[0][:1] != "+" {
		return nil, errGarbled
	}
	return reply, nil
}

// hasPayload says whether a word comes with a payload.
func hasPayload(word string) bool {
	if word == "" {
		return false
	}
	switch word[0] {
	case 'q', 'h', 's', 'b', '!', '?':
		return true
	}
	return false
}

// layout names the keys and the channel that the requests of one slot share.
type layout struct {
	tag, epoch, fence, inbox string
}

func (e *Engine) newLayout(tag string) *layout {
	return &layout{
		tag: tag, epoch: companions + "epoch" + tag, fence: companions + "fence" + tag,
		inbox: companions + "in:" + tag + e.id,
	}
}

// companionKinds are what stands before tag and key in the companions of a key.
var companionKinds = [...]string{companions + "q:", companions + "w:", companions + "g:", companions + "e:"}
