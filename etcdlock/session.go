package etcdlock

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// All keys of a process with one TTL, in whole seconds, hang on one lease in etcd, which is
// renewed for all of them at once. What ends a share is the lease when the process dies or is
// cut off, and the process itself when a single claim was not renewed for its TTL.
//
// The lease lives a tenth longer than the TTL, a second at least. So a share can be granted for
// its whole TTL although the lease was renewed a moment ago, by another request.
//
// # Renewals that can be relied on
//
// A lease is renewed by the leader alone, without asking the others. One that was paused may
// answer though another has taken over long ago and is about to revoke the lease. So a renewal
// counts only together with something that the whole cluster agreed on: a transaction that was
// sent after the point that the renewal's time is counted from, and answered in the same term.
// Then no newer leader was elected before that point, and one that is elected later gives every
// lease its whole time again.

// session provides the lease for shares of one TTL.
type session struct {
	engine  *Engine
	seconds int64 // the TTL

	mu       sync.Mutex
	lease    *lease // the last one that was granted; nil before, and when it was given up
	granting *attempt
}

// lease is one of etcd's leases.
type lease struct {
	engine *Engine
	id     clientv3.LeaseID
	ttl    time.Duration // as etcd granted it
	spare  time.Duration // how long ago it may have been renewed and still cover a whole TTL

	mu       sync.Mutex
	sent     driver.Instant // before the last renewal that was answered left
	term     uint64         // of the server that answered it
	dead     bool           // etcd says that it is no more
	renewing *attempt
	slots    map[string]*slots // by name
}

// attempt is a request that several callers wait for.
type attempt struct {
	done chan struct{} // closed when err is set
	err  error
}

func (a *attempt) wait(ctx context.Context) error {
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// secondsOf rounds a TTL up to what etcd counts in.
func secondsOf(ttl time.Duration) int64 { return max(1, int64((ttl+time.Second-1)/time.Second)) }

// session returns the session for shares of ttl.
func (e *Engine) session(ttl time.Duration) *session {
	seconds := secondsOf(ttl)
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sessions[seconds]
	if s == nil {
		s = &session{engine: e, seconds: seconds}
		e.sessions[seconds] = s
	}
	return s
}

// get returns a lease that is alive as far as this process knows.
func (s *session) get(ctx context.Context) (*lease, error) {
	for {
		s.mu.Lock()
		if l := s.lease; l != nil && l.alive() {
			s.mu.Unlock()
			return l, nil
		}
		a := s.granting
		if a == nil {
			a = &attempt{done: make(chan struct{})}
			if !s.engine.background(func() { s.grant(a) }) {
				s.mu.Unlock()
				return nil, errClosed
			}
			s.granting = a
		}
		s.mu.Unlock()
		if err := a.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// grant asks etcd for a lease.
func (s *session) grant(a *attempt) {
	e := s.engine
	ctx, cancel := e.bound(context.Background())
	defer cancel()
	sent := e.clock.Now()
	resp, err := e.client.Grant(ctx, s.seconds+max(1, (s.seconds+9)/10))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granting, a.err = nil, err
	if err == nil {
		l := &lease{
			engine: e, id: resp.ID, ttl: time.Duration(resp.TTL) * time.Second,
			sent: sent, term: resp.RaftTerm, slots: map[string]*slots{},
		}
		// 1 % for clocks that run at different rates. The core takes as much off the TTL.
		l.spare = l.ttl - l.ttl/100 - time.Duration(s.seconds)*time.Second
		s.lease = l
		e.keepLease(l)
	}
	close(a.done)
}

// giveUp has what comes from now on hang on another lease than that one. It is called when a
// write that hangs on it may yet take effect, or a key of it could not be deleted. The claims
// that stand move to the new lease when they are renewed; whatever is left dies with the old
// one, which nobody renews any more.
func (e *Engine) giveUp(id clientv3.LeaseID) {
	e.mu.Lock()
	sessions := slices.Collect(maps.Values(e.sessions))
	e.mu.Unlock()
	for _, s := range sessions {
		s.mu.Lock()
		if s.lease != nil && s.lease.id == id {
			s.lease = nil
		}
		s.mu.Unlock()
	}
}

// is reports whether l is the lease that what comes now hangs on.
func (s *session) is(l *lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease == l
}

// alive reports whether the lease may still be there, by the local clock and by what etcd said.
func (l *lease) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.dead && l.engine.clock.Now().Sub(l.sent) < l.ttl-l.ttl/50
}

// age is how long ago the lease was renewed.
func (l *lease) age() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.engine.clock.Now().Sub(l.sent)
}

// covers reports whether a share may live for its whole TTL from sent on, given that the
// cluster agreed, in that term, on a transaction sent no earlier than sent.
func (l *lease) covers(sent driver.Instant, term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.dead && l.term == term && sent.Sub(l.sent) <= l.spare
}

// kill notes that etcd does not know the lease any more.
func (l *lease) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
}

// renew begins a renewal, or joins the one under way, and does not wait for it.
func (l *lease) renew() *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.renewing == nil {
		a := &attempt{done: make(chan struct{})}
		if !l.engine.background(func() { l.keepAlive(a) }) {
			a.err = errClosed
			close(a.done)
			return a
		}
		l.renewing = a
	}
	return l.renewing
}

func (l *lease) keepAlive(a *attempt) {
	e := l.engine
	ctx, cancel := e.bound(context.Background())
	defer cancel()
	sent := e.clock.Now()
	// Not with a leader required: the client repeats this without a pause when there is none,
	// while a server that may wait for one does.
	resp, err := e.client.KeepAliveOnce(ctx, l.id)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewing, a.err = nil, err
	switch {
	case err == nil:
		l.sent, l.term = sent, resp.RaftTerm
	case leaseIsGone(err):
		l.dead = true
	}
	close(a.done)
}

// freshen begins a renewal when the lease is about to be too old to cover a whole TTL.
func (l *lease) freshen() {
	if l.age() > l.spare/2 {
		l.renew()
	}
}

// confirm sees to it that a share lives for its whole TTL from sent on. prove is a transaction
// that the cluster agrees on, which shows that the share's key stands, and returns the term
// of its answer; term is that of one sent no earlier than sent.
func (l *lease) confirm(ctx context.Context, sent driver.Instant, term uint64, prove func() (uint64, error)) error {
	for range 3 {
		if l.covers(sent, term) {
			return nil
		}
		if err := l.renew().wait(ctx); err != nil {
			return err
		}
		if l.covers(sent, term) { // the renewal was under way together with the transaction
			return nil
		}
		var err error
		if term, err = prove(); err != nil {
			return err
		}
	}
	return errUnsteady
}
