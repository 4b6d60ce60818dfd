// Package holdfast is a distributed lock that holds, fast: one small API over the engines
// that teams already run.
//
// A lock with a lease can never promise that its holder is alone: a holder may be paused
// past the end of its lease and wake up believing that it still has it. holdfast says when a
// lease ends, on every engine, before the engine can give the lock to somebody else by the
// local clock ([Lease.Context]), and numbers the grants so that the resource can refuse a
// holder whose time is over ([Lease.Fence]). Both rest on clocks that run at sane rates; only
// a fence that the resource checks rests on nothing else.
//
// # Use
//
// Open an engine, wrap it, lock:
//
//	hf, err := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
//	defer hf.Close()
//	err = hf.Mutex("invoice:2026").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
//		return issue(ctx, l.Fence())
//	})
//
// [Mutex], [RWMutex] and [Semaphore] are cheap handles. Everything that is held is a
// [Lease]. [LockAll] takes several locks or none.
//
// # Errors
//
// Every error is an [*Error] that matches one of the kinds [ErrHeld], [ErrLost],
// [ErrNotHeld], [ErrUnavailable], [ErrInvalid], [ErrUnsupported], [ErrClosed] and
// [ErrStale], and says whether the call took effect. The end of a context is always visible
// with errors.Is(err, context.Canceled) or context.DeadlineExceeded as well.
package holdfast
