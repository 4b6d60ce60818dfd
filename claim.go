package holdfast

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/namemap"
)

// claim is what the engine granted to this process. Its leases hold it: one at a time for an
// exclusive claim, which is handed from lease to lease; several at once for a shared one,
// which readers join. Guarded by the bucket's mutex, but for what names another guard.
type claim struct {
	h       *handle               // of the first lease; later ones differ in their times only
	at      *namemap.Entry[queue] // not to be used once the claim is retired
	token   driver.Token
	renewed chan struct{} // closed when the renewal under way ends; made by who waits for that

	mode      driver.Mode // not that of h after an upgrade
	state     claimState
	renewing  bool          // a renewal is under way
	upgrading bool          // an upgrade is under way
	brief     bool          // granted for less than was asked for, and not renewed since
	handed    int32         // hand-overs so far
	atMost    time.Duration // while an upgrade may be granted, for this TTL, at any moment; 0: none may

	ttl        time.Duration
	renewEvery time.Duration  // 0: not renewed
	since      driver.Instant // when the first lease began
	expiry     driver.Instant // until when the share may be relied on, unless it is renewed
	holdUntil  driver.Instant // end of the current lease's MaxHold
	next, top  int64          // fence numbers not handed out yet
	leases     *Lease         // list of the leases that hold the claim
	first      Lease          // storage for the lease that most claims only ever have

	last    *Lease                   // the one whose Unlock releases the claim
	release atomic.Pointer[deadline] // of that release, once the engine asked for it

	// For the renewer. Once settled, slot and due are guarded by its mutex instead.
	settled bool           // due and slot are those of the heap, not of the bucket's notes
	slot    int32          // its place plus one; 0 when it has none
	due     driver.Instant // when it needs attention
	early   time.Duration  // how long before that others may be taken along; with settled
}

type claimState uint8

const (
	live   claimState = iota // its leases hold the lock
	lost                     // ended, expired or broken: nothing is passed on any more
	closed                   // given back by its last lease
)

// forever is the deadline of what does not end by time.
const forever = driver.Instant(math.MaxInt64)

// usable is how long of ttl a lease may be relied on by the local clock, counted from before
// the request left. Taken off are 1 % + 2 ms, the difference that the rates of two sane
// clocks and the resolution of the server's can make, and a twentieth for the holder to stop
// in: its context ends that much earlier than the share can.
func usable(ttl time.Duration) time.Duration {
	return max(0, ttl-ttl/100-2*time.Millisecond-ttl/20)
}

// ttlFor is the TTL whose usable part is d.
func ttlFor(d time.Duration) time.Duration {
	return (d + 2*time.Millisecond) * 100 / 94
}

// newClaim enters into the books what the engine granted for h. The bucket is locked.
func (c *Client) newClaim(at *namemap.Entry[queue], h *handle, req *driver.Request, g driver.Grant) *claim {
	cl := &claim{
		h: h, at: at, mode: h.mode, token: req.Token,
		since: g.Sent, next: g.Fence, top: g.Fence + int64(g.FenceSpan) - 1,
	}
	at.Share()
	cl.adopt(h, g.Sent)
	cl.prolong(g.Sent, g.Lives(h.ttl))
	cl.brief = g.Lives(h.ttl) < h.ttl
	switch h.mode {
	case driver.Exclusive:
		at.Value.excl = cl
	case driver.Shared:
		at.Value.readers = cl
	}
	return cl
}

// adopt takes over the settings of the handle whose lease holds the claim from now on. It
// never moves the expiry of a share that the engine may end: only a renewal does.
func (cl *claim) adopt(h *handle, now driver.Instant) {
	cl.ttl, cl.renewEvery, cl.holdUntil = h.ttl, h.renewEvery, forever
	if end := now.Add(h.maxHold); end > now { // neither none nor beyond the end of time
		cl.holdUntil = end
	}
	if !cl.h.client.caps.Expires {
		cl.expiry = forever
	}
	if h.renewEvery == 0 {
		cl.expiry = min(cl.expiry, now.Add(usable(h.ttl)))
	}
}

// prolong moves the expiry after a grant or a renewal for ttl that was sent at sent.
func (cl *claim) prolong(sent driver.Instant, ttl time.Duration) {
	cl.expiry = forever
	if cl.atMost > 0 {
		ttl = min(ttl, cl.atMost)
	}
	if cl.h.client.caps.Expires || cl.renewEvery == 0 {
		cl.expiry = sent.Add(usable(ttl))
	}
}

// asking notes that the engine is about to be asked for ttl. From then on the share may end
// at sent + ttl, though it was granted for longer, whether the answer arrives or not. It
// reports whether that moved the expiry, and with it the time of what is due next.
func (cl *claim) asking(sent driver.Instant, ttl time.Duration) bool {
	end := sent.Add(usable(ttl))
	if !cl.h.client.caps.Expires || end >= cl.expiry {
		return false
	}
	cl.expiry = end
	return true
}

// deadline is when the leases end unless the claim is renewed, and may be.
func (cl *claim) deadline() driver.Instant { return min(cl.expiry, cl.holdUntil) }

// within is ttl, but no more than the rest of MaxHold needs, so that others get the lock when
// it is over.
func (cl *claim) within(ttl time.Duration, now driver.Instant) time.Duration {
	rest := cl.holdUntil.Sub(now)
	if cl.holdUntil == forever || rest >= ttl {
		return ttl
	}
	return max(cl.h.client.caps.MinTTL, min(ttl, ttlFor(rest)))
}

// driverClaim is the engine's view of the claim.
func (cl *claim) driverClaim() driver.Claim {
	return driver.Claim{
		Name: cl.h.name, Mode: cl.mode, Weight: cl.h.weight, Limit: cl.h.limit,
		Token: cl.token, Owner: cl.h.owner, TTL: cl.ttl, Fence: cl.top,
	}
}

// newLease puts a lease with the next fence number on the claim.
func (cl *claim) newLease(h *handle, now driver.Instant) *Lease {
	l := &cl.first
	if l.claim != nil {
		l = new(Lease)
	}
	l.claim, l.fence, l.began = cl, cl.next, now
	cl.next++
	l.next = cl.leases
	if l.next != nil {
		l.next.prev = l
	}
	cl.leases = l
	return l
}

// drop takes a lease off the claim.
func (cl *claim) drop(l *Lease) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		cl.leases = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
}

// heir returns the waiter that the claim may be handed to, or nil. A predecessor and its
// heir never share a fence: each takes a number of the span that the engine reserved. The
// claim goes back to the engine when the numbers, the count or the window are used up, so
// that other processes get their turn, and when too little of the TTL is left for the heir.
func (cl *claim) heir(now driver.Instant) *waiter {
	w := cl.at.Value.waiters.front()
	if w == nil || cl.mode == driver.Shared || cl.atMost > 0 || w.h.mode != cl.mode ||
		w.h.weight != cl.h.weight || w.h.limit != cl.h.limit || w.h.owner != cl.h.owner {
		return nil
	}
	most := cl.h.client.cfg.MaxLocalHandovers
	if cl.next > cl.top || int(cl.handed) >= most || now.Sub(cl.since) >= w.h.window || !cl.enoughLeft(w.h, now) {
		return nil
	}
	return w
}

// enoughLeft reports whether the claim lives long enough for a new lease of h: a renewal has
// to come in time, and where there is none, see WithoutRenewal for what was promised.
func (cl *claim) enoughLeft(h *handle, now driver.Instant) bool {
	need := max(h.ttl/3, h.ttl-usable(h.ttl))
	if cl.brief {
		need = min(need, cl.expiry.Sub(cl.since)/3) // its renewal is due sooner as well
	}
	if h.renewEvery == 0 {
		need = max(need, usable(h.ttl)-h.window)
	}
	return cl.expiry == forever || cl.expiry.Sub(now) >= need
}

// handOver makes w the holder. The old lease is off the claim by now.
func (cl *claim) handOver(w *waiter, now driver.Instant) {
	cl.handed++
	if !cl.suits(w.h) {
		cl.adopt(w.h, now)
		cl.h.client.renewer.schedule(cl, cl.nextDue(now))
	}
	cl.at.Value.waiters.remove(w)
	w.give(cl.newLease(w.h, now), HandedOver)
	cl.h.bucket.names.Close(cl.at) // the waiter's use; the claim has its own
}

// suits reports whether the claim has the settings of h already.
func (cl *claim) suits(h *handle) bool {
	return cl.ttl == h.ttl && cl.renewEvery == h.renewEvery && cl.holdUntil == forever && h.maxHold == 0
}

// joinable reports whether a reader may join the shared claim: it is young, so that writers
// elsewhere are not kept waiting by readers that relieve each other here, and it has a
// number left.
func (cl *claim) joinable(h *handle, now driver.Instant) bool {
	return cl != nil && cl.state == live && h.mode == driver.Shared &&
		cl.next <= cl.top &&
		now.Sub(cl.since) < h.window && cl.h.owner == h.owner && cl.suits(h) && cl.enoughLeft(h, now)
}

// holder describes the claim to this process's own goroutines.
func (cl *claim) holder(now driver.Instant) *Holder {
	wall := time.Now()
	h := &Holder{Owner: cl.h.owner, Mode: cl.mode, Weight: cl.h.weight, Fence: cl.next - 1}
	h.Since = wall.Add(-now.Sub(cl.since)).Round(0)
	if end := cl.deadline(); end != forever {
		h.Until = wall.Add(end.Sub(now)).Round(0)
	}
	return h
}
