package drivertest

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"runtime"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var acquireCases = []testCase{
	{
		name:     "try",
		sentence: "answer Held at once, and leave nothing behind, when Wait is false and the share is taken",
		run:      testTry,
	}, {
		name:     "holder",
		sentence: "name the holder in that answer where Capabilities.Holders says so",
		needs:    []ability{holders},
		run:      testHolder,
	}, {
		name:     "wait",
		sentence: "grant to a waiting request after the holder's release, without another call",
		run:      testWait,
	}, {
		name:     "wait-death",
		sentence: "grant to a waiting request after the holder's share ran out",
		run:      testWaitDeath,
	}, {
		name:     "cancel",
		sentence: "return soon after ctx ends, with ctx's error and Held if it waited for a holder, and withdraw the request",
		run:      testCancel,
	}, {
		name:     "cancel-race",
		sentence: "when the grant and the end of ctx coincide, either return the grant or hold nothing",
		run:      testCancelRace,
	}, {
		name:     "done-context",
		sentence: "change nothing when ctx is done before the call",
		run:      testDoneContext,
	}, {
		name:     "idempotent",
		sentence: "answer a repeated request whose token already holds the share with a grant",
		run:      testIdempotent,
	}, {
		name:     "sent",
		sentence: "set Grant.Sent from Capabilities.Clock after Acquire was called and before the request that proved ownership left",
		run:      testSent,
	}, {
		name:     "waited-proof",
		sentence: "after a wait, prove ownership anew: a grant is never older than its Sent",
		run:      testWaitedProof,
	},
}

func testTry(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		holder := x.take(a, x.exclusive(name))
		refused := x.request(name, mode)
		x.refused(b, refused)
		x.refused(a, x.request(name, mode))
		holder.release()
		// Neither a place in the queue nor a late grant may be in the way.
		x.free(a, name)
		time.Sleep(x.Pause)
		x.free(b, name)
		x.absent(b, refused)
	}
}

func testHolder(x *env) {
	a, b := x.open(), x.open()
	for _, owner := range []string{"worker-1/42", "héllo \"wörld\" %s {x}'"} {
		for _, mode := range x.modes() {
			name := x.name()
			req := x.request(name, mode)
			req.Owner = owner
			x.take(a, req)
			asking := x.exclusive(name)
			asking.Owner = "somebody else"
			h := x.refused(b, asking).Holder
			if h == nil {
				x.Fatalf("the refusal does not name the %v holder", mode)
			}
			if h.Owner != owner {
				x.Errorf("%v holder is named %q, want %q", mode, h.Owner, owner)
			}
			if h.Mode != 0 && h.Mode != mode {
				x.Errorf("%v holder is said to be %v", mode, h.Mode)
			}
		}
	}
}

func testWait(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		holder := x.take(a, x.request(name, mode))
		waiting := x.queue(b, x.exclusive(name))
		waiting.waitsOn()
		holder.release()
		excl := waiting.granted()

		// And the other way round, with two that wait, from the holder's own engine and another.
		own, other := x.queue(b, x.request(name, mode)), x.queue(c, x.request(name, mode))
		excl.release()
		first, second := own, other
		select {
		case <-own.done:
		case <-other.done:
			first, second = other, own
		case <-time.After(x.Slack):
			x.Fatalf("waiting %v request was not granted within %v of the release", mode, x.Slack)
		}
		first.granted().release()
		second.granted().release()
	}

	x.meet(a, b)
	name := x.name()
	x.crowd(16, func(*mathrand.Rand) visit {
		return visit{req: x.exclusive(name), enter: func(driver.Grant) {}, leave: runtime.Gosched}
	})
}

// meet has releases meet requests that are only just joining the queue. There is nobody else
// whose call could wake them.
func (x *env) meet(a, b driver.Engine) {
	x.Helper()
	rng := x.random()
	for i := range x.Rounds {
		name := x.name()
		req := x.exclusive(name)
		g, err := x.ask(a, req)
		if err != nil {
			x.Fatalf("request for a free name: %v", err)
		}
		holder := &share{x: x, engine: a, req: req, grant: g}
		late := x.begin(b, name)
		for range 1000 {
			if i%2 == 0 && x.waiters(a, name) != 0 {
				break // it has joined this very moment, as far as can be seen
			} else if i%2 == 1 && rng.IntN(4) == 0 {
				break
			}
			runtime.Gosched()
		}
		holder.release()
		s, err := late.result()
		if err != nil {
			x.Fatalf("waiting request, released as it joined the queue: %v, want a grant", err)
		}
		s.release()
	}
}

func testWaitDeath(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		if !x.caps.Expires {
			// Such a share ends with its process, which is what closing its engine is.
			dying := x.open()
			x.take(dying, x.request(name, mode))
			waiting := x.queue(b, x.exclusive(name))
			dying.Close()
			waiting.granted()
			continue
		}
		x.take(b, x.exclusive(name)).release() // b has its connection
		holder := x.take(a, x.short(name, mode))
		waiting := x.start(context.Background(), b, x.exclusive(name))
		ok := x.eventually(holder.end().Add(x.caps.Resolution), func() bool { return waiting.over(0) })
		if after := x.clock.Now(); ok && after < holder.end() {
			x.Fatalf("waiting request returned %+v, %v, %v before the %v share ran out",
				waiting.grant, waiting.err, holder.end().Sub(after), mode)
		}
		waiting.granted()
	}
}

func testCancel(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		holder := x.take(a, x.exclusive(name))
		gone := x.queue(b, x.request(name, mode))
		gone.canceled()
		holder.release()
		x.free(c, name)
		time.Sleep(x.Pause) // a grant to nobody could come late
		x.free(a, name)
		x.absent(b, gone.req)
	}

	name := x.name()
	holder := x.take(a, x.exclusive(name))
	ctx, cancel := context.WithTimeout(context.Background(), x.Pause)
	defer cancel()
	late := x.start(ctx, b, x.exclusive(name))
	err := late.ended()
	if !errors.Is(err, context.DeadlineExceeded) {
		x.Fatalf("request past its deadline: %v, want %v", err, context.DeadlineExceeded)
	}
	x.wantKind(err, "request past its deadline", nil, driver.Held)

	// Who waits behind the request that is withdrawn is not withdrawn with it.
	gone := x.queue(b, x.exclusive(name))
	behind := x.queue(c, x.exclusive(name))
	gone.canceled()
	behind.waitsOn()
	holder.release()
	behind.granted().release()

	if x.caps.Shared { // nor does it go on waiting behind a request that is no more
		name := x.name()
		x.take(a, x.request(name, driver.Shared))
		writer := x.queue(b, x.exclusive(name))
		reader := x.start(context.Background(), c, x.request(name, driver.Shared))
		reader.over(x.Pause)
		writer.canceled()
		reader.granted()
	}
}

func testCancelRace(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	rng := x.random()
	name := x.name()
	for i := range x.Rounds {
		holder := x.exclusive(name)
		g, err := x.ask(a, holder)
		if err != nil {
			x.Fatalf("nobody holds %q, and it cannot be had: %v", name, err)
		}
		late := x.begin(b, name)
		if rng.IntN(4) > 0 {
			time.Sleep(time.Microsecond) // late waits by now, as a rule
		}
		var behind *racer
		if i%4 == 0 {
			behind = x.begin(c, name)
		}
		held := &share{x: x, engine: a, req: holder, grant: g}
		collide(rng.IntN(4), held.release, late.cancel)
		if s, err := late.result(); err == nil {
			x.taken(c, name)
			s.release()
		} else if !errors.Is(err, context.Canceled) {
			x.Fatalf("cancelled request: %v, want %v", err, context.Canceled)
		}
		if behind != nil {
			s, err := behind.result()
			if err != nil {
				x.Fatalf("request behind a cancelled one: %v, want a grant", err)
			}
			s.release()
		}
	}
	x.free(c, name)
	x.mixture()
}

// racer is a request that waits, made by the thousand: it leaves nothing to clean up.
type racer struct {
	share  share
	cancel context.CancelFunc
	err    chan error
}

func (x *env) begin(e driver.Engine, name string) *racer {
	req := x.exclusive(name)
	req.Wait = true
	r := &racer{share: share{x: x, engine: e, req: req}, err: make(chan error, 1)}
	ctx, cancel := x.patience()
	r.cancel = cancel
	go func() {
		var err error
		r.share.grant, err = e.Acquire(ctx, req)
		r.err <- err
	}()
	return r
}

func (r *racer) result() (*share, error) {
	err := <-r.err
	r.cancel()
	return &r.share, err
}

// collide calls release here and cancel before, after or beside it.
func collide(order int, release, cancel func()) {
	done := make(chan struct{})
	switch order {
	case 0:
		cancel()
		close(done)
	case 1:
		defer cancel()
		close(done)
	default:
		go func() {
			defer close(done)
			if order == 2 {
				runtime.Gosched()
			}
			cancel()
		}()
	}
	release()
	<-done
}

func testDoneContext(x *env) {
	a, b := x.open(), x.open()
	for _, wait := range []bool{false, true} {
		for _, mode := range x.modes() {
			name := x.name()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			req := x.request(name, mode)
			req.Wait = wait
			if g, err := a.Acquire(ctx, req); !errors.Is(err, context.Canceled) {
				x.Fatalf("request under a done context: %+v, %v, want %v", g, err, context.Canceled)
			}
			x.free(b, name)
			time.Sleep(x.Pause)
			x.free(b, name)
		}
	}
}

func testIdempotent(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		req := x.request(name, mode)
		first := x.take(a, req)
		again := x.take(a, req)
		if again.grant.Fence <= first.top() {
			x.Errorf("repeated %v request got fence %d, want more than %d", mode, again.grant.Fence, first.top())
		}
		req.Wait = true
		x.take(a, req)
		x.taken(b, name)

		// However often it was granted, it is one share.
		if mode == driver.Permits {
			x.take(b, x.request(name, mode)).release()
		}
		again.release()
		x.free(b, name)
	}
}

func testSent(x *env) {
	b := x.open()
	for _, mode := range x.modes() {
		name := x.name()
		x.take(b, x.exclusive(name)).release() // b has its connection
		a := x.open()                          // a's first call is the slowest there is
		req := x.exclusive(name)
		if x.caps.Expires {
			req = x.short(name, mode)
		}
		x.pass(x.TTL / 4)
		before := x.clock.Now()
		s := x.take(a, req)
		if after := x.clock.Now(); s.grant.Sent < before || s.grant.Sent > after {
			x.Errorf("Sent is %v, want a reading between %v and %v", s.grant.Sent, before, after)
		}
		if x.caps.Expires {
			// A Sent read after the request left promises time that the share does not have.
			x.freed(b, x.exclusive(name), s.end(), s.end()).release()
		}
	}
}

func testWaitedProof(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	name := x.name()
	holder := x.take(a, x.exclusive(name))
	req := x.exclusive(name)
	if x.caps.Expires {
		req.TTL = x.TTL
	}
	waiting := x.queue(b, req)
	for range 6 { // three TTLs of the request that waits
		holder.alive()
		x.pass(x.TTL / 2)
	}
	waiting.waits()
	before := x.clock.Now()
	holder.release()
	s := waiting.granted()
	// An engine may count a grant from an earlier proof than it could, but not from one that
	// was worth nothing any more.
	if s.end() <= before {
		x.Errorf("the grant ended %v before the release that the request waited for", before.Sub(s.end()))
	}
	if x.caps.Expires {
		x.freed(c, x.exclusive(name), s.end(), s.end()).release()
	}
}
