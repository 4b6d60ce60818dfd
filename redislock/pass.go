package redislock

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// Pass implements driver.Passer. The release and the request travel in one call.
func (e *Engine) Pass(ctx context.Context, claim driver.Claim, req driver.Request) (released error, g driver.Grant, err error) {
	a := ask{e: e, req: &req}
	if err := a.sign(); err != nil {
		return e.Release(ctx, claim), g, err
	}
	back, err := e.release(claim)
	if err != nil {
		return err, g, err
	}
	defer e.leave()
	next := newRequest(a.key, a.op(false), a.id, millis(req.TTL))
	now := e.clock.Now()
	if e.cluster == nil {
		e.only.make(back, next)
	} else {
		e.doAll([]*request{back, next})
	}
	if released = back.await(ctx, 0); released == nil {
		released = e.released(back)
	}
	if err = next.await(ctx, 0); err == nil {
		g, _, err = a.read(next, now)
	}
	return released, g, err
}

// exchangePass sends a release and a request for the same name the short way, and reports
// whether that did.
func (b *batch) exchangePass(c *combiner, f *frame) bool {
	back, next, s := b.requests[0], b.requests[1], &c.engine.single
	if back.op != "r" || next.op[0]|0x20 != 'x' || back.key != next.key || next.poll {
		return false
	}
	f.requests, f.keys = b.requests, 2
	f.args = append(f.args[:0], nil, nil, &f.keys, &next.key, &s.fence, &back.id, &next.op, &next.id, &b.now, &next.ttl)
	reply, err := f.call.send(c.engine.life, b.line, c.node, passScript(), f.args)
	if err == nil && len(reply) == 0 {
		return false
	}
	c.deliver(b.requests, reply, err)
	return true
}
