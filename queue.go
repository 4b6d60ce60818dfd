package holdfast

import (
	"sync"

	"github.com/holdfast-go/holdfast/driver"
)

// queue is what this process knows about one name: who of its goroutines waits, and which
// claims they may be handed. At most one goroutine waits on the engine for a name; the
// others stand here, first in, first out. Guarded by the bucket's mutex.
type queue struct {
	name    string
	waiters waiterList
	asking  bool   // the head of the queue stands at the engine
	excl    *claim // the exclusive claim of this process, until its release was answered
	readers *claim // a shared claim that further readers may join
	users   int    // calls and claims that refer to this queue
}

// waiter is a goroutine that waits in the queue. What became of it is written before ready
// is signalled, under the bucket's mutex.
type waiter struct {
	h          *handle
	ready      chan struct{} // buffered
	prev, next *waiter
	queued     bool

	lease  *Lease      // handed over
	how    Acquisition // with lease
	turn   bool        // it is the head: its goroutine asks the engine
	closed bool        // the client was closed
}

var waiterPool = sync.Pool{New: func() any { return &waiter{ready: make(chan struct{}, 1)} }}

func newWaiter(h *handle) *waiter {
	w := waiterPool.Get().(*waiter)
	w.h = h
	return w
}

// free returns w to the pool. Its ready channel is empty by then.
func (w *waiter) free() {
	*w = waiter{ready: w.ready}
	waiterPool.Put(w)
}

func (w *waiter) wake() { w.ready <- struct{}{} }

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

// open returns the queue of name and counts its caller as a user.
func (b *bucket) open(name string) *queue {
	q := b.queues[name]
	if q == nil {
		if n := len(b.spare); n > 0 {
			q, b.spare = b.spare[n-1], b.spare[:n-1]
		} else {
			q = new(queue)
		}
		q.name = name
		if b.queues == nil {
			b.queues = make(map[string]*queue)
		}
		b.queues[name] = q
	}
	q.users++
	return q
}

const maxSpareQueues = 64

// done ends what open began. A name that nobody uses leaves nothing behind.
func (b *bucket) done(q *queue) {
	if q.users--; q.users > 0 {
		return
	}
	delete(b.queues, q.name)
	*q = queue{}
	if len(b.spare) < maxSpareQueues {
		b.spare = append(b.spare, q)
	}
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
		w.lease, w.how = q.readers.newLease(w.h, now), Joined
		w.wake()
	}
}
