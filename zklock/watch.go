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
	active  map[watched]chan struct{}
}

// watched is a node, or the children of one.
type watched struct {
	path     string
	children bool
}

// count says how many watches there may be.
func (w *watches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.active)
}

// on returns what is closed when something happens to a node, or when that cannot be told
// any more. It is closed soon when there is no such node.
func (w *watches) on(target watched) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.active[target]; ok {
		return c
	}
	if w.active == nil {
		w.active = make(map[watched]chan struct{})
	}
	c := make(chan struct{})
	w.active[target] = c
	w.session.calls.Add(1)
	go func() {
		defer w.session.calls.Done()
		events, err := w.set(target)
		if err == nil {
			<-events // one event, or the end of the session
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.active, target)
		if err == nil || errors.Is(err, zk.ErrNoNode) || passing(err) {
			close(c)
		} // else looking again at once would not help: it is left to the poll
	}()
	return c
}

func (w *watches) set(target watched) (<-chan zk.Event, error) {
	if target.children {
		_, _, events, err := w.session.conn.ChildrenW(target.path)
		return events, err
	}
	_, _, events, err := w.session.conn.GetW(target.path)
	return events, err
}
