package mysqllock

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// Release implements driver.Engine.
func (e *Engine) Release(ctx context.Context, c driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	n := e.open(c.Name)
	defer e.close(c.Name)
	for {
		if err := e.idle(ctx, n); err != nil {
			return err
		}
		if sh := n.find(c.Token); sh != nil {
			done := make(chan error, 1)
			j := e.givingBack(n, sh, func(err error) { done <- err })
			e.mu.Unlock()
			sh.session.perform(ctx, j)
			select {
			case err := <-done: // asked first: some contexts set a timer when somebody waits for their end
				return released(err)
			default:
			}
			select {
			case err := <-done:
				return released(err)
			case <-ctx.Done():
				return ended(ctx.Err())
			}
		}
		a := n.asking[c.Token]
		e.mu.Unlock()
		if a == nil {
			return errNotHeld
		}
		a.withdraw(errWithdrawn)
		select {
		case <-a.over:
		case <-ctx.Done():
			return ended(ctx.Err())
		}
	}
}

// released is what Release returns when the session has given back the share, or failed to with err.
func released(err error) error {
	if err != nil {
		return driver.Fail(driver.Lost, err)
	}
	return nil
}
