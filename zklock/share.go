package zklock

import (
	"context"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// shareState says where a share stands.
type shareState uint8

const (
	asking shareState = iota // on its way, or waiting
	held
	over // given back, run out, lost; what is left of it is being deleted
)

// share is what a token has, in this process. The nodes are on the servers; when they have to
// go is decided here, and at the end of the session there. Guarded by the engine's mutex.
type share struct {
	token driver.Token
	dir   string   // the path of its name
	nodes []string // paths, from when it is held on
	data  []byte

	state     shareState
	session   int64
	end       driver.Instant // its nodes are deleted then
	keep      driver.Instant // not before this, though: a renewal is under way
	timer     driver.Timer
	withdrawn chan struct{} // closed when a release withdraws the request
}

func (s *share) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// begin enters a request into the books. It returns the share that its token holds already,
// if it does.
func (e *Engine) begin(req *driver.Request) (s *share, again bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s = e.shares[req.Token]
	switch {
	case e.closed:
		return nil, false, errClosed
	case s != nil && s.state == asking:
		return nil, false, driver.Failf(driver.Invalid, "the same request is under way: draw a token for each")
	case s != nil && s.dir != e.path(req.Name):
		return nil, false, driver.Failf(driver.Invalid, "the token holds another name: draw a token for each request")
	case s != nil && e.clock.Now() < s.end && e.session.is(s.session):
		return s, true, nil
	case s != nil:
		e.end(s)
	}
	s = &share{token: req.Token, dir: e.path(req.Name), data: labelOf(req), withdrawn: make(chan struct{})}
	e.shares[req.Token] = s
	return s, false, nil
}

// hold enters a grant into the books. It fails when the request was withdrawn meanwhile.
func (e *Engine) hold(s *share, nodes []string, session int64, sent driver.Instant, ttl time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return errClosed
	case s.state != asking:
		return driver.Fail(driver.NotHeld, errWithdrawn)
	case !e.session.is(session): // or it expires later, and then expired finds the share
		return errStartAgain
	}
	s.state, s.nodes, s.session, s.end = held, nodes, session, sent.Add(ttl)
	s.timer = e.clock.AfterFunc(s.end.Sub(e.clock.Now()), func() { e.due(s) })
	return nil
}

// due ends a share that was not renewed in time. Timers may be early or late, and the end may
// have moved since this one was set.
func (e *Engine) due(s *share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.state != held || e.closed {
		return
	}
	if left := max(s.end, s.keep).Sub(e.clock.Now()); left > 0 {
		s.timer.Reset(left)
		return
	}
	e.end(s)
}

// end strikes a held share out of the books and sees to it that its nodes go. The engine is
// locked.
func (e *Engine) end(s *share) {
	s.state = over
	s.stop()
	delete(e.shares, s.token)
	e.owe(debt{session: s.session, nodes: s.nodes})
}

// forget strikes out a request that was not granted.
func (e *Engine) forget(s *share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.state = over
	if e.shares[s.token] == s {
		delete(e.shares, s.token)
	}
}

// expired ends all shares of a session that is over. Its nodes are gone, or going.
func (e *Engine) expired(session int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for token, s := range e.shares {
		if s.state == held && s.session == session {
			s.state = over
			s.stop()
			delete(e.shares, token)
		}
	}
}

// debt is what has to be deleted still, unless its session ends before.
type debt struct {
	session int64
	nodes   []string // paths
	dir     string   // and whatever below this
	guid    string   // begins with this
}

// anySession is the session of a debt of which no more is known than that its nodes are of the
// session that there is now or will be next, or gone.
const anySession = 0

// owe pays a debt in the background. The engine is locked.
func (e *Engine) owe(d debt) {
	if e.closed {
		return
	}
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		e.pay(d)
	}()
}

// leaveBehind is owe for those who have not locked the engine.
func (e *Engine) leaveBehind(d debt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.owe(d)
}

// pay deletes until everything is gone, the session is over, or the engine is closed.
func (e *Engine) pay(d debt) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		id, err := e.session.ready(context.Background(), e.cfg.SessionTimeout)
		switch {
		case err != nil:
		case d.session == anySession:
			d.session = id
		case d.session != id:
			return // and the nodes with it
		}
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*e.cfg.Timeout+time.Second)
			err = e.settle(ctx, d)
			cancel()
		}
		if err == nil {
			return
		}
		select {
		case <-e.done:
			return
		case <-time.After(pause):
		}
	}
}

// settle deletes what d names, and returns nil when it is gone.
func (e *Engine) settle(ctx context.Context, d debt) error {
	nodes := d.nodes
	if d.guid != "" {
		found, err := e.find(ctx, d.dir, d.guid)
		if err != nil {
			return err
		}
		nodes = append(nodes, found...)
	}
	return e.remove(ctx, nodes)
}

// remove deletes nodes. What is gone already is as good as deleted: nobody else ever has a
// node of that path.
func (e *Engine) remove(ctx context.Context, nodes []string) error {
	_, err := e.removed(ctx, nodes)
	return err
}

// removed is remove, and says how many there were.
func (e *Engine) removed(ctx context.Context, nodes []string) (n int, err error) {
	if len(nodes) == 1 {
		was, err := e.deletions.delete(ctx, nodes[0])
		if was {
			n = 1
		}
		return n, err
	}
	// Requests of one session are carried out in their order, and travel together.
	var calls []<-chan result[struct{}]
	for _, node := range nodes {
		calls = append(calls, start(&e.session, func(c *zk.Conn) (struct{}, error) { return struct{}{}, c.Delete(node, -1) }))
	}
	for _, call := range calls {
		select {
		case r := <-call:
			if r.err == nil {
				n++
			} else if r.err != zk.ErrNoNode {
				err = r.err
			}
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return n, err
}
