package redislock

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// request is one request of a script call, see lua/lock.lua, and what came of it.
type request struct {
	key string
	op  string
	id  string
	ttl int64 // ms

	via   *combiner // what sends it
	state atomic.Uint32
	slot  int           // of key, in a Cluster
	moved uint8         // how often it was sent to a node that was not the right one
	poll  bool          // asks again, by which the plain cases are over
	again bool          // was cut off, and went out once more
	done  chan struct{} // signalled when word, payload and err say what came of it, or when that takes long
	then  func(error)   // called instead: nobody waits for this release
	to    receiver      // told instead: nobody waits for this request alone

	word    string
	payload string
	err     error // instead of a word; of type *driver.Error
}

// receiver deals with the answer to a request that was made on its behalf.
type receiver interface{ receive() }

// The states of a request. The one who moves it out of pending or sent owns it.
const (
	pending   = iota // not sent
	sent             // in a call under way, or answered too late
	answered         // word, payload and err are set
	abandoned        // nobody waits for it any more
)

var requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 2)} }}

func newRequest(key, op, id string, ttl int64) *request {
	r := requests.Get().(*request)
	r.key, r.op, r.id, r.ttl = key, op, id, ttl
	r.state.Store(pending)
	r.moved, r.poll, r.again, r.then, r.to, r.word, r.payload, r.err = 0, false, false, nil, nil, "", "", nil
	return r
}

// free lets the request be used again. Only who saw the answer may call it.
func (r *request) free() { requests.Put(r) }

// wake signals done. A signal that finds no room is not missed: who takes one of those that
// are there looks at the state after it.
func (r *request) wake() {
	select {
	case r.done <- struct{}{}:
	default:
	}
}

// await waits for the answer. Only when it does not come soon does it look at ctx, which may
// cost a timer or more: senders see to it that everybody is woken by then. When ctx has ended
// and the request was not sent yet, or no answer comes for another patience, the request is
// abandoned: that error is returned, and r is not to be used any more.
func (r *request) await(ctx context.Context, patience time.Duration) error {
	<-r.done
	if r.state.Load() == answered || r.answeredBefore(ctx.Done()) {
		return nil
	}
	if r.state.CompareAndSwap(pending, abandoned) {
		return driver.Fail(driver.Unavailable, ctx.Err())
	}
	if patience > 0 {
		over := make(chan struct{})
		timer := time.AfterFunc(patience, func() { close(over) })
		defer timer.Stop()
		if r.answeredBefore(over) {
			return nil
		}
	}
	for {
		switch state := r.state.Load(); state {
		case answered:
			return nil
		default: // a request that looks for its node goes from one state to the other
			if r.state.CompareAndSwap(state, abandoned) {
				return &driver.Error{Kind: driver.Unavailable, Outcome: outcomes[state], Err: ctx.Err()}
			}
		}
	}
}

// outcomes is what is known of a request that nobody waited for any longer.
var outcomes = [...]driver.Outcome{pending: driver.NotApplied, sent: driver.Unknown}

// answeredBefore waits for the answer or the end.
func (r *request) answeredBefore(end <-chan struct{}) bool {
	for {
		select {
		case <-r.done:
			if r.state.Load() == answered {
				return true
			}
		case <-end:
			return false
		}
	}
}

// finish hands the answer to who waits for it, or deals with it when nobody does.
func (r *request) finish(word, payload string, err error) {
	r.word, r.payload, r.err = word, payload, err
	if r.to != nil {
		r.state.Store(answered)
		r.to.receive()
		return
	}
	if then := r.then; then != nil {
		then(r.via.engine.released(r))
		return
	}
	if r.state.CompareAndSwap(sent, answered) {
		r.wake()
		return
	}
	r.via.engine.orphan(r)
}
