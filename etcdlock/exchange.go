package etcdlock

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// grace is how long an exchange that is under way may go on when its caller has gone or the
// engine is being closed: what it did can be undone only when that is known.
const grace = time.Second

// exchange is the context of one exchange with the cluster. It ends after the engine's time
// limit, with the life of the engine, and soon after the context of its caller, whose values
// it has.
//
// It has no deadline that others could read: the client would tell it to the server in each
// request, and both would keep a timer for what is nearly always answered long before. Nor does
// it ask the caller's context to tell of its end, which may take a goroutine. Those that take
// longer than usual are found by exchanges.
type exchange struct {
	context.Context // of the engine's life
	caller          context.Context
	of              *exchanges
	cancel          context.CancelCauseFunc
	at              int // in the list of exchanges, -1 once it is not in it any more

	due  driver.Instant // of look only, once it is in the list
	gone bool           // so is this: the caller's context has ended
}

// Value implements context.Context. What the life has for a value of its own is how package
// context finds it, which spares it a goroutine.
func (x *exchange) Value(key any) any {
	if v := x.Context.Value(key); v != nil {
		return v
	}
	return x.caller.Value(key)
}

// Err implements context.Context. It is context.DeadlineExceeded after the time limit.
func (x *exchange) Err() error {
	if x.Context.Err() == nil {
		return nil
	}
	return context.Cause(x.Context)
}

// end ends an exchange that is over.
func (x *exchange) end() {
	x.of.remove(x)
	x.cancel(context.Canceled)
}

// exchanges are those under way. While there are any, look is called a few times a second.
type exchanges struct {
	clock driver.Clock
	every time.Duration

	mu     sync.Mutex
	all    []*exchange
	timer  driver.Timer
	active bool // the timer is set, or look is being called
}

// lookEvery is how often exchanges are looked at, in parts of the time that they may take.
const lookEvery = 8

// bound returns the context for one exchange with the cluster, and what ends it. It carries the
// values of ctx and ends a moment after ctx does, so that the outcome of what was sent is known
// as a rule.
func (e *Engine) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return e.exchange(ctx, e.cfg.Timeout)
}

// patience is bound for what has to be cleaned up after a caller whose context may have ended.
func (e *Engine) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return e.exchange(context.WithoutCancel(ctx), min(e.cfg.Timeout, 2*grace))
}

func (e *Engine) exchange(caller context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	x := &exchange{caller: caller, of: &e.exchanges, due: e.clock.Now().Add(limit)}
	x.Context, x.cancel = context.WithCancelCause(e.life)
	e.exchanges.add(x)
	return x, x.end
}

func (xs *exchanges) init(e *Engine) {
	xs.clock, xs.every = e.clock, min(e.cfg.Timeout, grace)/lookEvery
}

func (xs *exchanges) add(x *exchange) {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	x.at = len(xs.all)
	xs.all = append(xs.all, x)
	switch {
	case xs.active:
	case xs.timer == nil:
		xs.timer = xs.clock.AfterFunc(xs.every, xs.look)
	default:
		xs.timer.Reset(xs.every)
	}
	xs.active = true
}

func (xs *exchanges) remove(x *exchange) {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if x.at < 0 {
		return
	}
	last := len(xs.all) - 1
	xs.all[x.at] = xs.all[last]
	xs.all[x.at].at = x.at
	xs.all[last] = nil
	xs.all = xs.all[:last]
	x.at = -1
}

// look ends the exchanges whose time is over, to within the time between two looks. Those that
// are over meanwhile, it ends in vain. Callers' contexts are the business of others, and are
// not asked under a lock.
func (xs *exchanges) look() {
	xs.mu.Lock()
	under := slices.Clone(xs.all)
	xs.mu.Unlock()
	now := xs.clock.Now()
	for _, x := range under {
		x.look(now, grace-xs.every)
	}
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if xs.active = len(xs.all) > 0; xs.active {
		xs.timer.Reset(xs.every)
	}
}

// look ends an exchange whose time is over: at its limit, or after grace from when its caller
// is first seen to be gone.
func (x *exchange) look(now driver.Instant, grace time.Duration) {
	select {
	case <-x.caller.Done():
		if !x.gone {
			x.gone, x.due = true, min(x.due, now.Add(grace))
		}
	default:
	}
	switch {
	case now < x.due:
	case x.gone:
		x.cancel(context.Canceled)
	default:
		x.cancel(context.DeadlineExceeded)
	}
}

// stop ends the timer, when no exchange can begin any more.
func (xs *exchanges) stop() {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if xs.timer != nil {
		xs.timer.Stop()
	}
}
