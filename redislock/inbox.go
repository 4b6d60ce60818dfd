package redislock

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// waiter is a call that waits for its share.
type waiter struct{ pushes chan protocol.Push }

// waiters are the calls of this engine that wait, by their tokens.
type waiters struct {
	engine *Engine
	mu     sync.Mutex
	byID   map[string]*waiter

	// past holds the tokens whose waits ended with a grant, with the time of that: a push
	// for one of them is late, not lost, and must not give back what is held.
	past map[string]driver.Instant
}

// maxPast is how many tokens of past waits are kept before those are dropped for which no
// message can be under way any more.
const maxPast = 4096

func (ws *waiters) init(e *Engine) {
	ws.engine, ws.byID, ws.past = e, make(map[string]*waiter), make(map[string]driver.Instant)
}

func (ws *waiters) enter(t driver.Token) *waiter {
	w := &waiter{pushes: make(chan protocol.Push, 4)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.byID[encodeToken(t)] = w
	return w
}

func (ws *waiters) leave(t driver.Token) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byID, encodeToken(t))
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
	ws.past[encodeToken(t)] = now
}

// released forgets that the token was granted something.
func (ws *waiters) released(t driver.Token) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.past) > 0 {
		delete(ws.past, encodeToken(t))
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
	raw, err4 := base64.RawURLEncoding.DecodeString(token)
	if !ok || errors.Join(err1, err2, err3, err4) != nil || len(raw) != len(driver.Token{}) {
		return // not one of ours
	}
	ws.mu.Lock()
	w, late := ws.byID[token], false
	if w == nil {
		_, late = ws.past[token]
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
