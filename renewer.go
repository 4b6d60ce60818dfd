package holdfast

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// renewer watches over all claims of a client: a heap by what is due next, one timer, and one
// call to the engine for everything that is due in the same slice of time, so that ten
// thousand claims cost no goroutine and a few calls a second.
//
// Most locks are held for less than the timer sleeps. A new claim is therefore only noted in
// its bucket; the next tick takes those that are still there into the heap.
//
// Lock order: a bucket's mutex before the renewer's.
type renewer struct {
	client *Client
	wake   atomic.Int64 // when the timer fires, a driver.Instant; forever when it is not set

	mu     sync.Mutex
	claims claimHeap
	timer  driver.Timer
	closed bool
	calls  sync.WaitGroup // ticks and renewals under way

	ctx    context.Context // ends the renewals under way when the client closes
	cancel context.CancelFunc
}

// maxSleep bounds how long the timer sleeps while claims are held. Timers stand still while
// the machine is suspended: without the bound, a lease could look alive for a third of its
// TTL after the machine woke up without it.
const maxSleep = time.Second

// slice is how far ahead a tick looks for claims to renew in the same call: a tenth of the
// usual interval, so that any number of leases cost about three calls a second at the
// default TTL.
func (c *Client) slice() time.Duration { return c.cfg.TTL / 30 }

// nextDue is when a claim next needs attention: a renewal, or its end when no renewal would
// move it. A claim that was handed to a lease with a longer TTL may have less time left than
// the usual interval; it is renewed at half of that. Renewals are jittered by a tenth, so
// that processes that started together do not stay together.
func (cl *claim) nextDue(now driver.Instant) driver.Instant {
	if !cl.renewable() {
		return cl.deadline()
	}
	interval := cl.renewEvery
	if cl.expiry != forever {
		interval = min(interval, max(0, cl.expiry.Sub(now))/2)
	}
	jitter := binary.LittleEndian.Uint64(cl.token[:]) % uint64(interval/10+1) // a claim's token is random
	return now.Add(interval - time.Duration(jitter))
}

// renewable reports whether a renewal could move the deadline.
func (cl *claim) renewable() bool {
	return cl.renewEvery > 0 && (cl.holdUntil == forever || cl.expiry < cl.holdUntil)
}

// watch begins to watch over a new claim, which gets attention at due. Its bucket is locked.
//
// A tick first says that the timer is not set and then locks one bucket after the other. A
// claim that is noted before that is taken along; one that is noted after it sees that the
// timer is not set, or when it fires by then.
func (r *renewer) watch(cl *claim, due driver.Instant) {
	b := cl.h.bucket
	cl.due = due
	b.fresh = append(b.fresh, cl)
	cl.slot = int32(len(b.fresh))
	if due < driver.Instant(r.wake.Load()) {
		r.arm(due)
	}
}

// schedule sees to it that cl, which is watched over and live, gets attention at due. Its
// bucket is locked.
func (r *renewer) schedule(cl *claim, due driver.Instant) {
	if !cl.settled {
		cl.due = due
	} else {
		r.mu.Lock()
		r.claims.put(cl, due)
		r.mu.Unlock()
	}
	if due < driver.Instant(r.wake.Load()) {
		r.arm(due)
	}
}

// forget ends the watch over cl. Its bucket is locked.
func (r *renewer) forget(cl *claim) {
	if !cl.settled {
		cl.h.bucket.unnote(cl)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims.drop(cl)
}

// unnote takes a fresh claim out of the bucket's notes.
func (b *bucket) unnote(cl *claim) {
	last := len(b.fresh) - 1
	moved := b.fresh[last]
	b.fresh[cl.slot-1], moved.slot = moved, cl.slot
	b.fresh[last] = nil
	b.fresh = b.fresh[:last]
	cl.slot = 0
}

// settleFresh takes the fresh claims of all buckets into the heap.
func (r *renewer) settleFresh() {
	for i := range r.client.buckets {
		b := &r.client.buckets[i]
		b.mu.Lock()
		if len(b.fresh) > 0 {
			r.mu.Lock()
			for _, cl := range b.fresh {
				cl.settled, cl.slot = true, 0
				r.claims.put(cl, cl.due)
			}
			r.mu.Unlock()
			clear(b.fresh)
			b.fresh = b.fresh[:0]
		}
		b.mu.Unlock()
	}
}

// arm sets the timer for due, unless it fires before that. The timer is never stopped when
// the last claim is gone: it fires once in vain, which is cheaper.
func (r *renewer) arm(due driver.Instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || due >= driver.Instant(r.wake.Load()) {
		return
	}
	now := r.client.clock.Now()
	wake := min(due, now.Add(maxSleep))
	r.wake.Store(int64(wake))
	d := max(0, wake.Sub(now))
	if r.timer == nil {
		r.timer = r.client.clock.AfterFunc(d, r.tick)
	} else {
		r.timer.Reset(d)
	}
}

// tick takes care of everything that is due.
func (r *renewer) tick() {
	if !r.begin() {
		return
	}
	defer r.calls.Done()
	c := r.client
	r.settleFresh()
	now := c.clock.Now()
	var batch []*claim
	for _, cl := range r.takeDue(now.Add(c.slice())) {
		switch r.attend(cl, now) {
		case attendRenew:
			batch = append(batch, cl)
		case attendEnd:
			c.expire(cl)
		}
	}
	if len(batch) > 0 {
		// A call that hangs must not keep others from being told of their loss.
		r.calls.Add(1)
		go r.renew(batch)
	}
	if due := r.firstDue(); due != forever {
		r.arm(due)
	}
}

// begin counts a tick and says that the timer is not set any more.
func (r *renewer) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.calls.Add(1)
	r.wake.Store(int64(forever))
	return true
}

// takeDue removes what is due by horizon from the heap.
func (r *renewer) takeDue(horizon driver.Instant) (due []*claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.claims) > 0 && r.claims[0].due <= horizon {
		due = append(due, heap.Pop(&r.claims).(*claim))
	}
	return due
}

// firstDue is when the first claim is due. While there are claims the timer is set, however
// late that is, because it bounds how long a suspension goes unnoticed.
func (r *renewer) firstDue() driver.Instant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.claims) == 0 {
		return forever
	}
	return min(r.claims[0].due, forever-1)
}

type attention uint8

const (
	attendNot   attention = iota // nothing to do, or put back into the heap
	attendRenew                  // renew it
	attendEnd                    // its deadline has passed
)

// attend decides what a claim needs. While it is renewed it stays in the heap with its
// deadline: whether the reply comes or not, its holder is told in time.
func (r *renewer) attend(cl *claim, now driver.Instant) attention {
	cl.h.bucket.mu.Lock()
	defer cl.h.bucket.mu.Unlock()
	end := cl.deadline()
	switch {
	case cl.state != live:
		return attendNot
	case now >= end:
		return attendEnd
	case cl.renewing || !cl.renewable():
		r.schedule(cl, end)
		return attendNot
	}
	cl.renewing = true
	r.schedule(cl, end)
	return attendRenew
}

// renew renews a batch of claims in one call.
func (r *renewer) renew(batch []*claim) {
	defer r.calls.Done()
	c := r.client
	sent := c.clock.Now()
	claims := make([]driver.Claim, len(batch))
	patience := time.Duration(1<<63 - 1)
	for i, cl := range batch {
		cl.h.bucket.mu.Lock()
		claims[i] = cl.driverClaim()
		claims[i].TTL = cl.renewTTL(sent)
		patience = min(patience, cl.ttl/3)
		cl.h.bucket.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	errs := c.engine.Renew(ctx, claims)
	cancel()
	failed := 0
	for i, cl := range batch {
		if errs[i] != nil {
			failed++
		}
		r.settle(cl, sent, claims[i].TTL, errs[i])
	}
	if m := c.cfg.Metrics; m != nil {
		m.Renewed(len(batch), failed, c.clock.Now().Sub(sent))
	}
}

// settle enters the answer to a renewal into the books.
func (r *renewer) settle(cl *claim, sent driver.Instant, ttl time.Duration, err error) {
	cl.h.bucket.mu.Lock()
	cl.endRenewal()
	err = cl.renewedFor(sent, ttl, err)
	if cl.state == live && err == nil {
		r.schedule(cl, cl.nextDue(sent))
	} else if cl.state == live && !isLoss(err) {
		// The engine did not answer. Ask again soon, until the deadline.
		retry := cl.ttl/20 + time.Duration(rand.Int64N(int64(cl.ttl)/40+1))
		r.schedule(cl, min(cl.deadline(), r.client.clock.Now().Add(retry)))
		err = nil
	}
	cl.h.bucket.mu.Unlock()
	if err != nil {
		r.client.lose(cl, r.client.lossCause(cl, err))
	}
}

// renewedFor moves the expiry after a renewal that succeeded. A reply that is read after the
// deadline comes too late: the holder may have been told, and a lease never comes back.
func (cl *claim) renewedFor(sent driver.Instant, ttl time.Duration, err error) error {
	if err != nil || cl.state != live {
		return err
	}
	if cl.h.client.clock.Now() >= cl.deadline() {
		return driver.Fail(driver.Lost, errLate)
	}
	cl.prolong(sent, ttl)
	return nil
}

func (cl *claim) endRenewal() {
	cl.renewing = false
	if cl.renewed != nil {
		close(cl.renewed)
		cl.renewed = nil
	}
}

// awaitRenewal waits until no renewal of cl is under way, and reports whether that came
// before ctx ended.
func (c *Client) awaitRenewal(ctx context.Context, cl *claim) bool {
	for {
		cl.h.bucket.mu.Lock()
		if !cl.renewing {
			cl.h.bucket.mu.Unlock()
			return true
		}
		if cl.renewed == nil {
			cl.renewed = make(chan struct{})
		}
		wait := cl.renewed
		cl.h.bucket.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
}

var (
	errExpired = errors.New("its TTL ran out without a renewal")
	errMaxHold = errors.New("it was held for longer than MaxHold")
	errLate    = errors.New("the renewal was answered after the lease had ended")
)

// expire ends a claim whose deadline has passed. Its share is released once it can have run
// out on the engine as well: until then the holder that was just told has time to stop, and
// an engine that keeps shares until they are released gets it back.
func (c *Client) expire(cl *claim) {
	cause := errExpired
	cl.h.bucket.mu.Lock()
	if cl.holdUntil <= cl.expiry { // never both forever: it would not have ended
		cause = errMaxHold
	}
	claim, grace := cl.driverClaim(), cl.ttl-usable(cl.ttl)
	cl.h.bucket.mu.Unlock()
	if c.lose(cl, c.lossCause(cl, cause)) {
		c.janitor.cleanAfter(grace, claim, cl.ttl)
	}
}

// lossCause is the error that contexts of a lost lease end with.
func (c *Client) lossCause(cl *claim, err error) *Error {
	var d *driver.Error
	if errors.As(err, &d) {
		err = d.Err
	}
	return &Error{Op: "hold", Name: cl.h.name, Engine: c.caps.Engine, Kind: ErrLost, Outcome: Applied, Err: err}
}

// isLoss reports whether an engine's answer to a renewal says that the share is gone.
func isLoss(err error) bool {
	var d *driver.Error
	return errors.As(err, &d) && (d.Kind == driver.Lost || d.Kind == driver.NotHeld)
}

// close stops the renewals and returns the claims that were live.
func (r *renewer) close() []*claim {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.cancel()
	r.calls.Wait() // what a tick has taken from the heap is back in it then
	r.settleFresh()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.claims)
}

// claimHeap is a heap of claims by what is due first.
type claimHeap []*claim

func (h claimHeap) Len() int           { return len(h) }
func (h claimHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h claimHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = int32(i+1), int32(j+1)
}

// put moves cl to due, or adds it.
func (h *claimHeap) put(cl *claim, due driver.Instant) {
	cl.due = due
	if cl.slot > 0 {
		heap.Fix(h, int(cl.slot-1))
	} else {
		heap.Push(h, cl)
	}
}

// drop removes cl if it is there.
func (h *claimHeap) drop(cl *claim) {
	if cl.slot > 0 {
		heap.Remove(h, int(cl.slot-1))
	}
}

// Push implements heap.Interface.
func (h *claimHeap) Push(x any) {
	cl := x.(*claim)
	*h = append(*h, cl)
	cl.slot = int32(len(*h))
}

// Pop implements heap.Interface.
func (h *claimHeap) Pop() any {
	last := len(*h) - 1
	cl := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	cl.slot = 0
	return cl
}
