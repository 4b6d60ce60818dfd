package holdfast

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// queue is what this process knows about one name: who of its goroutines waits, and which
// claims they may be handed. At most one goroutine waits on the engine for a name; the
// others stand here, first in, first out. Calls and claims are its users: a name that has
// none leaves nothing behind. Guarded by the bucket's mutex.
type queue struct {
	waiters waiterList
	asking  bool   // the head of the queue stands at the engine
	excl    *claim // the exclusive claim of this process, while it is live
	readers *claim // a shared claim that further readers may join
}

// waiter is a goroutine that waits in the queue. What became of it is written before ready
// is signalled, under the bucket's mutex.
type waiter struct {
	h          *handle
	ctx        context.Context // of the acquire call
	ready      chan struct{}   // buffered
	prev, next *waiter
	queued     bool

	lease  *Lease      // handed over
	how    Acquisition // with lease
	turn   bool        // it is the head: its goroutine asks the engine
	closed bool        // the client was closed
}

// newWaiter returns a waiter for h, whose lease will carry the values of ctx. The pool is the
// client's own: a channel that was made in the bubble of one synctest must not turn up in
// another's.
func (c *Client) newWaiter(ctx context.Context, h *handle) *waiter {
	w, _ := c.waiters.Get().(*waiter)
	if w == nil {
		w = &waiter{ready: make(chan struct{}, 1)}
	}
	w.h, w.ctx = h, ctx
	return w
}

// free returns w to the pool. Its ready channel is empty by then.
func (w *waiter) free() {
	pool := &w.h.client.waiters
	*w = waiter{ready: w.ready}
	pool.Put(w)
}

func (w *waiter) wake() { w.ready <- struct{}{} }

// give hands w a lease.
func (w *waiter) give(l *Lease, how Acquisition) {
	w.lease, w.how = l, how
	w.wake()
}

// waiterList is a FIFO from which any element can be taken.
type waiterList struct {
	head, tail *waiter
	n          int
}

func (l *waiterList) front() *waiter { return l.head }

func (l *waiterList) push(w *waiter) {
	w.prev, w.queued = l.tail, true
	if l.tail != nil {
		l.tail.next = w
	} else {
		l.head = w
	}
	l.tail = w
	l.n++
}

func (l *waiterList) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.tail = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	l.n--
}

// mustWait reports whether a request for h has to stand in the local queue: somebody came
// before it, or this process holds the name itself and will pass it on.
func (q *queue) mustWait() bool {
	return q.asking || q.waiters.n > 0 || q.excl != nil
}

// promote sends the head of the queue to the engine, if nobody stands there and the process
// does not hold the name exclusively itself. While it does, waiting on the engine would be
// waiting for oneself.
func (q *queue) promote() {
	w := q.waiters.front()
	if w == nil || q.asking || q.excl != nil {
		return
	}
	q.waiters.remove(w)
	q.asking = true
	w.turn = true
	w.wake()
}

// joinReaders lets the readers at the head of the queue join the shared claim.
func (q *queue) joinReaders(now driver.Instant) {
	for w := q.waiters.front(); w != nil && q.readers.joinable(w.h, now); w = q.waiters.front() {
		q.waiters.remove(w)
		w.give(q.readers.newLease(w.ctx, now), Joined)
		q.readers.h.bucket.names.Close(q.readers.at) // the waiter's use; the claim has its own
	}
}
