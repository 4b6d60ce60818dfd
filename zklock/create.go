package zklock

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// place is what a request has in a queue: a node, or several that were created at once.
type place struct {
	dir      string
	names    []string
	session  int64
	zxid     int64          // of the creation
	sent     driver.Instant // before the request that proved last that the session lives left
	children []string       // of dir, seen after the creation
	wire     *wire          // on which they were seen, nil if that is not known
}

func (p *place) path() string { return p.dir + "/" + p.names[0] }

func (p *place) paths() []string {
	paths := make([]string, len(p.names))
	for i, name := range p.names {
		paths[i] = p.dir + "/" + name
	}
	return paths
}

// creating says what to create: nodes of that base in dir, count of them.
type creating struct {
	dir, base string
	data      []byte
	count     int
}

// enqueue creates nodes and looks who else is there, in one round trip for a single node: the
// second request leaves right behind the first, and those of one session are carried out in
// their order.
//
// The protection in the nodes' names is what finds them again when the answer was lost. Only
// after that search is the request repeated, so that no node of ours is ever left in front of
// us. When enqueue fails, what it may have created is deleted in the background.
func (e *Engine) enqueue(ctx context.Context, wait bool, c creating) (*place, error) {
	for {
		id, err := e.session.ready(ctx, e.patience(wait))
		if err != nil {
			return nil, err
		}
		guid := protected()
		p := &place{dir: c.dir, session: id, sent: e.clock.Now()}
		err = e.createAndLook(ctx, p, guid, c)
		switch {
		case err == nil && e.session.is(id):
			return e.numbered(ctx, p)
		case err == nil:
			// The session ended meanwhile; in which one the nodes were created is not known.
			e.leaveNodes(p)
			continue
		case errors.Is(err, zk.ErrNoNode):
			if err = e.makeDirs(ctx, c.dir); err != nil && passing(err) {
				err = nil // as often as it takes
			}
		case errors.Is(err, zk.ErrSessionExpired), errors.Is(err, zk.ErrNoServer):
			continue
		case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrSessionMoved):
			var found bool
			if found, err = e.recover(ctx, wait, p, guid); found && err == nil {
				return e.numbered(ctx, p)
			}
			if err != nil {
				e.leaveBehind(debt{session: id, dir: c.dir, guid: guid})
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

// leaveNodes deletes nodes in the background, in whatever session they are.
func (e *Engine) leaveNodes(p *place) { e.leaveBehind(debt{session: anySession, nodes: p.paths()}) }

// createAndLook creates the nodes of p and fills in their names and the children of its dir.
func (e *Engine) createAndLook(ctx context.Context, p *place, guid string, c creating) error {
	prefix := c.dir + "/" + guid + c.base
	if c.count > 1 {
		return e.createMany(ctx, p, guid, prefix, c)
	}
	w, err := e.session.own(ctx)
	if err != nil {
		return err
	}
	creation, look := creationCall(prefix, c.data, e.cfg.ACL), childrenCall(c.dir)
	w.ask(creation, look)
	var children answer
	select {
	case children = <-look.answer:
	case <-ctx.Done():
		created := start(&e.session, func(*zk.Conn) ([]string, error) {
			path, err := (<-creation.answer).text()
			return []string{path}, err
		})
		return e.giveBack(ctx, created, c.dir, guid)
	}
	created := <-creation.answer // which came before
	path, err := created.text()
	if err != nil {
		return err
	}
	p.zxid, p.names, p.wire = created.zxid, []string{path[strings.LastIndexByte(path, '/')+1:]}, w
	p.children, err = children.texts()
	return e.unlessBlind(ctx, p, err)
}

// createMany creates nodes in one transaction.
func (e *Engine) createMany(ctx context.Context, p *place, guid, prefix string, c creating) error {
	created := start(&e.session, func(conn *zk.Conn) ([]string, error) { return e.create(conn, prefix, c) })
	var r result[[]string]
	select {
	case r = <-created:
	case <-ctx.Done():
		return e.giveBack(ctx, created, c.dir, guid)
	}
	if r.err != nil {
		return r.err
	}
	for _, path := range r.value {
		p.names = append(p.names, path[strings.LastIndexByte(path, '/')+1:])
	}
	return e.unlessBlind(ctx, p, e.lookAgain(ctx, p))
}

// unlessBlind gives up a place where the look behind its creation has failed.
func (e *Engine) unlessBlind(ctx context.Context, p *place, err error) error {
	if err == nil {
		return nil
	}
	e.withdraw(ctx, debt{session: p.session, nodes: p.paths()})
	if passing(err) {
		return zk.ErrSessionExpired // begin again, with other nodes
	}
	return err
}

// lookAgain sees who is in the dir of p now.
func (e *Engine) lookAgain(ctx context.Context, p *place) error {
	w, err := e.session.own(ctx)
	if err != nil {
		return err
	}
	look := childrenCall(p.dir)
	w.ask(look)
	children, err := look.wait(ctx).texts()
	if err == nil || errors.Is(err, zk.ErrNoNode) {
		p.children, p.wire = children, w
		return nil
	}
	return err
}

// create creates several nodes in one transaction.
func (e *Engine) create(conn *zk.Conn, prefix string, c creating) ([]string, error) {
	ops := make([]any, c.count)
	for i := range ops {
		ops[i] = &zk.CreateRequest{Path: prefix, Data: c.data, Acl: e.cfg.ACL, Flags: zk.FlagEphemeralSequential}
	}
	answers, err := conn.Multi(ops...)
	var paths []string
	for _, a := range answers {
		if err == nil {
			err = a.Error
		}
		paths = append(paths, a.String)
	}
	return paths, err
}

// giveBack undoes a creation under way when its caller has gone, and returns soon: what it has
// not seen done by then is done in the background.
func (e *Engine) giveBack(ctx context.Context, created <-chan result[[]string], dir, guid string) error {
	late := time.NewTimer(e.cfg.Timeout)
	defer late.Stop()
	select {
	case r := <-created:
		id, err := e.session.ready(context.Background(), 0)
		if r.err == nil && err == nil {
			e.withdraw(ctx, debt{session: id, nodes: r.value})
			return driver.Fail(driver.Unavailable, ctx.Err())
		}
		again := make(chan result[[]string], 1)
		again <- r
		created = again
	case <-late.C:
	case <-e.done:
	}
	e.disown(created, dir, guid)
	return ctx.Err()
}

// disown sees to it that a creation under way leaves nothing. The library may send it much
// later, and then in another session, so the search begins when it has told what it knows.
func (e *Engine) disown(created <-chan result[[]string], dir, guid string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return // and the session with it
	}
	e.work.Add(1)
	go func() {
		defer e.work.Done()
		r := <-created
		if r.err != nil && definite(r.err) {
			return
		}
		e.pay(debt{session: anySession, dir: dir, guid: guid})
	}()
}

// recover finds out what became of a creation whose answer was lost. Once the session has
// been moved to a new connection nothing more arrives from the old one: the server hears only
// the one to which the session was moved last. And what had arrived before is seen after a
// Sync, which a server that lags behind needs first. found is false when it was not carried
// out and will not be.
func (e *Engine) recover(ctx context.Context, wait bool, p *place, guid string) (found bool, err error) {
	for {
		id, err := e.session.ready(ctx, e.patience(wait))
		if err != nil {
			return false, err
		}
		if id != p.session {
			return false, nil // gone with its session
		}
		names, err := e.find(ctx, p.dir, guid)
		switch {
		case err == nil && len(names) == 0:
			return false, nil
		case err == nil:
			for _, name := range names {
				p.names = append(p.names, strings.TrimPrefix(name, p.dir+"/"))
			}
			if err = e.lookAgain(ctx, p); err == nil {
				return true, nil
			}
		}
		p.names = nil
		if ctx.Err() != nil || !passing(err) {
			return false, err
		}
	}
}

// find returns the paths of the nodes in dir whose names begin with guid.
func (e *Engine) find(ctx context.Context, dir, guid string) ([]string, error) {
	if err := e.catchUp(ctx, dir); err != nil {
		return nil, err
	}
	children, err := e.childrenOf(ctx, dir)
	var found []string
	for _, name := range children {
		if strings.HasPrefix(name, guid) {
			found = append(found, dir+"/"+name)
		}
	}
	return found, err
}

// numbered returns p with the transaction that created it, where the answer did not tell.
func (e *Engine) numbered(ctx context.Context, p *place) (*place, error) {
	if p.zxid != 0 {
		return p, nil
	}
	stat, err := e.statOf(ctx, p.path())
	if err != nil || stat == nil {
		e.leaveNodes(p)
		if err == nil {
			err = driver.Failf(driver.Unavailable, "somebody deleted the node as soon as it was created")
		}
		return nil, err
	}
	p.zxid = stat.Czxid
	return p, nil
}

// catchUp has the server that serves us catch up with the leader.
func (e *Engine) catchUp(ctx context.Context, path string) error {
	_, err := do(ctx, &e.session, func(c *zk.Conn) (string, error) { return c.Sync(path) })
	return err
}

// childrenOf returns the children of a node, none if there is no such node.
func (e *Engine) childrenOf(ctx context.Context, path string) ([]string, error) {
	children, err := do(ctx, &e.session, func(c *zk.Conn) ([]string, error) {
		children, _, err := c.Children(path)
		return children, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	return children, err
}

// statOf returns what is known of a node, nil if there is none.
func (e *Engine) statOf(ctx context.Context, path string) (*zk.Stat, error) {
	return do(ctx, &e.session, func(c *zk.Conn) (*zk.Stat, error) {
		exists, stat, err := c.Exists(path)
		if err != nil || !exists {
			return nil, err
		}
		return stat, nil
	})
}

// makeDirs creates dir and what is missing above it. Root stays; what is below are container
// nodes, which the servers delete some time after their last child.
func (e *Engine) makeDirs(ctx context.Context, dir string) error {
	for i := 1; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		path := dir[:i]
		_, err := do(ctx, &e.session, func(c *zk.Conn) (string, error) { return e.makeDir(c, path) })
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			// Who may not create a node above may still find it there.
			if stat, _ := e.statOf(ctx, path); stat == nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) makeDir(c *zk.Conn, path string) (string, error) {
	e.mu.Lock()
	persistent := e.persistent || len(path) <= len(e.cfg.Root)
	e.mu.Unlock()
	if !persistent {
		made, err := c.CreateContainer(path, nil, zk.FlagContainer, e.cfg.ACL)
		if !unimplemented(err) {
			return made, err
		}
		e.mu.Lock()
		e.persistent = true // ZooKeeper before 3.5
		e.mu.Unlock()
	}
	return c.Create(path, nil, zk.FlagPersistent, e.cfg.ACL)
}
