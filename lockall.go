package holdfast

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Leases are several locks that are held together.
type Leases struct {
	leases []*Lease // in the order of the arguments of LockAll
	ctx    context.Context
	cancel context.CancelCauseFunc
	stops  []func() bool
}

// LockAll takes all locks or none. It takes them one after the other in one order that is
// the same in every process (by name, then engine, then server), so that callers that lock
// the same names in any order do not wait for each other for ever; locks may be of different
// clients and engines. ctx bounds the whole. When it fails, what was taken is released.
//
// The same lock twice is an ErrInvalid: its second half would wait for the first.
func LockAll(ctx context.Context, locks ...*Mutex) (*Leases, error) {
	order, err := canonicalOrder(locks)
	if err != nil {
		return nil, err
	}
	all := &Leases{leases: make([]*Lease, len(locks))}
	for _, i := range order {
		l, err := locks[i].Lock(ctx)
		if err != nil {
			return nil, errors.Join(err, all.Unlock())
		}
		all.leases[i] = l
	}
	all.watch(ctx)
	return all, nil
}

// canonicalOrder returns the indices of locks in the order in which to take them.
func canonicalOrder(locks []*Mutex) ([]int, error) {
	order := make([]int, len(locks))
	for i, m := range locks {
		if m == nil {
			return nil, &Error{Op: "lockall", Kind: ErrInvalid, Outcome: NotApplied, Err: fmt.Errorf("lock %d is nil", i)}
		}
		if m.h.err != nil {
			return nil, m.h.err
		}
		order[i] = i
	}
	compare := func(i, j int) int {
		a, b := &locks[i].h, &locks[j].h
		return cmp.Or(
			cmp.Compare(a.name, b.name),
			cmp.Compare(a.client.caps.Engine, b.client.caps.Engine),
			cmp.Compare(a.client.caps.Instance, b.client.caps.Instance),
		)
	}
	slices.SortStableFunc(order, compare)
	for k := 1; k < len(order); k++ {
		m := locks[order[k]]
		if prev := locks[order[k-1]]; compare(order[k-1], order[k]) == 0 && m.h.client == prev.h.client {
			return nil, m.h.client.fail("lockall", m.h.name, ErrInvalid, errors.New("it is asked for twice"))
		}
	}
	return order, nil
}

// watch makes the context that ends with the first lease that does.
func (a *Leases) watch(ctx context.Context) {
	a.ctx, a.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	for _, l := range a.leases {
		held := l.Context()
		a.stops = append(a.stops, context.AfterFunc(held, func() { a.cancel(context.Cause(held)) }))
	}
}

// Context returns a context that ends as soon as one of the leases does, with its cause.
func (a *Leases) Context() context.Context { return a.ctx }

// All returns the leases in the order of LockAll's arguments.
func (a *Leases) All() []*Lease { return slices.Clone(a.leases) }

// Unlock releases all of them, and returns the errors joined.
func (a *Leases) Unlock() error {
	for _, stop := range a.stops {
		stop()
	}
	var errs []error
	for _, l := range a.leases {
		if l != nil {
			errs = append(errs, l.Unlock())
		}
	}
	if a.cancel != nil {
		a.cancel(nil)
	}
	return errors.Join(errs...)
}
