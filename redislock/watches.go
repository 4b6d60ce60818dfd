package redislock

import (
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// watches listens for changes of values on behalf of all calls that wait for one, over one
// connection. Messages may be lost with it; whoever waits looks again when it is back.
type watches struct {
	engine *Engine

	mu        sync.Mutex
	byChannel map[string]*watch
	ps        *redis.PubSub // nil before the first call
	stir      chan struct{} // there are channels to join or to leave
}

// watch is a channel and who waits for messages on it. All fields but channel are guarded by
// watches.mu.
type watch struct {
	of      *watches
	channel string
	waiters map[chan struct{}]bool
	joined  bool           // the server was asked for it
	hears   bool           // and has confirmed it
	left    driver.Instant // when the last waiter left
}

// lingers is for how long a channel is kept that nobody waits on: most who wait do so again.
const lingers = 30 * time.Second

func (ws *watches) init(e *Engine) {
	ws.engine, ws.byChannel, ws.stir = e, make(map[string]*watch), make(chan struct{}, 1)
}

// enter has changed signalled when something happens on the channel.
func (ws *watches) enter(channel string, changed chan struct{}) *watch {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.byChannel[channel]
	if w == nil {
		w = &watch{of: ws, channel: channel, waiters: make(map[chan struct{}]bool)}
		ws.byChannel[channel] = w
		ws.start()
	}
	w.waiters[changed] = true
	return w
}

func (ws *watches) leave(w *watch, changed chan struct{}) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(w.waiters, changed)
	w.left = ws.engine.clock.Now()
}

// heard reports whether messages arrive.
func (w *watch) heard() bool {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	return w.hears
}

// start makes the connection, or has it join what is new. ws.mu is locked.
func (ws *watches) start() {
	e := ws.engine
	if ws.ps == nil && e.life.Err() == nil {
		if e.cluster != nil {
			ws.ps = e.cluster.Subscribe(e.life)
		} else {
			ws.ps = e.only.node.Subscribe(e.life)
		}
		ps := ws.ps
		e.calls.Go(func() { ws.join(ps) })
		e.calls.Go(func() { ws.hear(ps) })
	}
	select {
	case ws.stir <- struct{}{}:
	default:
	}
}

// join asks for channels and leaves those that nobody waits on, until the engine is closed.
// Where that fails the library asks again with its next connection.
func (ws *watches) join(ps *redis.PubSub) {
	sweep := time.NewTicker(lingers)
	defer sweep.Stop()
	for {
		select {
		case <-ws.stir:
		case <-sweep.C:
		case <-ws.engine.life.Done():
			_ = ps.Close()
			return
		}
		join, leave := ws.changes()
		if len(join) > 0 {
			_ = ps.Subscribe(ws.engine.life, join...)
		}
		if len(leave) > 0 {
			_ = ps.Unsubscribe(ws.engine.life, leave...)
		}
	}
}

func (ws *watches) changes() (join, leave []string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := ws.engine.clock.Now()
	for channel, w := range ws.byChannel {
		switch {
		case !w.joined:
			w.joined = true
			join = append(join, channel)
		case len(w.waiters) == 0 && now.Sub(w.left) > lingers:
			delete(ws.byChannel, channel)
			leave = append(leave, channel)
		}
	}
	return join, leave
}

// hear wakes those who wait, until the connection is closed for good.
func (ws *watches) hear(ps *redis.PubSub) {
	for message := range ps.ChannelWithSubscriptions() {
		switch m := message.(type) {
		case *redis.Message:
			ws.wake(m.Channel, false)
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				ws.wake(m.Channel, true) // what was told before is lost: look again
			}
		}
	}
}

func (ws *watches) wake(channel string, confirmed bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.byChannel[channel]
	if w == nil {
		return
	}
	w.hears = w.hears || confirmed
	for changed := range w.waiters {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}
