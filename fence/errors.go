package fence

import (
	"errors"
	"fmt"

	"github.com/holdfast-go/holdfast"
)

// StaleError is the cause of a refusal. It stands in a *holdfast.Error that matches
// holdfast.ErrStale.
type StaleError struct {
	Fence  int64 // the one that was shown
	Stored int64 // the one that is registered, 0 if none is
}

// Overtaken reports whether a later holder has registered. Otherwise the fence that was shown is
// not registered, though no larger one is: Open was not called with it, or not committed, or the
// resource has lost or forgotten it.
func (e *StaleError) Overtaken() bool { return e.Stored > e.Fence }

// Error says what happened, and what to do.
func (e *StaleError) Error() string {
	if e.Overtaken() {
		return fmt.Sprintf("%d was shown, and a later holder has registered %d: stop, and take the lock again", e.Fence, e.Stored)
	}
	there := "none"
	if e.Stored > 0 {
		there = fmt.Sprint(e.Stored)
	}
	return fmt.Sprintf("%d is not registered, %s is: call Open under each lease, before the first read, and commit it", e.Fence, there)
}

// stale refuses a holder.
func stale(op string, n numbers, stored int64) error {
	return &holdfast.Error{Op: op, Name: n.name, Kind: holdfast.ErrStale, Outcome: holdfast.NotApplied,
		Err: &StaleError{Fence: n.fence, Stored: stored}}
}

// invalid reports arguments and settings that are wrong, before anything was done.
func invalid(op, name string, errs ...error) error {
	return &holdfast.Error{Op: op, Name: name, Kind: holdfast.ErrInvalid, Outcome: holdfast.NotApplied, Err: errors.Join(errs...)}
}

// violations is everything that is wrong with arguments and settings.
type violations []error

// check adds a violation where there is one. The text names the field and the remedy.
func (v *violations) check(bad bool, format string, args ...any) {
	if bad {
		*v = append(*v, fmt.Errorf(format, args...))
	}
}

// failed reports that the resource did not answer, or not in a usable way.
func failed(op, name string, outcome holdfast.Outcome, err error) error {
	return &holdfast.Error{Op: op, Name: name, Kind: holdfast.ErrUnavailable, Outcome: outcome, Err: err}
}

// wrap returns an error of the resource as one of this package, and those that are one already
// as they are.
func wrap(op, name string, err error) error {
	var done *holdfast.Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	return failed(op, name, holdfast.Unknown, err)
}
