package zklock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// pollEvery is how often, give or take a half, a request that waits looks for itself. A watch
// tells it earlier; this is for the watch that was lost.
const pollEvery = 2 * time.Second

// Acquire implements driver.Engine.
func (e *Engine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.check(&req); err != nil {
		return driver.Grant{}, err
	}
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer e.leave()
	s, again, err := e.begin(&req)
	if err != nil {
		return driver.Grant{}, err
	}
	if again {
		return e.grantAgain(ctx, s, &req)
	}
	var g driver.Grant
	if req.Mode == driver.Permits {
		g, err = e.takePermits(ctx, s, &req)
	} else {
		g, err = e.takeLock(ctx, s, &req)
	}
	if err != nil {
		e.forget(s)
		return driver.Grant{}, e.classify(err)
	}
	return g, nil
}

// check refuses what the engine cannot do, before anything is sent.
func (e *Engine) check(req *driver.Request) error {
	switch {
	case req.Mode == driver.Upgradeable, req.Upgrade:
		return driver.Failf(driver.Unsupported, "ZooKeeper's recipes have no shares that can be upgraded")
	case req.TTL > e.caps.MaxTTL:
		return driver.Failf(driver.Invalid, "TTL is %v: a session of %v carries leases of %v; raise Config.SessionTimeout, and maxSessionTimeout of the servers",
			req.TTL, e.caps.Resolution, e.caps.MaxTTL)
	case req.Limit > MaxPermits:
		return driver.Failf(driver.Invalid, "the limit is %d: every permit is a node, use %d or less", req.Limit, MaxPermits)
	}
	return nil
}

// base is what the node of a request is called.
func (e *Engine) base(mode driver.Mode) string {
	switch {
	case mode == driver.Shared:
		return readBase
	case e.cfg.Recipe == ReadWrite:
		return writeBase
	}
	return lockBase
}

// takeLock takes an Exclusive or a Shared share: a node in the queue of the name, which waits
// for those before it that it does not go with.
func (e *Engine) takeLock(ctx context.Context, s *share, req *driver.Request) (driver.Grant, error) {
	for {
		p, err := e.enqueue(ctx, req.Wait, creating{s.dir, e.base(req.Mode), s.data, 1})
		if err != nil {
			return driver.Grant{}, err
		}
		look := func() (*blocker, error) { return e.lockBlocker(ctx, p, req.Mode) }
		if req.Wait {
			err = e.wait(ctx, s, p, look)
		} else if b, lookErr := look(); lookErr != nil {
			err = lookErr
		} else if b != nil {
			err = e.refusal(ctx, b)
		}
		if err == nil {
			var g driver.Grant
			if g, err = e.grant(ctx, s, req, p, nil); err == nil {
				return g, nil
			}
		}
		e.withdraw(ctx, debt{session: p.session, nodes: p.paths()})
		if !errors.Is(err, errStartAgain) || !req.Wait {
			return driver.Grant{}, err
		}
	}
}

// errStartAgain says that a request that waited has lost its place, with its session or
// because somebody deleted its node.
var errStartAgain = errors.New("the request lost its place in the queue")

// blocker is what a request has to wait for.
type blocker struct {
	watch watched  // what changes before the request can be granted
	ahead []string // or the nodes of the queue that have to go, the nearest last

	// Who holds the name, as far as that can be told from here: a node.
	holder string
	mode   driver.Mode
}

// lockBlocker returns what keeps the request at p waiting, nil if nothing does: the nearest
// one before it that it does not go with, so that the end of one share wakes one request; and
// any lease that is older.
//
// What a lagging server has not heard of can only be that somebody left. It has heard of
// everything that came before our node: that was there when our node was, and it was there
// when the creation was answered.
func (e *Engine) lockBlocker(ctx context.Context, p *place, mode driver.Mode) (*blocker, error) {
	queue := queueOf(p.children)
	at := -1
	var ahead []string
	for i := range queue {
		if queue[i].name == p.names[0] {
			at = i
			break
		}
		if mode == driver.Exclusive || queue[i].mode == driver.Exclusive {
			ahead = append(ahead, p.dir+"/"+queue[i].name)
		}
	}
	if at < 0 {
		return nil, errStartAgain
	}
	if len(ahead) > 0 {
		return &blocker{ahead: ahead, holder: p.dir + "/" + queue[0].name, mode: queue[0].mode}, nil
	}
	for _, name := range p.children {
		if name == leasesNode {
			return e.olderOf(ctx, p.dir+"/"+leasesNode, leasesOf, p.zxid)
		}
	}
	return nil, nil
}

// olderOf returns a blocker for a node below dir that is older than zxid, if there is one.
// Locks wait for older leases and leases for older locks, so that they never wait for each
// other; both look after their own node was created, so that one of two sees the other.
func (e *Engine) olderOf(ctx context.Context, dir string, read func([]string) []entry, zxid int64) (*blocker, error) {
	children, err := e.childrenOf(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, n := range read(children) {
		stat, err := e.statOf(ctx, dir+"/"+n.name)
		if err != nil {
			return nil, err
		}
		if stat != nil && stat.Czxid < zxid {
			return &blocker{watch: watched{path: dir + "/" + n.name}, holder: dir + "/" + n.name, mode: n.mode}, nil
		}
	}
	return nil, nil
}

// refusal returns the error for a request that does not wait.
func (e *Engine) refusal(ctx context.Context, b *blocker) error {
	d := driver.Fail(driver.Held, nil)
	data, stat, err := e.nodeOf(ctx, b.holder)
	if err == nil && stat != nil {
		h := holderOf(b.mode, data, stat)
		d.Holder = &h
	}
	return d
}

// nodeOf returns the data of a node and what is known of it; no stat if there is no node.
func (e *Engine) nodeOf(ctx context.Context, path string) ([]byte, *zk.Stat, error) {
	type node struct {
		data []byte
		stat *zk.Stat
	}
	n, err := do(ctx, &e.session, func(c *zk.Conn) (node, error) {
		data, stat, err := c.Get(path)
		return node{data, stat}, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil, nil
	}
	return n.data, n.stat, err
}

// wait returns nil once look finds nothing any more that blocks the request at p, whose node is
// then in place, as it was seen and by all that was heard since. It looks anew whenever something
// may have changed of which a vigil does not tell.
func (e *Engine) wait(ctx context.Context, s *share, p *place, look func() (*blocker, error)) error {
	var holder, b *blocker // b is what was found last
	var seen *watch        // that was set before what was found
	var v *vigil           // on what b.ahead names
	defer func() { v.end() }()
	for {
		found, err := look()
		switch {
		case err == nil && found == nil:
			return nil
		case err == nil:
			holder, b = found, found
		case ctx.Err() != nil:
			return e.gaveUp(ctx, holder)
		case !passing(err):
			return err
		}
		// A node that is gone by the time of its watch tells so. Children that have changed by
		// then do not: they are looked at again once the watch is set.
		var w *watch
		var until <-chan struct{}
		switch {
		case b == nil:
		case b.ahead != nil:
			if !v.covers(b.ahead) {
				v.end()
				v = p.wire.keep(p.path(), b.ahead)
			}
			until = v.heard
		default:
			w = e.watches.on(b.watch)
			if until = w.changed; b.watch.children && w != seen {
				until = w.set
			}
		}
		if err := e.pause(ctx, s, until); err != nil {
			if ctx.Err() != nil {
				return e.gaveUp(ctx, holder)
			}
			return err
		}
		seen = w
		if v.shorten(p) {
			continue
		}
		// The session may be between two servers, for as long as it lives.
		id, err := e.session.ready(ctx, e.patience(true))
		switch {
		case ctx.Err() != nil:
			return e.gaveUp(ctx, holder)
		case err != nil:
			return err
		case id != p.session:
			return errStartAgain
		}
		if err := e.lookAgain(ctx, p); err != nil && ctx.Err() == nil && !passing(err) {
			return err
		}
	}
}

// pause returns when changed is closed or it is time to look again anyway.
func (e *Engine) pause(ctx context.Context, s *share, changed <-chan struct{}) error {
	poll := time.NewTimer(pollEvery/2 + rand.N(pollEvery))
	defer poll.Stop()
	select {
	case <-changed:
	case <-poll.C:
	case <-s.withdrawn:
		return driver.Fail(driver.NotHeld, errWithdrawn)
	case <-e.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// passing is an error after which it is worth while to look again.
func passing(err error) bool {
	return errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrNoServer) || errors.Is(err, zk.ErrSessionMoved) ||
		errors.Is(err, zk.ErrSessionExpired)
}

// gaveUp is the error of a request that waited for a holder until its context ended.
func (e *Engine) gaveUp(ctx context.Context, b *blocker) error {
	d := driver.Fail(driver.Held, ctx.Err())
	if b == nil {
		return d
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Timeout)
	defer cancel()
	var refused *driver.Error
	if errors.As(e.refusal(short, b), &refused) {
		d.Holder = refused.Holder
	}
	return d
}

// withdraw deletes what a request has created that is not granted. It returns when that is
// done, or when it will be in the background.
func (e *Engine) withdraw(ctx context.Context, d debt) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Timeout)
	defer cancel()
	if e.session.is(d.session) && e.remove(ctx, d.nodes) == nil && e.session.is(d.session) {
		return
	}
	e.leaveBehind(d)
}

// grant turns a place that nothing blocks into a share. Its TTL counts from the last request
// that proved that the session lives: the creation, or, if the request has waited for longer
// than a quarter of its TTL since, a new proof, which also finds the nodes in place. finish
// are further operations that are carried out together with that proof, or not at all.
func (e *Engine) grant(ctx context.Context, s *share, req *driver.Request, p *place, finish []any) (driver.Grant, error) {
	first, err := fenceOf(p.zxid)
	if err != nil {
		return driver.Grant{}, err
	}
	if e.clock.Now().Sub(p.sent) > req.TTL/4 || finish != nil {
		if err := e.proveAgain(ctx, p, finish); err != nil {
			return driver.Grant{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return driver.Grant{}, driver.Fail(driver.Held, err)
	}
	if err := e.hold(s, p.paths(), p.session, p.sent, req.TTL); err != nil {
		return driver.Grant{}, err
	}
	return driver.Grant{Fence: first, FenceSpan: min(req.Span, maxSpan), Sent: p.sent}, nil
}

// proveAgain counts the place at p from now on. While the session lives it is not put off by
// the loss of a connection.
func (e *Engine) proveAgain(ctx context.Context, p *place, finish []any) error {
	for tried := false; ; tried = true {
		sent := e.clock.Now()
		missing, err := e.prove(ctx, p.session, p.paths(), finish)
		switch {
		case err == nil && missing < 0:
			p.sent = sent
			return nil
		case err == nil, errors.Is(err, errGone):
			return errStartAgain
		case tried && finish != nil && errors.Is(err, zk.ErrNoNode):
			finish = nil // the answer was lost: it is done
			continue
		case errors.Is(err, zk.ErrNoNode):
			return errStartAgain
		case !passing(err):
			return err
		}
		if _, err := e.session.ready(ctx, e.patience(true)); err != nil {
			return err
		}
	}
}

// grantAgain answers a repeated request whose token holds its share. Writing its label anew
// is a transaction with a number of its own, and so the share's new fence.
func (e *Engine) grantAgain(ctx context.Context, s *share, req *driver.Request) (driver.Grant, error) {
	e.mu.Lock()
	node, session := s.nodes[0], s.session
	e.mu.Unlock()
	sent := e.clock.Now()
	stat, err := do(ctx, &e.session, func(c *zk.Conn) (*zk.Stat, error) { return c.Set(node, labelOf(req), -1) })
	if err != nil {
		d := e.classify(err)
		if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrSessionExpired) {
			d = driver.Fail(driver.Lost, errRemoved)
		}
		return driver.Grant{}, d
	}
	first, err := fenceOf(stat.Mzxid)
	if err != nil {
		return driver.Grant{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.state != held || !e.session.is(session) || e.clock.Now() >= max(s.end, s.keep) {
		return driver.Grant{}, driver.Fail(driver.Lost, errDeadline)
	}
	s.end = sent.Add(req.TTL)
	s.timer.Reset(s.end.Sub(e.clock.Now()))
	return driver.Grant{Fence: first, FenceSpan: min(req.Span, maxSpan), Sent: sent}, nil
}
