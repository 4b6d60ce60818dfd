package fence

import (
	"context"
	"errors"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
)

// MaxFence is the largest fence, 2^53-1: up to there JSON, JavaScript and Lua keep numbers exact.
const MaxFence = 1<<53 - 1

// Lease is what guards need to know of a lease. A [*holdfast.Lease] is one; [Of] makes one of
// numbers. Fence is asked anew by every call, so that after an Upgrade the new number counts;
// it has to be registered with Open as well.
type Lease interface {
	Name() string // of the lock: 1 to 512 bytes of UTF-8 without control characters
	Fence() int64 // 1 to MaxFence
}

// Of returns the lease of that name with that fence, for holders that have no more than these:
// a command under `holdfast run` finds them in HOLDFAST_NAME and HOLDFAST_FENCE. Numbers out of
// range are reported by the guards, as holdfast.ErrInvalid.
func Of(name string, fence int64) Lease { return numbers{name, fence} }

type numbers struct {
	name  string
	fence int64
}

func (n numbers) Name() string { return n.name }
func (n numbers) Fence() int64 { return n.fence }

type contextKey struct{}

// NewContext returns a context that carries the lease. [Transport] takes it from there, and the
// handlers behind [HTTP] find the one of the request there.
func NewContext(ctx context.Context, l Lease) context.Context {
	return context.WithValue(ctx, contextKey{}, l)
}

// FromContext returns the lease that ctx carries.
func FromContext(ctx context.Context) (Lease, bool) {
	l, ok := ctx.Value(contextKey{}).(Lease)
	return l, ok
}

// read asks a lease for its numbers, once a call, and refuses those that no engine grants. It
// also keeps a call from beginning whose context has ended, as that of Mutex.Do does at a loss.
func read(ctx context.Context, op string, l Lease) (numbers, error) {
	if l == nil {
		return numbers{}, invalid(op, "", errors.New("the lease is nil: pass the one that Lock returned"))
	}
	n := numbers{l.Name(), l.Fence()}
	var errs violations
	if err := driver.CheckName(n.name); err != nil {
		errs = append(errs, err)
	}
	errs.check(n.fence < 1 || n.fence > MaxFence, "fence is %d: it must be 1 to 2^53-1; take it from Lease.Fence", n.fence)
	if len(errs) > 0 {
		return numbers{}, invalid(op, n.name, errs...)
	}
	if err := ctx.Err(); err != nil {
		return numbers{}, &holdfast.Error{Op: op, Name: n.name, Outcome: holdfast.NotApplied, Err: err}
	}
	return n, nil
}

// Store registers fences by the names of locks. [*Memory] and [*File] are stores, and
// [SQL.Store] makes one.
//
// Implementations are safe for concurrent use, keep names apart byte by byte, and never go back
// to a smaller fence; they may forget one. A refusal matches holdfast.ErrStale.
type Store interface {
	// Open registers the fence of the lease, unless a larger one is registered for its name.
	Open(ctx context.Context, l Lease) error

	// Check returns nil if the fence of the lease is the registered one.
	Check(ctx context.Context, l Lease) error
}
