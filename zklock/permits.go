package zklock

import (
	"context"
	"errors"
	"slices"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// takePermits takes weight of limit permits, each a lease: a node below the path's "leases".
//
// A lease counts as granted when no more than limit leases are as old or older. Curator
// grants one when there are no more than limit in all, which is stricter, so both together
// never grant more than limit. In Curator a request that waits holds the mutex at the path's
// "locks", so that there is one lease that waits, at most. Ours does so too, but only when it
// has to wait: a first try needs no mutex to be right.
func (e *Engine) takePermits(ctx context.Context, s *share, req *driver.Request) (driver.Grant, error) {
	for {
		g, err := e.tryPermits(ctx, s, req)
		if errors.Is(err, errMustWait) {
			g, err = e.queuePermits(ctx, s, req)
		}
		if !errors.Is(err, errStartAgain) || !req.Wait {
			return g, err
		}
	}
}

// errMustWait says that a request that waits has to queue.
var errMustWait = errors.New("others hold the permits, or came before")

// tryPermits grants at once or not at all.
func (e *Engine) tryPermits(ctx context.Context, s *share, req *driver.Request) (driver.Grant, error) {
	p, err := e.enqueue(ctx, req.Wait, creating{s.dir + "/" + leasesNode, leaseBase, s.data, req.Weight})
	if err != nil {
		return driver.Grant{}, err
	}
	b, err := e.leaseBlocker(ctx, s, p, req)
	var first []entry // who queues comes before who has only just arrived
	if err == nil && b == nil && req.Wait {
		var children []string
		children, err = e.childrenOf(ctx, s.dir+"/"+locksNode)
		first = queueOf(children)
	}
	switch {
	case err != nil:
	case req.Wait && (b != nil || len(first) > 0):
		err = errMustWait
	case b != nil:
		err = e.refusal(ctx, b)
	default:
		var g driver.Grant
		if g, err = e.grant(ctx, s, req, p, nil); err == nil {
			return g, nil
		}
	}
	e.withdraw(ctx, debt{session: p.session, nodes: p.paths()})
	return driver.Grant{}, err
}

// queuePermits waits for the mutex, and with it for permits.
func (e *Engine) queuePermits(ctx context.Context, s *share, req *driver.Request) (driver.Grant, error) {
	turn, err := e.enqueue(ctx, true, creating{s.dir + "/" + locksNode, lockBase, s.data, 1})
	if err != nil {
		return driver.Grant{}, err
	}
	left := debt{session: turn.session, nodes: turn.paths()}
	g, err := e.waitForPermits(ctx, s, req, turn, &left)
	if err != nil {
		e.withdraw(ctx, left)
	}
	return g, err
}

// waitForPermits waits with a place in the queue. What it creates is added to left.
func (e *Engine) waitForPermits(ctx context.Context, s *share, req *driver.Request, turn *place, left *debt) (driver.Grant, error) {
	myTurn := func() (*blocker, error) { return e.lockBlocker(ctx, turn, driver.Exclusive) }
	if err := e.wait(ctx, s, turn, myTurn); err != nil {
		return driver.Grant{}, err
	}
	p, err := e.enqueue(ctx, true, creating{s.dir + "/" + leasesNode, leaseBase, s.data, req.Weight})
	if err != nil {
		return driver.Grant{}, err
	}
	if p.session != turn.session { // the place in the queue is gone with its session
		e.withdraw(ctx, debt{session: p.session, nodes: p.paths()})
		return driver.Grant{}, errStartAgain
	}
	left.nodes = append(left.nodes, p.paths()...)
	if err := e.wait(ctx, s, p, func() (*blocker, error) { return e.leaseBlocker(ctx, s, p, req) }); err != nil {
		return driver.Grant{}, err
	}
	return e.grant(ctx, s, req, p, []any{&zk.DeleteRequest{Path: turn.path(), Version: -1}})
}

// leaseBlocker returns what keeps the leases at p waiting, nil if nothing does.
func (e *Engine) leaseBlocker(ctx context.Context, s *share, p *place, req *driver.Request) (*blocker, error) {
	leases := leasesOf(p.children)
	at := slices.IndexFunc(leases, func(l entry) bool { return l.name == p.names[len(p.names)-1] })
	if at < 0 || !slices.ContainsFunc(leases, func(l entry) bool { return l.name == p.names[0] }) {
		return nil, errStartAgain
	}
	oldest := p.dir + "/" + leases[0].name
	if leases[0].name != p.names[0] {
		data, stat, err := e.nodeOf(ctx, oldest)
		if err != nil {
			return nil, err
		}
		if l, ours := readLabel(data); stat != nil && ours && l.Limit != req.Limit {
			return nil, driver.Failf(driver.Invalid, "the limit is %d, and %d is in use: a semaphore has one limit everywhere", req.Limit, l.Limit)
		}
	}
	if at+1 > req.Limit {
		return &blocker{watch: watched{path: p.dir, children: true}, holder: oldest, mode: driver.Permits}, nil
	}
	return e.olderOf(ctx, s.dir, queueOf, p.zxid)
}
