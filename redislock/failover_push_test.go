package redislock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestPushHeardAtTheOldMaster: somebody waits, and listens at the old master, which has become a
// replica and still has that connection. It hears there what the new master publishes, though
// that one counts nobody who listens. What it hears must be true.
func TestPushHeardAtTheOldMaster(t *testing.T) {
	t.Parallel()
	d := pair(t)
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

// pair starts a master and its replica, without a gate.
func pair(t *testing.T) *deployment {
	t.Helper()
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
	return d
}

// listeners is how many channels for pushes somebody listens to at a node.
func (d *deployment) listeners(node int) int {
	d.Helper()
	channels, _ := must(d.T, d.nodes[node], "PUBSUB", "CHANNELS", "holdfast.in:*").([]any)
	return len(channels)
}

// TestDemotedMasterIsLeft: a master becomes a replica and keeps its connections. Whatever it refuses
// has the engine look for the master anew: it does not ask a replica forever.
func TestDemotedMasterIsLeft(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*lab, *holdfast.Client, *holdfast.Lease) error{
		"count": func(l *lab, c *holdfast.Client, _ *holdfast.Lease) error {
			_, err := c.Sequence("n").Next(l.patience())
			return err
		},
		"lock": func(l *lab, c *holdfast.Client, _ *holdfast.Lease) error {
			_, err := c.Mutex("new").TryLock(l.patience())
			return err
		},
		"extend": func(l *lab, _ *holdfast.Client, held *holdfast.Lease) error {
			return held.Extend(l.patience(), time.Minute)
		},
		"readers": func(l *lab, c *holdfast.Client, _ *holdfast.Lease) error {
			_, err := c.RWMutex("new").RLock(l.patience())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pair(t)
			master := newSite(d.nodes[0].Addr())
			l := &lab{T: t, server: d.nodes[0]}
			e := d.engineAt(master.addr)
			c, err := holdfast.New(e, holdfast.Config{TTL: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			held := l.lock(c, "held", holdfast.WithoutRenewal())
			if _, err := c.Sequence("n").Next(l.patience()); err != nil {
				t.Fatal(err)
			}
			d.synced(0, 1)
			d.promote(1, 0)
			master.move(d.nodes[1].Addr())
			d.until("the new master is asked", func() bool {
				err := ask(l, c, held)
				if err != nil && !errors.Is(err, holdfast.ErrUnavailable) {
					t.Fatal(err)
				}
				return err == nil
			})
		})
	}
}
