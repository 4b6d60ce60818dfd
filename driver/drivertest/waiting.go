package drivertest

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// pending is a request that waits, in a goroutine of its own.
type pending struct {
	x      *env
	engine driver.Engine
	req    driver.Request
	cancel context.CancelFunc
	done   chan struct{} // closed after grant and err are set
	grant  driver.Grant
	err    error
}

// start has req wait under ctx.
func (x *env) start(ctx context.Context, e driver.Engine, req driver.Request) *pending {
	req.Wait = true
	p := &pending{x: x, engine: e, req: req, done: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	go func() {
		defer close(p.done)
		p.grant, p.err = e.Acquire(ctx, req)
	}()
	x.Cleanup(func() {
		p.cancel()
		if !p.over(x.Slack) {
			x.Errorf("Acquire did not return within %v of the end of its context", x.Slack)
			return
		}
		if p.err == nil {
			x.granted(e, req, p.grant).tryRelease()
		}
	})
	return p
}

// queue has req wait and returns when it has joined the queue, as far as that can be seen.
func (x *env) queue(e driver.Engine, req driver.Request) *pending {
	x.Helper()
	return x.queueContext(context.Background(), e, req)
}

func (x *env) queueContext(ctx context.Context, e driver.Engine, req driver.Request) *pending {
	x.Helper()
	before := x.waiters(e, req.Name)
	p := x.start(ctx, e, req)
	if before < 0 {
		p.over(x.Pause)
	}
	for i := 0; before >= 0 && i < 1000 && x.waiters(e, req.Name) <= before; i++ {
		if p.over(x.Pause / 100) {
			break
		}
	}
	p.waits()
	return p
}

// waiters counts the requests that wait for name, -1 where the engine cannot.
func (x *env) waiters(e driver.Engine, name string) int {
	ins, ok := e.(driver.Inspector)
	if !ok {
		return -1
	}
	ctx, cancel := x.patience()
	defer cancel()
	info, err := ins.Inspect(ctx, name)
	if err != nil {
		return -1
	}
	return info.Waiters
}

// over reports whether the call has returned, giving it d to do so.
func (p *pending) over(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// waits ends the case when the call has returned.
func (p *pending) waits() {
	p.x.Helper()
	select {
	case <-p.done:
		p.x.Fatalf("waiting %v request returned %+v, %v, want it to wait on", p.req.Mode, p.grant, p.err)
	default:
	}
}

// waitsOn is waits after a while.
func (p *pending) waitsOn() {
	p.x.Helper()
	p.over(p.x.Pause)
	p.waits()
}

// granted returns the share, which has to come.
func (p *pending) granted() *share {
	p.x.Helper()
	if !p.over(p.x.Slack) {
		p.x.Fatalf("waiting %v request for %q was not granted within %v", p.req.Mode, p.req.Name, p.x.Slack)
	}
	if p.err != nil {
		p.x.Fatalf("waiting %v request for %q: %v, want a grant", p.req.Mode, p.req.Name, p.err)
	}
	return &share{x: p.x, engine: p.engine, req: p.req, grant: p.grant}
}

// ended returns the error with which the call has to return.
func (p *pending) ended() error {
	p.x.Helper()
	if !p.over(p.x.Slack) {
		p.x.Fatalf("waiting %v request did not return within %v", p.req.Mode, p.x.Slack)
	}
	if p.err == nil {
		p.x.Fatalf("waiting %v request was granted %+v, want an error", p.req.Mode, p.grant)
	}
	return p.err
}

// canceled cancels the call, which has to return with the context's error.
func (p *pending) canceled() {
	p.x.Helper()
	p.cancel()
	if err := p.ended(); !errors.Is(err, context.Canceled) {
		p.x.Fatalf("cancelled request: %v, want %v", err, context.Canceled)
	}
}

// pass lets d pass for the engine.
func (x *env) pass(d time.Duration) {
	if x.store.Advance == nil {
		time.Sleep(d)
		return
	}
	x.store.Advance(d)
	time.Sleep(x.Pause / 100) // what the clock set off gets a chance to run
}

// eventually lets time pass until done reports true, which it has to when the clock shows
// limit, give or take what a busy machine needs.
func (x *env) eventually(limit driver.Instant, done func() bool) bool {
	for x.clock.Now() < limit.Add(x.Slack) {
		if done() {
			return true
		}
		x.pass(x.TTL / 16)
	}
	for range 100 { // a clock that is moved by hand has not given the engine real time yet
		if done() {
			return true
		}
		time.Sleep(x.Slack / 100)
	}
	return false
}

// anyTime is before all readings of a clock, which may be negative.
const anyTime = driver.Instant(math.MinInt64)

// freed lets time pass until req is granted to e, which has to happen by limit, and not
// before the clock shows notBefore.
func (x *env) freed(e driver.Engine, req driver.Request, notBefore, limit driver.Instant) *share {
	x.Helper()
	var s *share
	var after driver.Instant
	ok := x.eventually(limit.Add(x.caps.Resolution), func() bool {
		g, err := x.ask(e, req)
		after = x.clock.Now()
		if err == nil {
			s = x.granted(e, req, g)
		}
		return err == nil
	})
	if !ok {
		x.Fatalf("%q was not free %v after it had to be", req.Name, x.Slack)
	}
	// The clock was read after the grant, so it can only flatter the engine.
	if after < notBefore {
		x.Fatalf("%q was free %v too early", req.Name, notBefore.Sub(after))
	}
	return s
}

// attempts runs f until it reports that the machine was fast enough for its answer to count.
func (x *env) attempts(f func() bool) {
	x.Helper()
	for range 50 {
		if f() {
			return
		}
	}
	x.Fatalf("the machine never kept up with a TTL of %v: choose a longer one in the Harness", x.TTL)
}
