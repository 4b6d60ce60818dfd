package zklock

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// holding is a share as its nodes tell of it: one node, or the leases that were created
// together.
type holding struct {
	driver.Holder
	nodes []string // paths
	first int64    // its first fence
	limit int      // 0 where the nodes do not say
	czxid int64
	last  int // of leases: how many leases are as old or older
}

// view is one name at one moment.
type view struct {
	info    driver.Info
	holders []holding
}

// Inspect implements driver.Inspector. It shows the locks of other libraries, too; as their
// owner what they wrote into the node.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	v, err := e.inspect(ctx, name)
	return v.info, err
}

func (e *Engine) inspect(ctx context.Context, name string) (view, error) {
	if err := e.enter(ctx); err != nil {
		return view{}, err
	}
	defer e.leave()
	if err := e.upToDate(ctx, e.path(name)); err != nil {
		return view{}, err
	}
	v, err := e.look(ctx, name)
	if err != nil {
		return view{}, e.classify(err)
	}
	return v, nil
}

// upToDate waits for a connection, and has its server catch up with what came before.
func (e *Engine) upToDate(ctx context.Context, path string) error {
	_, err := e.session.ready(ctx, e.patience(false))
	if err == nil {
		err = e.catchUp(ctx, path)
	}
	if err != nil {
		return e.classify(err)
	}
	return nil
}

// look describes a name as the server sees it that serves us.
func (e *Engine) look(ctx context.Context, name string) (view, error) {
	dir := e.path(name)
	v := view{info: driver.Info{Name: name, Holders: []driver.Holder{}}}
	children, err := e.childrenOf(ctx, dir)
	if err != nil {
		return v, err
	}
	locks, err := e.holdings(ctx, dir, queueOf(children))
	if err != nil {
		return v, err
	}
	var leases []holding
	if slices.Contains(children, leasesNode) {
		if leases, err = e.leases(ctx, dir+"/"+leasesNode); err != nil {
			return v, err
		}
	}
	if slices.Contains(children, locksNode) {
		waiting, err := e.childrenOf(ctx, dir+"/"+locksNode)
		if err != nil {
			return v, err
		}
		v.info.Waiters = len(queueOf(waiting))
	}
	v.sort(locks, leases)
	return v, nil
}

// sort tells holders from those who wait.
func (v *view) sort(locks, leases []holding) {
	oldestLock, oldestLease := oldest(locks), oldest(leases)
	shared := true
	for i, l := range locks {
		shared = shared && l.Mode == driver.Shared
		if (i == 0 || shared) && (oldestLease == 0 || l.czxid < oldestLease) {
			v.add(l)
		} else {
			v.info.Waiters++
		}
	}
	for _, l := range leases {
		v.info.Limit = max(v.info.Limit, l.limit)
	}
	for _, l := range leases {
		fits := v.info.Limit == 0 || l.last <= v.info.Limit
		if fits && (oldestLock == 0 || l.czxid < oldestLock) {
			v.add(l)
		}
	}
	if len(v.holders) == 0 || v.holders[0].Mode != driver.Permits {
		v.info.Limit = 0
	}
}

func (v *view) add(h holding) {
	v.holders = append(v.holders, h)
	v.info.Holders = append(v.info.Holders, h.Holder)
	v.info.Fence = max(v.info.Fence, h.Fence)
}

func oldest(all []holding) (czxid int64) {
	for _, h := range all {
		if czxid == 0 || h.czxid < czxid {
			czxid = h.czxid
		}
	}
	return czxid
}

// holdings describes nodes of dir, leaving out those that are gone by now.
func (e *Engine) holdings(ctx context.Context, dir string, entries []entry) ([]holding, error) {
	type node struct {
		data []byte
		stat *zk.Stat
	}
	var calls []<-chan result[node] // requests that are under way together
	for _, n := range entries {
		calls = append(calls, start(&e.session, func(c *zk.Conn) (node, error) {
			data, stat, err := c.Get(dir + "/" + n.name)
			return node{data, stat}, err
		}))
	}
	var all []holding
	for i, call := range calls {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case r := <-call:
			if errors.Is(r.err, zk.ErrNoNode) {
				continue
			} else if r.err != nil {
				return nil, r.err
			}
			h := holding{Holder: holderOf(entries[i].mode, r.value.data, r.value.stat), czxid: r.value.stat.Czxid}
			l, _ := readLabel(r.value.data)
			h.nodes = []string{dir + "/" + entries[i].name}
			h.first, h.limit, h.last = h.Fence-int64(l.Span)+1, l.Limit, i+1
			all = append(all, h)
		}
	}
	return all, nil
}

// leases describes the leases of a semaphore, those that were created together as one.
func (e *Engine) leases(ctx context.Context, dir string) ([]holding, error) {
	children, err := e.childrenOf(ctx, dir)
	if err != nil {
		return nil, err
	}
	each, err := e.holdings(ctx, dir, leasesOf(children))
	if err != nil {
		return nil, err
	}
	var all []holding
	at := make(map[string]int) // by issuer
	for _, l := range each {
		by := issuer(l.nodes[0])
		i, known := at[by]
		if !known {
			at[by] = len(all)
			all = append(all, l)
			continue
		}
		h := &all[i]
		h.nodes, h.last, h.Weight = append(h.nodes, l.nodes...), l.last, h.Weight+1
		if l.Fence > h.Fence { // it was granted again: see grantAgain
			h.Fence, h.first = l.Fence, l.first
		}
	}
	return all, nil
}

// listed is how many names List looks at together.
const listed = 16

// List implements driver.Inspector. It looks at every name below Root that starts with prefix,
// held or not: the nodes of free names stay until the servers clean them up.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.leave()
	if err := e.upToDate(ctx, e.cfg.Root); err != nil {
		return nil, err
	}
	children, err := e.childrenOf(ctx, e.cfg.Root)
	if err != nil {
		return nil, e.classify(err)
	}
	var names []string
	for _, element := range children {
		if name, ok := decode(element); ok && strings.HasPrefix(name, prefix) && driver.CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var infos []driver.Info
	for some := range slices.Chunk(names, listed) {
		views := make([]<-chan result[view], len(some))
		for i, name := range some {
			views[i] = start(&e.session, func(*zk.Conn) (view, error) { return e.look(ctx, name) })
		}
		for _, v := range views {
			r := <-v
			if r.err != nil {
				err = r.err
			} else if len(r.value.holders) > 0 && len(infos) < limit {
				infos = append(infos, r.value.info)
			}
		}
		if err != nil {
			return nil, e.classify(err)
		}
		if len(infos) >= limit {
			break
		}
	}
	return infos, nil
}

// breaks bounds how often Break looks again when holders change under its hands.
const breaks = 10

// Break implements driver.Inspector. It deletes the nodes of all holders at once, those of
// other libraries included. It keeps no record of it, and By and Reason are not stored. Who
// waits goes on waiting, and is next.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	for range breaks {
		v, err := e.inspect(ctx, req.Name)
		if err != nil {
			return driver.Info{}, err
		}
		if len(v.holders) == 0 {
			return v.info, driver.Fail(driver.NotHeld, nil)
		}
		if req.Fence != 0 && !slices.ContainsFunc(v.holders, func(h holding) bool { return h.first <= req.Fence && req.Fence <= h.Fence }) {
			return v.info, driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, v.info.Fence)
		}
		var ops []any
		for _, h := range v.holders {
			for _, node := range h.nodes {
				ops = append(ops, &zk.DeleteRequest{Path: node, Version: -1})
			}
		}
		answers, err := do(ctx, &e.session, func(c *zk.Conn) ([]zk.MultiResponse, error) { return c.Multi(ops...) })
		for _, a := range answers {
			if err == nil || errors.Is(a.Error, zk.ErrNoNode) {
				err = a.Error
			}
		}
		if err == nil {
			return v.info, nil
		}
		if !errors.Is(err, zk.ErrNoNode) {
			return v.info, e.classify(err)
		}
	}
	return driver.Info{}, driver.Failf(driver.Unavailable, "the holders changed faster than they could be broken: try again")
}
