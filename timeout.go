package holdfast

import (
	"context"
	"sync"
	"time"
)

// timeoutContext is the context of a release: the values of the acquire call, and a deadline
// of its own. Unlike context.WithTimeout it costs nothing until an engine waits on Done, and
// it lives inside the claim: an uncontended Unlock allocates nothing for it.
type timeoutContext struct {
	values   context.Context
	deadline time.Time

	mu    sync.Mutex
	done  chan struct{}
	timer *time.Timer
	err   error
}

func (t *timeoutContext) start(values context.Context, d time.Duration) {
	t.values, t.deadline = values, time.Now().Add(d)
}

// stop frees the timer. The context ends, as after the cancel function of WithTimeout.
func (t *timeoutContext) stop() {
	t.end(context.Canceled)
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *timeoutContext) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	t.err = err
	if t.done != nil {
		close(t.done)
	}
}

// Done implements context.Context.
func (t *timeoutContext) Done() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done == nil {
		t.done = make(chan struct{})
		if t.err != nil {
			close(t.done)
		} else {
			t.timer = time.AfterFunc(time.Until(t.deadline), func() { t.end(context.DeadlineExceeded) })
		}
	}
	return t.done
}

// Err implements context.Context.
func (t *timeoutContext) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Deadline implements context.Context.
func (t *timeoutContext) Deadline() (time.Time, bool) { return t.deadline, true }

// Value implements context.Context.
func (t *timeoutContext) Value(key any) any { return t.values.Value(key) }
