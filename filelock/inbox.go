package filelock

import (
	"sync"

	"github.com/holdfast-go/holdfast/driver"
)

// waiters are the calls of this engine that wait. A wake-up only says that it is worth
// looking; what is true stands in the file. One that gets lost costs no more than the time
// until the waiter looks by itself.
type waiters struct {
	mu   sync.Mutex
	wake map[driver.Token]chan struct{}
}

// add returns the channel that wakes the waiter with token. It is buffered: a wake-up that
// comes before the waiter sleeps is not lost.
func (w *waiters) add(token driver.Token) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.wake[token]
	if c == nil {
		c = make(chan struct{}, 1)
		w.wake[token] = c
	}
	return c
}

func (w *waiters) remove(token driver.Token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wake, token)
}

// deliver wakes the waiter with token, if there is one.
func (w *waiters) deliver(token driver.Token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.wake[token] <- struct{}{}:
	default: // woken already, or not here: a nil channel takes nothing
	}
}

// poke is a wake-up that is owed to a share that was granted.
type poke struct {
	home  string
	token driver.Token
}

// post delivers a wake-up to whatever member the share belongs to.
func (e *Engine) post(m *member, p poke) {
	if p.home == m.home {
		e.inbox.deliver(p.token)
		return
	}
	postTo(inboxPath(m.folder, p.home), p.token)
}
