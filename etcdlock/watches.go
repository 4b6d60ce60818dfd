package etcdlock

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// watches watches values on behalf of all calls that wait for one: a watch for each name.
type watches struct {
	engine *Engine

	mu    sync.Mutex
	byKey map[string]*watch
}

// watch is that of one key. All fields but key are guarded by watches.mu.
type watch struct {
	of   *watches
	key  string
	end  context.CancelFunc
	idle *time.Timer // ends it, while nobody uses it

	users   int
	watched bool          // the server tells of changes
	told    change        // the last one
	stirred chan struct{} // closed and replaced when watched or told changes

	looking bool  // a look is under way
	next    *look // the one after that, nil where nobody has asked for it
}

// look is a read that several callers wait for. It begins after each of them has asked.
type look struct {
	done     chan struct{} // closed when the others are set
	stored   stored
	revision int64
	err      error
}

// change is a key after a write to it, or its deletion.
type change struct {
	kv       *mvccpb.KeyValue // nil after a deletion
	revision int64
}

// lingers is for how long a watch is kept that nobody uses: most who wait do so again.
const lingers = 30 * time.Second

func (ws *watches) init(e *Engine) { ws.engine, ws.byKey = e, map[string]*watch{} }

// enter returns the watch of a key. It may take a while until the server tells of changes.
func (ws *watches) enter(key string) *watch {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.byKey[key]
	if w == nil {
		var ctx context.Context
		w = &watch{of: ws, key: key, stirred: make(chan struct{})}
		ctx, w.end = context.WithCancel(ws.engine.life)
		w.idle = time.AfterFunc(lingers, func() { ws.drop(w) })
		ws.byKey[key] = w
		ws.engine.background(func() { w.run(ctx) }) // not when the engine is being closed
	}
	w.idle.Stop()
	w.users++
	return w
}

func (ws *watches) leave(w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.users--; w.users == 0 {
		w.idle.Reset(lingers)
	}
}

// drop ends a watch that nobody uses. Its timer may have fired just as somebody came.
func (ws *watches) drop(w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.users == 0 && ws.byKey[w.key] == w {
		w.end()
		delete(ws.byKey, w.key)
	}
}

// close ends the timers. The engine's life has ended, and all watches with it.
func (ws *watches) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.byKey {
		w.idle.Stop()
		w.end()
	}
}

// state says whether the server tells of changes, and when something changes.
func (w *watch) state() (watched bool, stirred <-chan struct{}) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	return w.watched, w.stirred
}

// last is state, and the last change that was told.
func (w *watch) last() (told change, watched bool, stirred <-chan struct{}) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	return w.told, w.watched, w.stirred
}

// look reads the key, together with others who ask at the same time: a thousand that wait cost
// two reads when they look.
func (w *watch) look(ctx context.Context) (s stored, revision int64, err error) {
	w.of.mu.Lock()
	l := w.next
	if l == nil {
		l = &look{done: make(chan struct{})}
		if !w.looking {
			if !w.of.engine.background(w.lookOn) {
				w.of.mu.Unlock()
				return s, 0, errClosed
			}
			w.looking = true
		}
		w.next = l
	}
	w.of.mu.Unlock()
	select {
	case <-l.done:
		return l.stored, l.revision, l.err
	case <-ctx.Done():
		return s, 0, driver.Fail(driver.Unavailable, ctx.Err())
	case <-w.of.engine.closing:
		return s, 0, errClosed
	}
}

// lookOn reads for as long as somebody asks.
func (w *watch) lookOn() {
	for {
		w.of.mu.Lock()
		l := w.next
		w.next, w.looking = nil, l != nil
		w.of.mu.Unlock()
		if l == nil {
			return
		}
		l.stored, l.revision, l.err = w.of.engine.readStored(w.of.engine.life, w.key)
		close(l.done)
	}
}

// run watches until ctx ends. A watch that the server ends, for the want of a leader or because
// what it was about to tell is compacted away, is followed by one that begins at the present;
// when it has, those who wait look for what has changed between.
func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		for resp := range w.of.engine.client.Watch(clientv3.WithRequireLeader(ctx), w.key, clientv3.WithCreatedNotify()) {
			w.hear(resp)
		}
		w.deafen()
		pause := time.NewTimer(lookUnwatched/2 + rand.N(lookUnwatched/2))
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

func (w *watch) hear(resp clientv3.WatchResponse) {
	if resp.Err() != nil {
		return
	}
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.watched = true
	if n := len(resp.Events); n > 0 {
		ev := resp.Events[n-1]
		w.told = change{kv: ev.Kv, revision: ev.Kv.ModRevision}
		if ev.Type == mvccpb.Event_DELETE {
			w.told.kv = nil
		}
	}
	w.stir()
}

func (w *watch) deafen() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.watched = false
}

// stir wakes those who wait. watches.mu is locked.
func (w *watch) stir() {
	close(w.stirred)
	w.stirred = make(chan struct{})
}
