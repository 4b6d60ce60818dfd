package redislock

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// ear listens at one node for what is pushed to this engine: on one channel, or in a Cluster
// on one for each slot that somebody waits in. Waiters say again and again where they wait:
// what is lost with a connection, or with a slot that goes to another node, is found again at
// the right one by the next poll.
type ear struct {
	c  *combiner
	mu sync.Mutex
	ps *redis.PubSub // nil while nobody listens

	wanted map[int]*wish // by slot, 0 on a server on its own
	deaf   bool          // it is not allowed to listen
}

// wish is a channel that somebody waits for messages from.
type wish struct {
	heard chan struct{}  // closed once the server confirmed it, or when it was given up
	used  driver.Instant // when somebody last asked for it
}

const (
	// checkEvery is how long nothing may be heard before the connection is tried.
	checkEvery = 5 * time.Second

	// An ear that listens in more than fewWishes slots leaves those in which nobody has
	// waited for outOfUse.
	fewWishes = 64
	outOfUse  = 30 * time.Second

	// reconnects is how often in a row a connection may fail before the ear falls silent
	// until somebody waits at this node again.
	reconnects = 3
)

func (l *ear) init(c *combiner) { l.c, l.wanted = c, make(map[int]*wish) }

// hears reports whether pushes for key arrive.
func (e *Engine) hears(key string) bool {
	if e.cluster != nil && !e.mapped.Load() {
		return false
	}
	slot := e.slotOf(key)
	c, err := e.nodeOf(slot)
	return err == nil && c.ear.hears(slot)
}

// listen sees to it that pushes for key arrive, and waits for that as long as the server may
// take. Where it fails, polls have to do.
func (e *Engine) listen(ctx context.Context, key string) {
	if e.cluster != nil && !e.mapped.Load() {
		return
	}
	slot := e.slotOf(key)
	c, err := e.nodeOf(slot)
	if err != nil {
		return
	}
	heard := c.ear.want(slot)
	if heard == nil {
		return
	}
	select {
	case <-heard: // most of the time there is nothing to wait for
		return
	default:
	}
	timeout := time.NewTimer(pollEvery)
	defer timeout.Stop()
	select {
	case <-heard:
	case <-ctx.Done():
	case <-timeout.C:
	case <-e.closing:
	}
}

func (l *ear) hears(slot int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.wanted[slot]
	if w == nil {
		return l.deaf
	}
	return w.done()
}

// want notes that somebody waits for messages about a slot, and returns what is closed when
// they arrive, nil where they never will. Nothing here waits for the network: a caller who
// gives up must not be kept by a node that is down.
func (l *ear) want(slot int) <-chan struct{} {
	e := l.c.engine
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf || e.life.Err() != nil {
		return nil
	}
	w := l.wanted[slot]
	if w == nil {
		w = &wish{heard: make(chan struct{})}
		l.wanted[slot] = w
		if l.ps == nil {
			l.ps = l.c.node.Subscribe(e.life)
			ps := l.ps
			e.calls.Go(func() { l.run(ps) })
		} else {
			ps := l.ps
			e.calls.Go(func() { l.subscribe(ps, slot) })
		}
	}
	w.used = e.clock.Now()
	return w.heard
}

// run listens until the engine is closed, or nobody waits, or nothing is to be heard. Each
// connection has a PubSub of its own, since the library names all channels in one command when
// it connects anew, which a Cluster refuses for channels of different slots.
func (l *ear) run(ps *redis.PubSub) {
	for failed := 0; ps != nil; {
		heard := l.hear(ps)
		_ = ps.Close()
		if failed++; heard {
			failed = 0
		}
		if failed > 0 {
			l.pause()
		}
		ps = l.again(failed >= reconnects)
	}
}

// again readies the ear for another connection. Who waits has asked for the channel lately.
func (l *ear) again(silent bool) *redis.PubSub {
	e := l.c.engine
	l.mu.Lock()
	defer l.mu.Unlock()
	now := e.clock.Now()
	for slot, w := range l.wanted {
		if silent || l.deaf || e.life.Err() != nil || now.Sub(w.used) > 3*pollEvery {
			l.drop(slot)
		} else if w.done() {
			w.heard = make(chan struct{})
		}
	}
	l.ps = nil
	if len(l.wanted) > 0 {
		l.ps = l.c.node.Subscribe(e.life)
	}
	return l.ps
}

func (w *wish) done() bool {
	select {
	case <-w.heard:
		return true
	default:
		return false
	}
}

// drop gives a channel up: who waits for it polls. l.mu is locked.
func (l *ear) drop(slot int) {
	if w := l.wanted[slot]; w != nil {
		delete(l.wanted, slot)
		if !w.done() {
			close(w.heard)
		}
	}
}

// subscribe asks the node for the channel of a slot. When that fails the connection ends.
func (l *ear) subscribe(ps *redis.PubSub, slot int) bool {
	e := l.c.engine
	err := l.c.greet()
	if err == nil {
		channel := e.single.inbox
		if l.c.slotted {
			channel = e.layoutOf(slot).inbox
		}
		if l.c.publish == "SPUBLISH" {
			err = ps.SSubscribe(e.life, channel)
		} else {
			err = ps.Subscribe(e.life, channel)
		}
	}
	if err != nil {
		_ = ps.Close()
	}
	return err == nil
}

// hear hands out messages until the connection fails. It reports whether any came.
func (l *ear) hear(ps *redis.PubSub) (heard bool) {
	l.mu.Lock()
	all := make([]int, 0, len(l.wanted))
	for slot := range l.wanted {
		all = append(all, slot)
	}
	l.mu.Unlock()
	for _, slot := range all {
		if !l.subscribe(ps, slot) {
			return false
		}
	}
	e := l.c.engine
	swept, silent := e.clock.Now(), false
	for {
		message, err := ps.ReceiveTimeout(e.life, checkEvery)
		var late interface{ Timeout() bool }
		switch {
		case err == nil:
			heard, silent = true, false
			l.take(message)
			// Whoever was woken goes on right here, and reads nothing before that.
			runtime.Gosched()
		case errors.As(err, &late) && late.Timeout() && !silent:
			silent = true
			_ = ps.Ping(e.life)
		case redis.IsPermissionError(err):
			l.mu.Lock()
			l.deaf = true
			l.mu.Unlock()
			return heard
		default:
			slot, moved := slotIn(err)
			if !moved {
				return heard
			}
			l.mu.Lock()
			l.drop(slot) // it is to be heard at another node
			l.mu.Unlock()
			e.remapSoon()
		}
		if now := e.clock.Now(); now.Sub(swept) > outOfUse {
			swept = now
			l.sweep(ps, now)
		}
	}
}

// slotIn returns the slot that an error says has moved.
func slotIn(err error) (int, bool) {
	if _, moved := redis.IsMovedError(err); !moved {
		return 0, false
	}
	_, rest, _ := strings.Cut(err.Error(), "MOVED ")
	number, _, _ := strings.Cut(rest, " ")
	slot, err := strconv.Atoi(number)
	return slot, err == nil
}

func (l *ear) pause() {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.c.engine.life.Done():
	}
}

func (l *ear) take(message any) {
	switch m := message.(type) {
	case *redis.Message:
		l.c.engine.heard(m.Payload)
	case *redis.Subscription:
		slot := 0
		if l.c.slotted {
			slot = slotOf(m.Channel)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		switch m.Kind {
		case "subscribe", "ssubscribe":
			if w := l.wanted[slot]; w != nil && !w.done() {
				close(w.heard)
			}
		case "unsubscribe", "sunsubscribe":
			l.drop(slot) // it has gone to another node, or is not used
		}
	}
}

// sweep leaves the channels that nobody has asked for in a long time, where there are many.
func (l *ear) sweep(ps *redis.PubSub, now driver.Instant) {
	l.mu.Lock()
	var idle []int
	if len(l.wanted) > fewWishes {
		for slot, w := range l.wanted {
			if now.Sub(w.used) > outOfUse {
				idle = append(idle, slot)
				l.drop(slot)
			}
		}
	}
	l.mu.Unlock()
	// Should somebody ask for one of them in this very moment it may be left after that: the
	// server says so, and the next poll asks again.
	slices.Sort(idle)
	for _, slot := range idle {
		channel := l.c.engine.layoutOf(slot).inbox
		if l.c.publish == "SPUBLISH" {
			_ = ps.SUnsubscribe(l.c.engine.life, channel)
		} else {
			_ = ps.Unsubscribe(l.c.engine.life, channel)
		}
	}
}

func (l *ear) close() {
	l.mu.Lock()
	ps := l.ps
	l.mu.Unlock()
	if ps != nil {
		_ = ps.Close()
	}
}
