package holdfast

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"math/rand/v2"
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

// nextDue is when a claim next needs attention: a renewal, or its end when no renewal would
// move it. A claim that was handed to a lease with a longer TTL may have less time left than
// the usual interval; it is renewed at half of that. Renewals are jittered by a tenth, so
// that processes that started together do not stay together.
func (cl *claim) nextDue(now driver.Instant) driver.Instant {
	if !cl.renewable() {
		return cl.deadline()
	}
	interval := cl.renewEvery()
	if cl.expiry != forever {
		interval = min(interval, max(0, cl.expiry.Sub(now))/2)
	}
	// A claim's token is random: its first half is so many 2^-64ths of the largest jitter.
	jitter, _ := bits.Mul64(binary.LittleEndian.Uint64(cl.token[:]), uint64(interval/10+1))
	return min(cl.deadline(), now.Add(interval-time.Duration(jitter)))
}

// renewable reports whether a renewal could move the deadline, or tell of a loss that the
// engine keeps to itself otherwise.
func (cl *claim) renewable() bool {
	return cl.renewed && (cl.expiry == forever || cl.expiry < cl.holdUntil)
}

// renewEvery is how often the claim is renewed.
func (cl *claim) renewEvery() time.Duration { return cl.h.client.cfg.renewEvery(cl.ttl) }

// retryDue is when to renew again after a renewal that was not answered: soon, until the
// deadline.
func (cl *claim) retryDue(now driver.Instant) driver.Instant {
	pause := cl.ttl/20 + time.Duration(rand.Int64N(int64(cl.ttl)/40+1))
	return min(cl.deadline(), now.Add(pause))
}

// watch begins to watch over a new claim, which gets attention at due. Its bucket is locked.
//
// A tick first says that the timer is not set and then locks one bucket after the other. A
// claim that is noted before that is taken along; one that is noted after it sees that the
// timer is not set, or when it fires by then.
func (r *renewer) watch(cl *claim, due driver.Instant) {
	b := cl.h.bucket
	b.fresh = append(b.fresh, watched{claim: cl, due: due})
	cl.slot = int32(len(b.fresh))
	if due < driver.Instant(r.wake.Load()) {
		r.arm(due)
	}
}

// schedule sees to it that cl, which is watched over and live, gets attention at due. Its
// bucket is locked.
func (r *renewer) schedule(cl *claim, due driver.Instant) {
	if !cl.settled {
		cl.h.bucket.fresh[cl.slot-1].due = due
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
	r.claims.drop(cl)
	r.mu.Unlock()
}

// unnote takes a fresh claim out of the bucket's notes.
func (b *bucket) unnote(cl *claim) {
	last := len(b.fresh) - 1
	if cl != b.fresh[last].claim {
		moved := b.fresh[last]
		b.fresh[cl.slot-1], moved.slot = moved, cl.slot
	}
	b.fresh[last] = watched{}
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
			for _, w := range b.fresh {
				w.settled, w.slot = true, 0
				r.claims.put(w.claim, w.due)
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
	// The patience with a call is that of its shortest TTL, so claims whose TTLs are far
	// apart do not go together.
	var batches map[int][]*claim
	for _, cl := range r.takeDue(now) {
		switch what, ttl := r.attend(cl, now); what {
		case attendRenew:
			if batches == nil {
				batches = make(map[int][]*claim, 1)
			}
			order := bits.Len64(uint64(ttl))
			batches[order] = append(batches[order], cl)
		case attendEnd:
			c.expire(cl)
		}
	}
	for _, batch := range batches {
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

// takeDue removes what is due from the heap. With the first claim it takes what is due within
// a tenth of that claim's interval, so that any number of leases cost about three calls a
// second at the default TTL.
func (r *renewer) takeDue(now driver.Instant) (due []*claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.claims) == 0 {
		return nil
	}
	for horizon := now.Add(r.claims[0].early); len(r.claims) > 0 && r.claims[0].due <= horizon; {
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
func (r *renewer) attend(cl *claim, now driver.Instant) (attention, time.Duration) {
	cl.h.bucket.mu.Lock()
	defer cl.h.bucket.mu.Unlock()
	end := cl.deadline()
	switch {
	case cl.state != live:
		return attendNot, 0
	case now >= end:
		return attendEnd, 0
	case cl.renewing || !cl.renewable():
		r.schedule(cl, end)
		return attendNot, 0
	}
	cl.renewing = true
	r.schedule(cl, end)
	return attendRenew, cl.ttl
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
		claims[i].TTL = cl.within(cl.ttl, sent)
		patience = min(patience, cl.ttl/3)
		if cl.asking(sent, claims[i].TTL) && cl.state == live {
			r.schedule(cl, cl.deadline())
		}
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
	if !cl.renewed && err == nil {
		ttl = 0 // it was handed to a lease that is not to be renewed
	}
	finish := cl.renewedFor(sent, ttl, err)
	cl.h.bucket.mu.Unlock()
	finish()
}

// renewedFor enters the answer to a renewal for ttl into the books, and schedules the next
// one. A reply that is read after the deadline comes too late: the holder may have been told,
// and a lease never comes back. With ttl 0 the expiry stays where it is. It returns what is
// left to do without the bucket's mutex.
func (cl *claim) renewedFor(sent driver.Instant, ttl time.Duration, err error) func() {
	c := cl.h.client
	now := c.clock.Now()
	switch {
	case cl.state == lost && err == nil:
		// It was released when it was lost, which may have failed; its TTL is a new one.
		claim := cl.driverClaim()
		claim.TTL = max(claim.TTL, ttl)
		return func() { c.janitor.cleanAfter(cl.grace(), claim, claim.TTL) }
	case cl.state != live:
	case isLoss(err):
		return func() { c.lose(cl, c.lossCause(cl, err)) }
	case err != nil:
		c.renewer.schedule(cl, cl.retryDue(now))
	case now >= cl.deadline():
		return func() { c.end(cl, errLate, max(cl.ttl, ttl)) }
	default:
		if ttl > 0 {
			cl.brief = false
			cl.prolong(sent, ttl)
		}
		c.renewer.schedule(cl, cl.nextDue(sent))
	}
	return func() {}
}

func (cl *claim) endRenewal() {
	cl.renewing = false
	if cl.answer != nil {
		close(cl.answer)
		cl.answer = nil
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
		if cl.answer == nil {
			cl.answer = make(chan struct{})
		}
		wait := cl.answer
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

// expire ends a claim whose deadline has passed.
func (c *Client) expire(cl *claim) {
	cause := errExpired
	cl.h.bucket.mu.Lock()
	if cl.holdUntil <= cl.expiry { // never both forever: it would not have ended
		cause = errMaxHold
	}
	ttl := cl.ttl
	cl.h.bucket.mu.Unlock()
	c.end(cl, cause, ttl)
}

// end ends a claim that the engine may still hold for ttl. Its share is released once it can
// have run out on the engine as well: until then the holder that was just told has time to
// stop, and an engine that keeps shares until they are released gets it back.
func (c *Client) end(cl *claim, cause error, ttl time.Duration) {
	if c.lose(cl, c.lossCause(cl, cause)) {
		c.janitor.cleanAfter(cl.grace(), cl.driverClaim(), ttl)
	}
}

// grace is the time between the end of the leases and that of the share.
func (cl *claim) grace() time.Duration { return cl.ttl - usable(cl.ttl) }

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
	claims := make([]*claim, len(r.claims))
	for i, w := range r.claims {
		claims[i] = w.claim
	}
	return claims
}

// watched is a claim that is watched over.
type watched struct {
	*claim
	due   driver.Instant // when it needs attention
	early time.Duration  // how long before that others may be taken along; in the heap only
}

// claimHeap is a heap of claims by what is due first.
type claimHeap []watched

func (h claimHeap) Len() int           { return len(h) }
func (h claimHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h claimHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = int32(i+1), int32(j+1)
}

// put moves cl to due, or adds it. Its bucket is locked.
func (h *claimHeap) put(cl *claim, due driver.Instant) {
	w := watched{cl, due, 0}
	if cl.renewed {
		w.early = cl.renewEvery() / 10
	}
	if cl.slot > 0 {
		(*h)[cl.slot-1] = w
	} else {
		*h = append(*h, w)
		cl.slot = int32(len(*h))
	}
	heap.Fix(h, int(cl.slot-1))
}

// drop removes cl if it is there.
func (h *claimHeap) drop(cl *claim) {
	if cl.slot > 0 {
		heap.Remove(h, int(cl.slot-1))
	}
}

// Push implements heap.Interface. put does without it: x would be an allocation.
func (h *claimHeap) Push(x any) { *h = append(*h, x.(watched)) }

// Pop implements heap.Interface. It returns the claim alone.
func (h *claimHeap) Pop() any {
	last := len(*h) - 1
	cl := (*h)[last].claim
	(*h)[last] = watched{}
	*h = (*h)[:last]
	cl.slot = 0
	return cl
}
