package holdfast

import (
	"context"
	"sync"
	"time"
)

// releaseContext is the context of a claim's release: the values of the acquire call, and a
// deadline of its own. Unlike context.WithTimeout it is no allocation until an engine asks
// for the deadline or waits for the end: it is the lease itself whose Unlock gives the claim
// back.
type releaseContext Lease

// deadline is the part that exists once somebody has asked.
type deadline struct {
	at    time.Time
	timer *time.Timer
	done  chan struct{}
	once  sync.Once
	err   error // set before done is closed
}

// stop ends the context, as the cancel function of WithTimeout does. One that nobody has
// asked for anything has nobody to tell.
func (r *releaseContext) stop() {
	if d := r.claim.release.Load(); d != nil {
		d.timer.Stop()
		d.end(context.Canceled)
	}
}

func (d *deadline) end(err error) {
	d.once.Do(func() {
		d.err = err
		close(d.done)
	})
}

func (d *deadline) expire() { d.end(context.DeadlineExceeded) }

// start returns the deadline, whose time begins with the first call.
func (r *releaseContext) start() *deadline {
	release := &r.claim.release
	if d := release.Load(); d != nil {
		return d
	}
	timeout := r.claim.h.client.cfg.ReleaseTimeout
	d := &deadline{at: time.Now().Add(timeout), done: make(chan struct{})}
	d.timer = time.AfterFunc(timeout, d.expire)
	if !release.CompareAndSwap(nil, d) {
		d.timer.Stop()
		return release.Load()
	}
	return d
}

// Done implements context.Context.
func (r *releaseContext) Done() <-chan struct{} { return r.start().done }

// Deadline implements context.Context.
func (r *releaseContext) Deadline() (time.Time, bool) { return r.start().at, true }

// Err implements context.Context.
func (r *releaseContext) Err() error {
	d := r.claim.release.Load()
	if d == nil {
		return nil
	}
	select {
	case <-d.done:
		return d.err
	default:
		return nil
	}
}

// Value implements context.Context. The values are those of the acquire call's context, but
// not the one that package context keeps there: it leads to the end of that context.
func (r *releaseContext) Value(key any) any {
	b := r.claim.h.bucket
	b.mu.Lock()
	values := r.values // Context may be asked for at the same moment
	b.mu.Unlock()
	return context.WithoutCancel(values).Value(key)
}
