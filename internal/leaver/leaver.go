// Package leaver lets callers leave who are in an exchange that they cannot break off themselves.
//
// Somebody who reads from a server on its own goroutine returns when the server answers, or when
// somebody else ends the connection. A timer and a goroutine for each exchange would cost more than
// the exchange of a lone caller; so it is looked every now and then for one whose context has ended.
package leaver

import (
	"context"
	"sync"
	"time"
)

// every is how often it is looked.
const every = 100 * time.Millisecond

// Watch looks after the caller who is in an exchange, one at a time. Make one with New.
type Watch struct {
	closing  <-chan struct{}
	patience time.Duration
	leave    func()

	mu    sync.Mutex
	ctx   context.Context // of the caller who is in an exchange, nil: nobody is
	turns uint            // how many there were
	seen  uint            // turns at the last look
	since time.Time       // when the end of ctx was seen, zero: not yet
	timer *time.Timer     // looks, nil: not made yet
	looks bool            // it runs
}

// New returns a Watch that calls leave once the context of a caller has ended, or closing is closed,
// and the exchange takes for longer than patience after that: up to 200 ms longer. leave has to end
// the exchange, and not to wait for it. It may be called more than once for an exchange, and is over
// before [Watch.Exit] returns.
func New(closing <-chan struct{}, patience time.Duration, leave func()) *Watch {
	return &Watch{closing: closing, patience: patience, leave: leave}
}

// Enter says that a caller with that context begins an exchange.
func (w *Watch) Enter(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.since = ctx, time.Time{}
	w.turns++
	switch {
	case w.looks:
	case w.timer == nil:
		w.timer = time.AfterFunc(every, w.look)
	default:
		w.timer.Reset(every)
	}
	w.looks = true
}

// Exit says that the exchange is over. Without an Enter before, it does nothing.
func (w *Watch) Exit() {
	w.mu.Lock()
	w.ctx = nil
	w.mu.Unlock()
}

// look goes on for as long as there are exchanges.
func (w *Watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looks = w.ctx != nil || w.turns != w.seen; !w.looks {
		return
	}
	w.seen = w.turns
	w.timer.Reset(every)
	if w.ctx == nil {
		return
	}
	select {
	case <-w.ctx.Done(): // a context whose time begins when somebody asks begins here
	case <-w.closing:
	default:
		return
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if time.Since(w.since) >= w.patience {
		w.leave()
	}
}
