package mysqllock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

const (
	// waitSeconds is how long a request waits at the server in one statement. It bounds for how
	// long a process that died goes on waiting.
	waitSeconds = 2

	// killEvery is how often the server is asked to end a wait, killFor for how long: then the
	// connection is cut.
	killEvery = 20 * time.Millisecond
	killFor   = time.Second
)

// lend returns a session that nobody uses, or nil. e.mu is locked.
func (e *Engine) lend() *session {
	for _, s := range e.waiters {
		if !s.lent {
			s.lent, s.waited = true, ""
			return s
		}
	}
	return nil
}

// lendAgain returns the session that the request's name was waited for in the last time, or nil. Who
// had to wait a moment ago will as a rule have to wait again: to try first in the main session would
// be one more statement, which is refused. Where nobody is in the way the wait is over at once, and
// the next request is tried again.
func (e *Engine) lendAgain(n *name, req *driver.Request) *session {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !req.Wait || req.Mode != driver.Exclusive || n.busy || n.waiting || len(n.shares) > 0 {
		return nil
	}
	for _, s := range e.waiters {
		if !s.lent && s.waited == req.Name {
			s.lent, s.waited, n.waiting = true, "", true
			return s
		}
	}
	return nil
}

// waitAgain is waitAtServer for a request that nobody has refused yet.
func (e *Engine) waitAgain(ctx context.Context, n *name, req *driver.Request, s *session, w *wait) (driver.Grant, error) {
	g, err := e.waitAtServer(ctx, n, req, s, w)
	e.mu.Lock()
	n.waiting = false
	n.change()
	e.mu.Unlock()
	var d *driver.Error
	if errors.As(err, &d) && d.Outcome == driver.NotApplied { // the server has ended the wait
		w.refused, w.heard = true, e.clock.Now()
	}
	return g, err
}

// waitAtServer has the request wait in a session of its own. What it is granted stays there until
// it is released: no session can release a lock while it waits for another.
func (e *Engine) waitAtServer(ctx context.Context, n *name, req *driver.Request, s *session, w *wait) (driver.Grant, error) {
	for {
		began := e.clock.Now()
		copied := *req
		a := e.newAttempt(n, &copied, s)
		e.open(req.Name) // settle drops it
		a.wait(ctx)
		g, err := a.result(ctx)
		switch {
		case err == nil:
			return g, nil
		case isHeld(err) && e.clock.Now().Sub(began) >= waitSeconds*time.Second/2:
			continue
		}
		a.returnSession()
		w.poll = true
		if isHeld(err) || ctx.Err() == nil && !e.closed.Load() {
			// Not granted at once, and refused at once: permits are in the way. Or the session
			// has failed, and the next try shows whether the server has.
			return driver.Grant{}, nil
		}
		return g, err
	}
}

// wait has the attempt wait at the server, and returns when it is over: soon after ctx ends, or the
// engine is closed.
func (a *attempt) wait(ctx context.Context) {
	e := a.e
	var once sync.Once
	interrupt := func() { once.Do(func() { e.interrupt(a) }) }
	forgetCall, forgetEngine := context.AfterFunc(ctx, interrupt), context.AfterFunc(e.active, interrupt)
	defer func() {
		// What ends the wait must not hit the next statement: where it has begun, its end is waited for,
		// and where it is about to begin, nothing is left for it to do.
		if call, engine := forgetCall(), forgetEngine(); !call || !engine {
			interrupt()
		}
	}()
	j := &job{run: a.waitTurn, waits: true, then: func(err error) { a.settle(err, false) }}
	if a.s.lead(ctx, j) {
		return
	}
	a.s.submit(j)
	select {
	case <-a.done:
	case <-ctx.Done():
	case <-e.active.Done():
	}
}

// returnSession gives the session of an attempt that got nothing back for others to use, when
// it is done.
func (a *attempt) returnSession() {
	s, e := a.s, a.e
	s.submit(&job{run: func() error { return nil }, then: func(error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(s.shares) == 0 {
			s.lent = false
		}
	}})
}

// waitTurn is what is done in the session that waits.
func (a *attempt) waitTurn() error {
	e, s := a.e, a.s
	if err := s.need(a.req.TTL); err != nil {
		return a.unlessStopped(err)
	}
	e.mu.Lock()
	stopped := a.stopped
	e.mu.Unlock()
	if stopped {
		return nil
	}
	w := &a.want
	if err := s.needAndTake(a.req.TTL, []*wanted{w}, waitSeconds); err != nil || !w.granted {
		return a.unlessStopped(err)
	}
	if w.blocked {
		e.mu.Lock()
		s.waited = a.req.Name
		e.mu.Unlock()
	}
	// After a long wait it is proved that the lock is still held, and its TTL counts from then.
	if sent := e.clock.Now(); sent.Sub(w.sent) > a.req.TTL/8 {
		if err := s.check(); err != nil {
			w.granted = false
			s.end() // and with it the lock
			return e.classify(err, driver.NotApplied)
		}
		w.sent = sent
	}
	return nil
}

// unlessStopped returns the error of an attempt that has taken nothing, nil if it failed because it
// was interrupted: that may have hit a statement before the one that waits.
func (a *attempt) unlessStopped(err error) error {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	if a.stopped && codeOf(err) == codeInterrupted {
		return nil
	}
	return err
}

// interrupt ends an attempt that waits at the server, and returns when it has ended. It may have
// been granted in that moment.
func (e *Engine) interrupt(a *attempt) {
	e.mu.Lock()
	a.stopped = true
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), killFor)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case <-a.done:
			return
		default:
		}
		if id := a.s.id.Load(); id != 0 {
			_ = e.onMain(ctx, func(main *session) error {
				_, err := main.exec(fmt.Sprintf("KILL QUERY %d", id), 0)
				return err
			})
		}
		select {
		case <-a.done:
			return
		case <-time.After(killEvery): // the statement may only now have reached the server
		}
	}
	a.s.mu.Lock()
	if a.s.abort != nil {
		a.s.abort()
	}
	a.s.mu.Unlock()
}
