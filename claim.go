package holdfast

import (
	"context"
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
	h      *handle               // of the first lease; later ones differ in their times only
	at     *namemap.Entry[queue] // not to be used once the claim is retired
	token  driver.Token
	answer chan struct{} // closed when the renewal under way ends; made by who waits for that

	mode      driver.Mode // not that of h after an upgrade
	state     claimState
	renewed   bool          // it is renewed, every so often as the TTL says
	renewing  bool          // a renewal is under way
	upgrading bool          // an upgrade is under way
	brief     bool          // granted for less than was asked for, and not renewed since
	passes    uint8         // how many in a row led to it, see maxPasses
	settled   bool          // slot is that in the renewer's heap, and guarded by the renewer's mutex
	slot      int32         // place plus one in the bucket's notes or in that heap; 0: in neither
	left      int32         // fence numbers not handed out yet: from next on
	atMost    time.Duration // while an upgrade may be granted, for this TTL, at any moment; 0: none may

	ttl       time.Duration
	expiry    driver.Instant           // until when the share may be relied on, unless it is renewed
	holdUntil driver.Instant           // end of the current lease's MaxHold
	next      int64                    // fence number of the next lease
	release   atomic.Pointer[deadline] // of the release, once the engine asked for it

	// first is the lease that most claims only ever have. It is the head of the list of those
	// that hold the claim, and stays in it when it does not hold the claim any more.
	first Lease
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
		next: g.Fence, left: int32(min(g.FenceSpan, req.Span)), // no more were asked for
	}
	at.Share()
	cl.adopt(h, g.Sent)
	cl.prolong(g.Sent, g.Lives(h.ttl))
	cl.brief = g.Lives(h.ttl) < h.ttl
	if g.Waited {
		cl.passes = maxPasses // others want it as well: from here it goes back for all to see
	}
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
	cl.ttl, cl.renewed, cl.holdUntil = h.ttl, h.renewed, forever
	if end := now.Add(h.maxHold); end > now { // neither none nor beyond the end of time
		cl.holdUntil = end
	}
	if !cl.h.client.caps.Expires {
		cl.expiry = forever
	}
	if !h.renewed {
		cl.expiry = min(cl.expiry, now.Add(usable(h.ttl)))
	}
}

// prolong moves the expiry after a grant or a renewal for ttl that was sent at sent.
func (cl *claim) prolong(sent driver.Instant, ttl time.Duration) {
	cl.expiry = forever
	if cl.atMost > 0 {
		ttl = min(ttl, cl.atMost)
	}
	if cl.h.client.caps.Expires || !cl.renewed {
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
func (cl *claim) driverClaim() (d driver.Claim) {
	cl.describe(&d)
	return d
}

// describe writes the engine's view of the claim to d, field by field: the compiler builds a
// literal elsewhere and copies it at once, in larger pieces than it was written, for which the
// processor has to wait until the writes have left its store buffer.
func (cl *claim) describe(d *driver.Claim) {
	d.Name, d.Mode, d.Weight, d.Limit = cl.h.name, cl.mode, cl.h.weight, cl.h.limit
	d.Token, d.Owner, d.TTL, d.Fence = cl.token, cl.h.owner, cl.ttl, cl.next+int64(cl.left)-1
}

// newLease puts a lease with the next fence number on the claim. It carries the values of ctx.
func (cl *claim) newLease(ctx context.Context, now driver.Instant) *Lease {
	first := &cl.first
	l := first
	if first.claim != nil {
		l = &Lease{prev: first, next: first.next}
		if l.next != nil {
			l.next.prev = l
		}
		first.next = l
	}
	l.claim, l.fence, l.began, l.values = cl, cl.next, now, ctx
	cl.next++
	cl.left--
	return l
}

// drop takes a lease that has ended off the claim.
func (cl *claim) drop(l *Lease) {
	if l == &cl.first {
		return
	}
	l.prev.next = l.next
	if l.next != nil {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
}

// held reports whether a lease holds the claim.
func (cl *claim) held() bool { return cl.first.state == leaseHeld || cl.first.next != nil }

// since is when the first lease began.
func (cl *claim) since() driver.Instant { return cl.first.began }

// heir returns the waiter that the claim may be handed to, or nil. A predecessor and its
// heir never share a fence: each takes a number of the span that the engine reserved. The
// claim goes back to the engine when the numbers or the window are used up, so that other
// processes get their turn, and when too little of the TTL is left for the heir. The numbers
// bound the count as well: no more are asked for than MaxLocalHandovers allows.
func (cl *claim) heir(now driver.Instant) *waiter {
	w := cl.at.Value.waiters.front()
	if w == nil || cl.mode == driver.Shared || cl.atMost > 0 || w.h.mode != cl.mode ||
		w.h.weight != cl.h.weight || w.h.limit != cl.h.limit || w.h.owner != cl.h.owner || w.h.async != cl.h.async {
		return nil
	}
	if cl.left < 1 || now.Sub(cl.since()) >= w.h.window || !cl.enoughLeft(w.h, now) {
		return nil
	}
	return w
}

// enoughLeft reports whether the claim lives long enough for a new lease of h: a renewal has
// to come in time, and where there is none, see WithoutRenewal for what was promised.
func (cl *claim) enoughLeft(h *handle, now driver.Instant) bool {
	need := max(h.ttl/3, h.ttl-usable(h.ttl))
	if cl.brief {
		need = min(need, cl.expiry.Sub(cl.since())/3) // its renewal is due sooner as well
	}
	if !h.renewed {
		need = max(need, usable(h.ttl)-h.window)
	}
	return cl.expiry == forever || cl.expiry.Sub(now) >= need
}

// handOver makes w the holder. The old lease is off the claim by now.
func (cl *claim) handOver(w *waiter, now driver.Instant) {
	if !cl.suits(w.h) {
		cl.adopt(w.h, now)
		cl.h.client.renewer.schedule(cl, cl.nextDue(now))
	}
	cl.at.Value.waiters.remove(w)
	w.give(cl.newLease(w.ctx, now), HandedOver)
	cl.h.bucket.names.Close(cl.at) // the waiter's use; the claim has its own
}

// suits reports whether the claim has the settings of h already.
func (cl *claim) suits(h *handle) bool {
	return cl.ttl == h.ttl && cl.renewed == h.renewed && cl.holdUntil == forever && h.maxHold == 0
}

// joinable reports whether a reader may join the shared claim: it is young, so that writers
// elsewhere are not kept waiting by readers that relieve each other here, and it has a
// number left.
func (cl *claim) joinable(h *handle, now driver.Instant) bool {
	return cl != nil && cl.state == live && h.mode == driver.Shared &&
		cl.left > 0 &&
		now.Sub(cl.since()) < h.window && cl.h.owner == h.owner && cl.h.async == h.async && cl.suits(h) && cl.enoughLeft(h, now)
}

// holder describes the claim to this process's own goroutines.
func (cl *claim) holder(now driver.Instant) *Holder {
	wall := time.Now()
	h := &Holder{Owner: cl.h.owner, Mode: cl.mode, Weight: cl.h.weight, Fence: cl.next - 1}
	h.Since = wall.Add(-now.Sub(cl.since())).Round(0)
	if end := cl.deadline(); end != forever {
		h.Until = wall.Add(end.Sub(now)).Round(0)
	}
	return h
}
