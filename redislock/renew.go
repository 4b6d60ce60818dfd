package redislock

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// Renew implements driver.Engine. The claims travel in as few calls as their number needs.
func (e *Engine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	if err := e.enter(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer e.leave()
	under := make([]*request, len(claims))
	for i := range claims {
		c := &claims[i]
		key, id, err := e.sign(c.Name, c.Owner, c.Token)
		if err != nil {
			errs[i] = err
			continue
		}
		under[i] = newRequest(key, e.renewal(c), id, millis(c.TTL))
	}
	e.doAll(under)
	for i, r := range under {
		if r != nil {
			errs[i] = e.renewed(ctx, &claims[i], r)
		}
	}
	return errs
}

// renewal is the op that renews a claim. Its details are for a new master that never heard of
// it.
func (e *Engine) renewal(c *driver.Claim) string {
	if e.cfg.Safety == SingleProcess {
		return "e"
	}
	limit, weight := 0, 1
	if c.Mode == driver.Permits {
		limit, weight = c.Limit, c.Weight
	}
	return "e" + formatInt(c.Fence) + " " + string(letterOf(c.Mode)) + " " + formatInt(int64(limit)) + " " + formatInt(int64(weight))
}

func (e *Engine) renewed(ctx context.Context, c *driver.Claim, r *request) error {
	if err := r.await(ctx, 0); err != nil {
		return err
	}
	word, payload, err := r.word, r.payload, r.err
	r.free()
	if err != nil {
		return err
	}
	ans := protocol.Parse(word, 1)
	switch ans.Renewal() {
	case protocol.Renewed:
		return nil
	case protocol.Lost:
		e.waiters.released(c.Token)
		return driver.Fail(driver.Lost, nil)
	default:
		return e.explain(ans, payload)
	}
}

// Release implements driver.Engine.
func (e *Engine) Release(ctx context.Context, claim driver.Claim) error {
	r, err := e.release(claim)
	if err != nil {
		return err
	}
	defer e.leave()
	e.do(r)
	if err := r.await(ctx, 0); err != nil {
		return err
	}
	return e.released(r)
}

// ReleaseAsync implements driver.AsyncReleaser. The release travels with the next call to
// its server, which leaves as soon as the calling goroutine comes to rest.
func (e *Engine) ReleaseAsync(claim driver.Claim, done func(error)) {
	r, err := e.release(claim)
	if err != nil {
		done(err)
		return
	}
	r.then = func(err error) {
		done(err)
		e.leave()
	}
	e.do(r)
}

// release begins a release. Unless it fails, e.leave has to be called at its end.
func (e *Engine) release(claim driver.Claim) (*request, error) {
	key, id, err := e.sign(claim.Name, "", claim.Token)
	if err != nil {
		return nil, err
	}
	if err := e.enter(context.Background()); err != nil {
		return nil, err
	}
	e.waiters.released(claim.Token)
	return newRequest(key, "r", id, 0), nil
}

// released reads the answer to a release and frees the request.
func (e *Engine) released(r *request) error {
	word, payload, err := r.word, r.payload, r.err
	r.free()
	if err != nil {
		return err
	}
	switch ans := protocol.Parse(word, 1); ans.Kind {
	case protocol.Done:
		return nil
	case protocol.Nothing:
		return driver.Fail(driver.NotHeld, nil)
	default:
		return e.explain(ans, payload)
	}
}
