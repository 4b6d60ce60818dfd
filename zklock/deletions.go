package zklock

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// deletions gives nodes back, and merges what is given back at the same time: while two
// requests are under way others wait, and then go together, in one transaction. That costs the
// servers and this process a fraction of what they cost one by one.
//
// A transaction is carried out as a whole or not at all, so where one node is gone already, or
// may not be deleted, each is tried by itself. Whether one that was not answered was carried
// out is as unknown as it is of a single request, and told to each caller.
type deletions struct {
	engine *Engine

	mu    sync.Mutex
	queue []*deletion
	under int // how many requests, or rows of them, are under way
}

// deletion is one that waits for others.
type deletion struct {
	node string
	done chan struct{} // closed when was and err are set
	was  bool
	err  error
}

const (
	maxDeletionsUnder = 2
	maxDeletionsBatch = 64 // far below what fits a packet
)

// delete deletes a node and reports whether it was there.
func (d *deletions) delete(ctx context.Context, node string) (was bool, err error) {
	d.mu.Lock()
	if d.under < maxDeletionsUnder {
		d.under++
		d.mu.Unlock()
		defer d.landed()
		return d.single(ctx, node)
	}
	one := &deletion{node: node, done: make(chan struct{})}
	d.queue = append(d.queue, one)
	d.mu.Unlock()
	select {
	case <-one.done:
		return one.was, one.err
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.queue, one); i >= 0 {
		d.queue = slices.Delete(d.queue, i, i+1)
	} // else it may have been sent, which the error leaves open in either case
	return false, ctx.Err()
}

func (d *deletions) single(ctx context.Context, node string) (was bool, err error) {
	if w := d.engine.session.ownNow(); w != nil {
		deletion := deletionCall(node)
		w.ask(deletion)
		err = deletion.wait(ctx).err
	} else { // the library waits for a connection
		_, err = do(ctx, &d.engine.session, func(c *zk.Conn) (struct{}, error) { return struct{}{}, c.Delete(node, -1) })
	}
	if err == zk.ErrNoNode {
		return false, nil
	}
	return err == nil, err
}

// landed ends a request, and has those that wait sent in its place. Its caller is one that Close
// waits for, so what begins here is, too.
func (d *deletions) landed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.under--
		return
	}
	d.engine.work.Go(d.work)
}

// work sends batches until nobody waits.
func (d *deletions) work() {
	for {
		d.mu.Lock()
		batch := slices.Clone(d.queue[:min(len(d.queue), maxDeletionsBatch)])
		if len(batch) == 0 {
			d.under--
			d.mu.Unlock()
			return
		}
		d.queue = slices.Delete(d.queue, 0, len(batch))
		d.mu.Unlock()
		d.flush(batch)
	}
}

// flush deletes the nodes of a batch and tells who asked for it. It has the time of what is done
// without a caller: the library's calls end with their connection, but wait for one.
func (d *deletions) flush(batch []*deletion) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*d.engine.cfg.Timeout+time.Second)
	defer cancel()
	ops := make([]any, len(batch))
	for i, one := range batch {
		ops[i] = &zk.DeleteRequest{Path: one.node, Version: -1}
	}
	answers, err := do(ctx, &d.engine.session, func(c *zk.Conn) ([]zk.MultiResponse, error) { return c.Multi(ops...) })
	if slices.ContainsFunc(answers, func(a zk.MultiResponse) bool { return a.Error != nil }) {
		var all sync.WaitGroup
		for _, one := range batch {
			all.Go(func() { one.was, one.err = d.single(ctx, one.node) })
		}
		all.Wait()
	} else {
		for _, one := range batch {
			one.was, one.err = err == nil, err
		}
	}
	for _, one := range batch {
		close(one.done)
	}
}
