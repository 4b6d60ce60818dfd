package redislock

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// waiter is a call that waits for its share.
type waiter struct {
	pushes chan protocol.Push
	polls  chan struct{} // signalled when it is time to ask again
	due    time.Time     // when that is; zero while the waiter does not sleep
}

// waiters are the calls of this engine that wait, by their tokens.
type waiters struct {
	engine *Engine
	mu     sync.Mutex
	byID   map[driver.Token]*waiter

	// past holds the tokens whose waits ended with a grant, with the time of that: a push
	// for one of them is late, not lost, and must not give back what is held.
	past map[driver.Token]driver.Instant

	// alarm wakes sleepers for their polls. Most are woken by a push long before: to set a timer
	// for each sleep costs a thread that has to take note of it. So there is one, which is left
	// to run when a sleep ends early, and only ever set to an earlier time when a sleep begins.
	alarm *time.Timer
	rings time.Time // when it does; zero while it is not set
}

// maxPast is how many tokens of past waits are kept before those are dropped for which no
// message can be under way any more.
const maxPast = 4096

func (ws *waiters) init(e *Engine) {
	ws.engine, ws.byID, ws.past = e, make(map[driver.Token]*waiter), make(map[driver.Token]driver.Instant)
	ws.alarm = time.AfterFunc(time.Hour, ws.ring)
	ws.alarm.Stop()
}

// sleeps has w.polls signalled after d, unless w is woken before that.
func (ws *waiters) sleeps(w *waiter, d time.Duration) {
	due := time.Now().Add(d)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	select { // what is left of an earlier sleep, and would end this one
	case <-w.polls:
	default:
	}
	w.due = due
	if ws.rings.IsZero() || due.Before(ws.rings) {
		ws.rings = due
		ws.alarm.Reset(d)
	}
}

// stop ends the alarm. Nobody sleeps any more.
func (ws *waiters) stop() { ws.alarm.Stop() }

// ring wakes those who have slept for as long as they wanted.
func (ws *waiters) ring() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := time.Now()
	var next time.Time
	for _, w := range ws.byID {
		switch {
		case w.due.IsZero():
		case !w.due.After(now):
			w.due = time.Time{}
			select {
			case w.polls <- struct{}{}:
			default:
			}
		case next.IsZero() || w.due.Before(next):
			next = w.due
		}
	}
	ws.rings = next
	if !next.IsZero() {
		// Thousands of sleepers are looked through a hundred times a second at most.
		ws.alarm.Reset(max(next.Sub(now), time.Duration(len(ws.byID))*time.Microsecond))
	}
}

func (ws *waiters) enter(t driver.Token) *waiter {
	w := &waiter{pushes: make(chan protocol.Push, 4), polls: make(chan struct{}, 1)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.byID[t] = w
	return w
}

func (ws *waiters) leave(t driver.Token) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byID, t)
}

func (ws *waiters) granted(t driver.Token) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := ws.engine.clock.Now()
	if len(ws.past) >= maxPast {
		for token, at := range ws.past {
			if now.Sub(at) > 2*rideOut {
				delete(ws.past, token)
			}
		}
	}
	ws.past[t] = now
}

// released forgets that the token was granted something.
func (ws *waiters) released(t driver.Token) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.past) > 0 {
		delete(ws.past, t)
	}
}

// deliver hands a message to the waiter it is for. What nobody waits for is given back, if
// it is still what the message says.
func (ws *waiters) deliver(message string) {
	token, rest, _ := strings.Cut(message, " ")
	fence, rest, _ := strings.Cut(rest, " ")
	span, ttl, ok := strings.Cut(rest, " ")
	first, err1 := strconv.ParseInt(fence, 10, 64)
	n, err2 := strconv.Atoi(span)
	ttl, key, _ := strings.Cut(ttl, " ")
	ms, err3 := strconv.ParseInt(ttl, 10, 64)
	t, err4 := decodeToken(token)
	if !ok || errors.Join(err1, err2, err3, err4) != nil {
		return // not one of ours
	}
	ws.mu.Lock()
	w, late := ws.byID[t], false
	if w == nil {
		_, late = ws.past[t]
	}
	ws.mu.Unlock()
	switch {
	case w != nil:
		select {
		case w.pushes <- protocol.Push{Fence: first, Span: n, TTL: time.Duration(ms) * time.Millisecond}:
		default: // it has more than it needs to look again
		}
	case !late:
		ws.engine.forgetLater(key, "d"+fence, token)
	}
}
