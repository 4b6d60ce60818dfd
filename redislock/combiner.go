package redislock

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
	"github.com/redis/go-redis/v9"
)

// maxBatch is how many requests travel in one call: more would keep the server from
// answering others for too long, and gain little.
const maxBatch = 128

const (
	// maxSenders bounds how many calls to one node are under way at once. One is the rule:
	// what comes while it is under way travels together in the next.
	maxSenders = 4

	// stuckAfter is for how long others wait for a call that is under way: its connection may
	// be dead, which takes a timeout to find out.
	stuckAfter = 50 * time.Millisecond

	// idleAfter is how long a sender with nothing to send stays. A node that has left a Cluster
	// gets no more requests, and nobody says so.
	idleAfter = time.Minute
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

	exchange func(*batch) // sends the requests of a batch and hands out the answers

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
	lines   []*line // of the senders, and of alone
	term    protocol.Term

	// inUse says that alone is in a call, and watched that others wait for that one. A call that
	// nobody waits for may take as long as it likes: a timer for each wakes a thread.
	inUse, watched bool

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
		if c.inUse && !c.watched {
			c.watched = true
			c.alone.watch.Reset(stuckAfter)
		}
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

// newBatch returns a workplace for one sender. c.mu is locked.
func (c *combiner) newBatch() *batch {
	b := &batch{line: c.engine.newLine()}
	c.lines = append(c.lines, b.line)
	b.watch = time.AfterFunc(time.Hour, func() { c.isLate(b) })
	return b
}

// make makes the requests, from the caller's goroutine where that is possible.
func (c *combiner) make(all ...*request) {
	if all[0].then != nil || !c.sendAlone(all...) {
		c.submit(all...)
	}
}

// sendAlone makes the requests from the caller's goroutine when there is nothing else to send
// or under way: that saves waking two goroutines, which takes about as long as the server. It
// reports whether it did. The caller cannot leave before the call is over, so this is for
// clients whose calls are known not to take long.
func (c *combiner) sendAlone(all ...*request) bool {
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
		c.alone.watch.Stop()
	}
	b := c.alone
	for _, r := range all {
		r.via = c
		if r.state.CompareAndSwap(pending, sent) {
			b.requests = append(b.requests, r)
		}
	}
	if len(b.requests) == 0 {
		c.mu.Unlock()
		return true // its caller gave up before it found its node
	}
	c.senders++ // which nobody else is while b is in use
	b.known = c.known()
	c.inUse = true
	c.mu.Unlock()

	c.exchange(b)

	c.mu.Lock()
	if c.watched {
		b.watch.Stop()
	}
	c.inUse, c.watched = false, false
	c.senders--
	c.isOver(b)
	b.reset()
	if len(c.queue) > 0 {
		c.start()
	}
	c.mu.Unlock()
	return true
}

// send makes calls until the engine is closed, or nothing was to be sent for long.
func (c *combiner) send() {
	c.mu.Lock()
	b := c.newBatch()
	c.mu.Unlock()
	idle := time.NewTimer(idleAfter)
	defer c.end(b)
	defer idle.Stop()
	for {
		for c.take(b) {
			b.watch.Reset(stuckAfter)
			c.exchange(b)
		}
		b.watch.Stop()
		idle.Reset(idleAfter)
		select {
		case <-c.wake:
		case <-idle.C:
			if c.retire() {
				return
			}
			<-c.wake
		case <-c.engine.life.Done():
			return
		}
	}
}

// end ends the work at b.
func (c *combiner) end(b *batch) {
	b.watch.Stop()
	b.line.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = slices.DeleteFunc(c.lines, func(l *line) bool { return l == b.line })
}

// hangUp ends the lines. Nothing is made on them any more that somebody waits for.
func (c *combiner) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		l.close()
	}
}

// retire ends a sender that is idle. It reports false when all that are asleep, this one
// included, were woken already: what wakes it is in the channel then.
func (c *combiner) retire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == 0 {
		return false
	}
	c.idle--
	c.senders--
	return true
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

// isOver ends what isLate began. c.mu is locked.
func (c *combiner) isOver(b *batch) {
	if b.late {
		b.late = false
		c.late--
	}
}

// take moves up to maxBatch requests into b, whose last call is over. When there are none it
// counts the sender as idle.
func (c *combiner) take(b *batch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isOver(b)
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
