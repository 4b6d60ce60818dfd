package zklock

import (
	"errors"
	"sync"

	"github.com/go-zookeeper/zk"
)

// watches shares one watch of the library among all who wait for the same node: the library
// cannot take a watch back, so one for every request would pile up while a lock is held.
type watches struct {
	session *session
	mu      sync.Mutex
	active  map[watched]*watch
}

// watch is told of one change.
type watch struct {
	set     chan struct{} // closed when the server watches: changes from then on are told
	changed chan struct{} // closed when something changed, or when that cannot be told any more
}

// watched is a node, or the children of one. There may be no such node where absent says so;
// then its creation is a change.
type watched struct {
	path     string
	children bool
	absent   bool
}

// count says how many watches there may be.
func (w *watches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.active)
}

// has reports whether there may be a watch on that node, or on its children.
func (w *watches) has(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, target := range []watched{{path: path}, {path: path, children: true}, {path: path, absent: true}} {
		if w.active[target] != nil {
			return true
		}
	}
	return false
}

// on returns a watch on a node, or the children of one. It has changed soon when there is no
// such node, unless target.absent.
func (w *watches) on(target watched) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if active, ok := w.active[target]; ok {
		return active
	}
	if w.active == nil {
		w.active = make(map[watched]*watch)
	}
	one := &watch{set: make(chan struct{}), changed: make(chan struct{})}
	w.active[target] = one
	w.session.calls.Add(1)
	go func() {
		defer w.session.calls.Done()
		events, err := w.set(target)
		err = plain(err)
		close(one.set)
		if err == nil {
			<-events // one event, or the end of the session
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.active, target)
		if err == nil || errors.Is(err, zk.ErrNoNode) || passing(err) {
			close(one.changed)
		} // else looking again at once would not help: it is left to the poll
	}()
	return one
}

func (w *watches) set(target watched) (<-chan zk.Event, error) {
	switch {
	case target.children:
		_, _, events, err := w.session.conn.ChildrenW(target.path)
		return events, err
	case target.absent:
		_, _, events, err := w.session.conn.ExistsW(target.path)
		return events, err
	}
	_, _, events, err := w.session.conn.GetW(target.path)
	return events, err
}
