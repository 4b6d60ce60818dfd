package memlock

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Op is an operation of an engine.
type Op string

// The operations that faults can be injected into.
const (
	OpAcquire Op = "acquire"
	OpRenew   Op = "renew"
	OpRelease Op = "release"
	OpRead    Op = "read value"
	OpWrite   Op = "write value"
	OpAwait   Op = "await value"
)

// Call describes a call before it is carried out.
type Call struct {
	Op    Op
	Name  string
	Owner string // owner label of the caller
	Wait  bool   // with OpAcquire: it waits
}

// Fault is what goes wrong with a call. The zero value is: nothing.
type Fault struct {
	// Delay holds the call back for so long, by the store's clock, or until its context ends.
	Delay time.Duration

	// Refuse, when not nil, is answered in place of carrying the call out. A *driver.Error
	// is answered as it is, any other error as unavailable, outcome not applied.
	Refuse error

	// DropReply carries the call out and then answers that the outcome is unknown, as a
	// connection does that breaks between the request and its reply.
	DropReply bool
}

// Inject has f decide about every call from now on; nil ends that. f is called before
// anything is locked, from the goroutine of the call, and from several at once.
func (s *Store) Inject(f func(Call) Fault) {
	if f == nil {
		s.inject.Store(nil)
		return
	}
	s.inject.Store(&f)
}

// Lose ends every share of name, as if their TTLs were over, and reports how many there
// were. Their holders find out when they renew; whoever waits gets the name at once.
func (s *Store) Lose(name string) int {
	sh := s.lock(name)
	defer sh.mu.Unlock()
	at := sh.books.Open(name)
	defer sh.close(at)
	b := &at.Value
	n := b.take()
	s.settle(sh, b, s.clock.Now())
	return n
}

var errDropped = &driver.Error{
	Kind: driver.Unavailable, Outcome: driver.Unknown, Err: errors.New("reply dropped (injected)"),
}

// suffer asks what goes wrong with call, and waits or refuses accordingly.
func (e *Engine) suffer(ctx context.Context, call Call) (Fault, error) {
	f := e.store.inject.Load()
	if f == nil {
		return Fault{}, nil
	}
	fault := (*f)(call)
	if fault.Delay > 0 {
		late := make(chan struct{})
		timer := e.store.clock.AfterFunc(fault.Delay, func() { close(late) })
		defer timer.Stop()
		select {
		case <-late:
		case <-ctx.Done():
			return fault, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			return fault, errClosed
		}
	}
	if fault.Refuse != nil {
		var classified *driver.Error
		if errors.As(fault.Refuse, &classified) {
			return fault, fault.Refuse
		}
		return fault, driver.Fail(driver.Unavailable, fault.Refuse)
	}
	return fault, nil
}
