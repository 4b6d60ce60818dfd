package filelock

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// Renew implements driver.Engine. Shares do not expire here: a renewal checks that the share
// is still there, which it is not after a break or when files of the folder were deleted. It
// reads without the guard, so that nobody who is frozen in a section can make holders doubt
// what they hold.
func (e *Engine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	for i := range claims {
		errs[i] = e.renew(ctx, &claims[i])
	}
	return errs
}

func (e *Engine) renew(ctx context.Context, c *driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	m := e.member.Load()
	if !linked(m.file) {
		return driver.Failf(driver.Lost, "file %s was deleted: others take this process for dead", m.path)
	}
	held := false
	err := e.view(ctx, c.Name, func(st *state) {
		s := st.Find(c.Token)
		held = s != nil && s.State != ledger.Waiting && s.Home == m.home
	})
	switch {
	case err != nil && err != errAbsent:
		return err
	case !held:
		return driver.Fail(driver.Lost, nil)
	}
	return nil
}

// Release implements driver.Engine.
func (e *Engine) Release(ctx context.Context, c driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.calls.Done()
	b, err := e.lock(ctx, e.closing, c.Name, false)
	if err == errAbsent {
		return driver.Fail(driver.NotHeld, nil)
	}
	if err != nil {
		return err
	}
	defer e.unlock(b)
	s := b.st.Find(c.Token)
	if s == nil {
		return driver.Fail(driver.NotHeld, nil)
	}
	held := s.State != ledger.Waiting
	b.touch()
	b.st.Remove(c.Token)
	b.settle()
	if err := b.save(); err != nil {
		return err
	}
	if !held {
		e.inbox.deliver(c.Token) // a call that still waits under this token begins anew
		return driver.Fail(driver.NotHeld, nil)
	}
	return nil
}
