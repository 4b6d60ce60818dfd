package redislock_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestPushHeardAtTheOldMaster: somebody waits, and listens at the old master, which has become a
// replica and still has that connection. It hears there what the new master publishes, though
// that one counts nobody who listens. What it hears must be true.
func TestPushHeardAtTheOldMaster(t *testing.T) {
	t.Parallel()
	d := &deployment{T: t, cfg: ungated}
	d.cfg.Prefix = prefix()
	for range 2 {
		var options testserver.RedisOptions
		if len(d.nodes) > 0 {
			options.ReplicaOf = d.links[0].Addr()
		}
		node := testserver.Redis(t, options)
		d.nodes, d.links = append(d.nodes, node), append(d.links, testserver.Proxy(t, node.Addr()))
	}
	d.followed(0, 1)
	master := newSite(d.nodes[0].Addr())
	holder := d.engineAt(master.addr)
	ctx, cancel := bounded()
	defer cancel()
	req := ask("race", time.Minute)
	_, claim := d.take(holder, req)

	granted := make(chan driver.Claim, 2)
	var waiters sync.WaitGroup
	defer waiters.Wait()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	wait := func(node int) {
		e, before := d.engineAt(master.addr), d.queued(node, "race")
		waiters.Go(func() {
			req := ask("race", time.Minute)
			req.Wait = true
			g, err := e.Acquire(waiting, req)
			if err == nil {
				granted <- req.Claim(g)
			} else if waiting.Err() == nil {
				t.Errorf("waiting: %v", err)
			}
		})
		d.until("a place in the queue, and an ear", func() bool { return d.queued(node, "race") > before && d.listeners(node) == 1 })
	}
	wait(0)
	d.synced(0, 1)
	d.promote(1, 0)
	master.move(d.nodes[1].Addr())
	wait(1)
	if d.listeners(0) != 1 || d.listeners(1) != 1 || d.queued(1, "race") != 2 {
		t.Fatalf("%d listen at the old master, %d at the new one, %d wait: this is not the test's case",
			d.listeners(0), d.listeners(1), d.queued(1, "race"))
	}
	d.until("the lock is given back", func() bool {
		err := holder.Release(ctx, claim)
		if kind, _ := kindOf(err); err != nil && kind != driver.Unavailable {
			t.Fatalf("release: %v", err)
		}
		return err == nil
	})
	first := <-granted
	d.synced(1, 1) // the old master has all that was published
	time.Sleep(50 * time.Millisecond)
	if len(granted) > 0 {
		t.Fatalf("granted to %+v beside %+v", <-granted, first)
	}
	if err := holder.Release(ctx, first); err != nil {
		t.Error(err)
	}
	<-granted
}

// listeners is how many channels for pushes somebody listens to at a node.
func (d *deployment) listeners(node int) int {
	d.Helper()
	channels, _ := must(d.T, d.nodes[node], "PUBSUB", "CHANNELS", "holdfast.in:*").([]any)
	return len(channels)
}
