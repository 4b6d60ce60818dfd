package redislock

import (
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// batch is a sender's workplace: the requests of one turn, and the arguments of their calls.
type batch struct {
	requests []*request
	leaving  []string // keys of the releases among them that nobody waits for
	late     bool     // their call takes long
	watch    *time.Timer
	bySlot   []*request // the same, in a Cluster
	sorted   []*request // the same, on a node of a quorum
	known    string
	now      int64
	frames   []*frame
	line     *line // of its sender
}

// frame is one call: in a Cluster one for each slot, otherwise one for all requests.
type frame struct {
	requests []*request
	call     *call
	args     []any
	keys     int
	names    []string // of companions
	lone     lone     // on a node of a quorum
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
	clear(b.sorted)
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
	if len(b.requests) == 2 && e.constants == "" && b.exchangePass(c, f) {
		return
	}
	f.encode(b, c, b.requests, &e.single)
	reply, err := f.call.send(e.life, b.line, c.node, lockScript(), f.args)
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
	reply, err := f.call.send(c.engine.life, b.line, c.node, singleScript(), a)
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
	var cutOff []*request
	for _, r := range requests {
		var word, payload string
		word, words, _ = strings.Cut(words, " ")
		if hasPayload(word) && len(payloads) > 0 {
			payload, payloads = payloads[0], payloads[1:]
		}
		if word == "n" && !r.again {
			r.again = true
			cutOff = append(cutOff, r)
			continue
		}
		r.finish(word, payload, nil)
	}
	if len(cutOff) > 0 {
		c.hearReplicas(cutOff)
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
	for i := range requests {
		c.anew(requests[i : i+1])
	}
}

// anew makes requests again, in one call. Their keys are all in one slot where that matters.
func (c *combiner) anew(requests []*request) {
	e := c.engine
	b := batch{now: e.wall().UnixMicro()}
	c.mu.Lock()
	b.known = c.known()
	c.mu.Unlock()
	f := b.frame(0)
	f.encode(&b, c, requests, c.layoutOf(requests[0]))
	reply, err := f.call.send(e.life, nil, c.node, lockScript(), f.args)
	c.deliver(requests, reply, err)
}

// layoutOf returns the names that a request shares with others.
func (c *combiner) layoutOf(r *request) *layout {
	if !c.slotted {
		return &c.engine.single
	}
	return c.engine.layoutOf(slotOf(r.key))
}

// hearing is how long a call waits for replicas to acknowledge. They answer at once when they
// are asked; a master that is cut off does not keep callers waiting for longer.
const hearing = 500 * time.Millisecond

// hearReplicas makes the requests of one call again, once, that a master refused because too
// few replicas acknowledge. It says so although all is well when nobody has used it for a
// while: the gate has only now written what they are to acknowledge, which they do by
// themselves once a second. Here they are asked to. Nothing was done for these requests, so
// they may go out a second time.
func (c *combiner) hearReplicas(requests []*request) {
	if err := c.askReplicas(c.layoutOf(requests[0]).poke); err != nil {
		failure := c.engine.classify(err)
		failure.Outcome = driver.NotApplied
		c.fail(requests, err, failure)
		return
	}
	c.anew(requests)
}

// askReplicas waits until replicas have acknowledged what the gate wrote.
func (c *combiner) askReplicas(poke string) error {
	e := c.engine
	limit := hearing
	if most := c.node.Options().ReadTimeout; most > 0 {
		limit = min(limit, most/2)
	}
	pipe := c.node.Pipeline()
	// WAIT is about what its own connection has written.
	pipe.PExpire(e.life, poke, e.cfg.MaxLag+time.Second)
	pipe.Do(e.life, "WAIT", protocol.Majority(e.cfg.DataNodes), max(1, limit.Milliseconds()))
	_, err := pipe.Exec(e.life)
	return err
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
	tag, epoch, fence, poke, inbox string
}

func (e *Engine) newLayout(tag string) *layout {
	return &layout{
		tag: tag, epoch: companions + "epoch" + tag, fence: companions + "fence" + tag,
		poke:  companions + "poke" + tag,
		inbox: companions + "in:" + tag + e.id,
	}
}

// companionKinds are what stands before tag and key in the companions of a key.
var companionKinds = [...]string{companions + "q:", companions + "w:", companions + "g:", companions + "e:"}
