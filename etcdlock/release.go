package etcdlock

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// Release implements driver.Engine: one round trip.
func (e *Engine) Release(ctx context.Context, c driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	if held, ok := e.claims.remove(c.Token); ok {
		return e.refused(ctx, e.giveBack(ctx, held))
	}
	e.claims.awaitEnd(ctx, c.Token)
	key := e.claims.asked(c.Token)
	if key == "" {
		return driver.Fail(driver.NotHeld, nil)
	}
	// The request waits, or it is not known what became of it.
	found, err := e.delete(ctx, c.Name, key)
	if err != nil {
		return e.refusal(ctx, err)
	}
	e.claims.forget(c.Token)
	if !found {
		return driver.Fail(driver.NotHeld, nil)
	}
	return nil
}

// giveBack deletes the key of a claim that was struck out. Where that fails, the key goes with
// its lease, which the others leave, unless the release is repeated before.
func (e *Engine) giveBack(ctx context.Context, held claim) error {
	found, err := e.delete(ctx, held.name, held.place.key)
	switch {
	case err != nil:
		e.giveUp(held.lease)
		e.giveUp(held.place.home.id)
		e.claims.left(held)
		return err
	case !found:
		held.place.leave()
		return driver.Fail(driver.NotHeld, nil)
	}
	held.place.leave()
	return nil
}

// refused is refusal for what may be no error.
func (e *Engine) refused(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return e.refusal(ctx, err)
}
