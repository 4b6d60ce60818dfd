package holdfast

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// timeoutContext is the context of a release: the values of the acquire call, and a deadline
// of its own. Unlike context.WithTimeout it lives inside the claim and costs nothing until an
// engine asks for its deadline or waits for its end.
type timeoutContext struct {
	values context.Context
	d      time.Duration
	ended  atomic.Bool
	timed  atomic.Pointer[timed]
}

// timed is the part that exists once somebody has asked.
type timed struct {
	deadline time.Time
	timer    *time.Timer
	done     chan struct{}
	once     sync.Once
	err      error // set before done is closed
}

func (t *timeoutContext) start(values context.Context, d time.Duration) {
	t.values, t.d = values, d
}

// stop ends the context, as the cancel function of WithTimeout does.
func (t *timeoutContext) stop() {
	t.ended.Store(true)
	if in := t.timed.Load(); in != nil {
		in.end(context.Canceled)
	}
}

func (in *timed) end(err error) {
	in.once.Do(func() {
		in.err = err
		close(in.done)
		in.timer.Stop()
	})
}

// clock starts the time on first use. It is read after stop as well: then it ends at once.
func (t *timeoutContext) clock() *timed {
	if in := t.timed.Load(); in != nil {
		return in
	}
	in := &timed{deadline: time.Now().Add(t.d), done: make(chan struct{})}
	ready := make(chan struct{})
	in.timer = time.AfterFunc(t.d, func() {
		<-ready // in.timer is set
		in.end(context.DeadlineExceeded)
	})
	close(ready)
	if !t.timed.CompareAndSwap(nil, in) {
		in.timer.Stop()
		return t.timed.Load()
	}
	if t.ended.Load() {
		in.end(context.Canceled)
	}
	return in
}

// Done implements context.Context.
func (t *timeoutContext) Done() <-chan struct{} { return t.clock().done }

// Deadline implements context.Context.
func (t *timeoutContext) Deadline() (time.Time, bool) { return t.clock().deadline, true }

// Err implements context.Context.
func (t *timeoutContext) Err() error {
	in := t.timed.Load()
	if in == nil {
		if t.ended.Load() {
			return context.Canceled
		}
		return nil
	}
	select {
	case <-in.done:
		return in.err
	default:
		return nil
	}
}

// Value implements context.Context.
func (t *timeoutContext) Value(key any) any { return t.values.Value(key) }
