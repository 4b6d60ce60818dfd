package redislock

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// push is a message that a waiter was granted its share: the scripts enter the share before
// they send it. It may arrive late, twice, or for a wait that is long over.
type push struct {
	fence int64
	span  int
	ttl   time.Duration
}

// believable reports whether a waiter may take up the push now. Two things make it so: its
// fence is larger than the counter was when the waiter was last told that it is queued, so it
// was granted after that poll had left, not for an earlier place in the queue; and the share
// cannot have run out even if it was granted right then. How long the message was under way
// is not known, so the time of its arrival says nothing.
func believable(p push, queued bool, sent driver.Instant, count int64, now driver.Instant) bool {
	usable := p.ttl - p.ttl/20 - 2*time.Millisecond
	return queued && p.fence > count && now.Sub(sent) < usable-p.ttl/4
}

// waiter is a call that waits for its share.
type waiter struct{ pushes chan push }

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
	w := &waiter{pushes: make(chan push, 4)}
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
		case w.pushes <- push{fence: first, span: n, ttl: time.Duration(ms) * time.Millisecond}:
		default: // it has more than it needs to look again
		}
	case !late:
		ws.engine.forgetLater(key, "d"+fence, token)
	}
}

// ear listens at one node for what is pushed to this engine: on one channel, or in a Cluster
// on one for each slot that it has waited in.
type ear struct {
	c  *combiner
	mu sync.Mutex
	ps *redis.PubSub

	heard map[string]chan struct{} // channels, closed once the server confirmed them
	deaf  bool                     // it is not allowed to listen
}

func (l *ear) init(c *combiner) { l.c, l.heard = c, make(map[string]chan struct{}) }

// channel is where the scripts push what is granted for key.
func (l *ear) channel(key string) string {
	if l.c.engine.cluster == nil {
		return l.c.engine.single.inbox
	}
	return l.c.engine.layoutOf(tags()[slotOf(key)]).inbox
}

// hears reports whether pushes for key arrive.
func (l *ear) hears(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	confirmed := l.heard[l.channel(key)]
	if confirmed == nil {
		return l.deaf
	}
	select {
	case <-confirmed:
		return true
	default:
		return false
	}
}

// listen sees to it that pushes for key arrive, and waits for that as long as the server may
// take. Where it fails, polls have to do.
func (l *ear) listen(ctx context.Context, key string) {
	l.mu.Lock()
	channel := l.channel(key)
	confirmed, known := l.heard[channel]
	if !known && !l.deaf && !l.c.engine.closed.Load() {
		confirmed = make(chan struct{})
		l.heard[channel] = confirmed
		l.subscribe(channel)
	}
	l.mu.Unlock()
	if confirmed == nil {
		return
	}
	select {
	case <-confirmed:
		return
	default:
	}
	timeout := time.NewTimer(pollEvery)
	defer timeout.Stop()
	select {
	case <-confirmed:
	case <-ctx.Done():
	case <-timeout.C:
	case <-l.c.engine.closing:
	}
}

// subscribe asks the node for one more channel. l.mu is locked, so the network is left to
// others: it may take its time, and callers have contexts that end.
func (l *ear) subscribe(channel string) {
	first := l.ps == nil
	if first {
		l.ps = l.c.node.Subscribe(context.Background())
	}
	ps, calls := l.ps, &l.c.engine.calls
	calls.Go(func() { l.ask(ps, channel) })
	if first {
		calls.Go(func() { l.receive(ps) })
	}
}

// ask sends the request to subscribe. An error shows again where messages are received, and is
// dealt with there.
func (l *ear) ask(ps *redis.PubSub, channels ...string) {
	if l.c.engine.publish == "SPUBLISH" {
		for _, channel := range channels { // each is of another slot
			_ = ps.SSubscribe(context.Background(), channel)
		}
		return
	}
	_ = ps.Subscribe(context.Background(), channels...)
}

// checkEvery is how long nothing may be heard before the connection is tried.
const checkEvery = 5 * time.Second

// receive hands out messages until the ear is closed. The library connects and subscribes
// anew when the connection was lost; what was missed meanwhile is found by polls. That nobody
// answers any more, though the connection looks well, is for us to notice.
func (l *ear) receive(ps *redis.PubSub) {
	ctx, silent := context.Background(), false
	for !l.c.engine.closed.Load() {
		message, err := ps.ReceiveTimeout(ctx, checkEvery)
		var late interface{ Timeout() bool }
		switch {
		case err == nil:
			silent = false
			l.take(message)
		case errors.Is(err, redis.ErrClosed):
			return
		case redis.IsPermissionError(err):
			l.mu.Lock()
			l.deaf = true
			l.confirm("")
			l.mu.Unlock()
		case errors.As(err, &late) && late.Timeout() && !silent:
			silent = true
			_ = ps.Ping(ctx)
		case errors.As(err, &late) && late.Timeout():
			silent = false
			ps = l.replace(ps)
		default:
			silent = false
			l.pause()
		}
	}
}

// replace gives up a connection on which not even a ping was answered, for a new one.
func (l *ear) replace(old *redis.PubSub) *redis.PubSub {
	l.mu.Lock()
	if l.c.engine.closed.Load() {
		l.mu.Unlock()
		return old
	}
	ps := l.c.node.Subscribe(context.Background())
	l.ps = ps
	channels := slices.Collect(maps.Keys(l.heard))
	l.mu.Unlock()
	_ = old.Close()
	l.ask(ps, channels...)
	return ps
}

func (l *ear) pause() {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.c.engine.closing:
	}
}

func (l *ear) take(message any) {
	switch m := message.(type) {
	case *redis.Message:
		l.c.engine.waiters.deliver(m.Payload)
	case *redis.Subscription:
		l.mu.Lock()
		defer l.mu.Unlock()
		switch m.Kind {
		case "subscribe", "ssubscribe":
			l.confirm(m.Channel)
		case "unsubscribe", "sunsubscribe":
			delete(l.heard, m.Channel) // its slot has gone to another node
		}
	}
}

// confirm notes that a channel is heard, or that waiting for any is over. l.mu is locked.
func (l *ear) confirm(channel string) {
	for name, confirmed := range l.heard {
		if channel != "" && name != channel {
			continue
		}
		select {
		case <-confirmed:
		default:
			close(confirmed)
		}
	}
}

func (l *ear) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ps != nil {
		_ = l.ps.Close()
	}
}
