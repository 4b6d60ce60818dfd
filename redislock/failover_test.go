package redislock_test

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// tries asks for a name once, and again for as long as the answer is that too few replicas
// acknowledge: those of a new master need a moment. It fails if the name is granted.
func (d *deployment) tries(e *redislock.Engine, req driver.Request) error {
	d.Helper()
	var refused error
	d.until("the master has replicas", func() bool {
		ctx, cancel := bounded()
		defer cancel()
		g, err := e.Acquire(ctx, req)
		if err == nil {
			d.Fatalf("granted fence %d", g.Fence)
		}
		refused = err
		return !strings.Contains(err.Error(), "too few replicas")
	})
	return refused
}

// take takes a share that is free.
func (d *deployment) take(e *redislock.Engine, req driver.Request) (driver.Grant, driver.Claim) {
	d.Helper()
	ctx, cancel := bounded()
	defer cancel()
	g := eventually(d.T, "the share is granted", func() (driver.Grant, error) { return e.Acquire(ctx, req) })
	return g, req.Claim(g)
}

// renewed renews until the master confirms it.
func (d *deployment) renewed(e *redislock.Engine, c driver.Claim) {
	d.Helper()
	ctx, cancel := bounded()
	defer cancel()
	d.until("the renewal is confirmed", func() bool {
		err := e.Renew(ctx, []driver.Claim{c})[0]
		if kind, _ := kindOf(err); err != nil && kind != driver.Unavailable {
			d.Fatalf("renewal: %v", err)
		}
		return err == nil
	})
}

// TestMasterOnceMore: a master is replaced and takes over again, the same process all along. In
// between nobody asks the other for anything, so it finds the epoch of its first time. It has
// lost a lock meanwhile, and must know that leases of its own first time may be alive.
func TestMasterOnceMore(t *testing.T) {
	t.Parallel()
	cfg := fast
	cfg.MaxTTL = time.Minute // nothing in this test waits for it
	d := deploy(t, 3, cfg, testserver.RedisOptions{})
	holder := d.engine(0)
	epoch, pid := d.epoch(0), d.nodes[0].PID()
	d.freeze(0, 2)
	g, claim := d.take(holder, ask("race", time.Minute))
	d.promote(1, 0, 2)
	d.links[0].Thaw()
	d.promote(0, 1, 2)
	if d.holds(0, "race") != "" || d.epoch(0) != epoch || d.nodes[0].PID() != pid {
		t.Fatalf("the master has the lock %q, the epoch %q, was %q: this is not the test's case", d.holds(0, "race"), d.epoch(0), epoch)
	}
	other := d.engine(0)
	refused := d.tries(other, ask("race", time.Second))
	if !strings.Contains(refused.Error(), "the master is new") {
		t.Errorf("beside the holder: %v", refused)
	}
	if term := must(t, d.nodes[0], "INFO", "replication").(string); strings.HasPrefix(epoch, d.epoch(0)[:20]) ||
		!strings.Contains(term, "master_replid:"+strings.Fields(d.epoch(0))[1]) {
		t.Errorf("the epoch is %q, was %q", d.epoch(0), epoch)
	}
	d.renewed(holder, claim)
	if err := d.tries(other, ask("race", time.Second)); err == nil || d.holds(0, "race") == "" {
		t.Errorf("after the holder was heard of: %v, the key is %q", err, d.holds(0, "race"))
	}
	if info, err := other.Inspect(t.Context(), "race"); err != nil || len(info.Holders) != 1 || info.Holders[0].Fence != g.Fence {
		t.Errorf("fence %d was granted, Inspect: %+v %v", g.Fence, info, err)
	}
}

// TestMajorityOfFive: of five data nodes a master that sees one replica grants nothing, and one
// that sees two does. Both are masters at the same time, and replicas change sides.
func TestMajorityOfFive(t *testing.T) {
	t.Parallel()
	d := deploy(t, 5, fast, testserver.RedisOptions{})
	for _, near := range []int{1, 2} { // they stay with the old master
		host, port, _ := strings.Cut(d.nodes[0].Addr(), ":")
		must(t, d.nodes[near], "REPLICAOF", host, port)
	}
	d.followed(0, 4)
	a, b := d.engine(0), d.engine(3)
	seen, stop := &watch{clock: driver.BootClock()}, make(chan struct{})
	all := contend(t, seen, "race", d.cfg.MaxTTL, stop, a, b)
	var once sync.Once
	end := func() { once.Do(func() { close(stop); all.Wait() }) }
	defer end()
	granted := func() {
		t.Helper()
		from := seen.grants.Load()
		d.until("the lock is granted", func() bool { return seen.grants.Load() >= from+20 })
	}
	granted()

	d.links[0].Partition()
	d.promote(3, 4)
	d.until("the old master misses the others", func() bool {
		replication := must(t, d.nodes[0], "INFO", "replication").(string)
		return len(regexp.MustCompile(`,lag=([2-9]|\d\d+)\b`).FindAllString(replication, -1)) == 2
	})
	granted() // by the old master
	d.cutOff(b)
	if d.epoch(3) != d.epoch(0) {
		t.Errorf("a master with one replica of four has begun a term: %q", d.epoch(3))
	}

	d.follow(2, 3)
	d.followed(3, 2)
	d.until("the new master grants", func() bool {
		ctx, cancel := bounded()
		defer cancel()
		_, err := b.Acquire(ctx, ask("new", time.Second))
		return err == nil
	})
	granted() // by the new master
	d.cutOff(a)
	end()
}

// cutOff fails unless the engine's master refuses for want of replicas.
func (d *deployment) cutOff(e *redislock.Engine) {
	d.Helper()
	ctx, cancel := bounded()
	defer cancel()
	g, err := e.Acquire(ctx, ask("cut off", time.Second))
	if err == nil || !strings.Contains(err.Error(), "too few replicas") {
		d.Errorf("a master without a majority: %+v %v", g, err)
	}
}

// TestRepeatedReleaseAfterFailover: the reply to a release is lost and so is, in a failover,
// its effect. What it gave back went to who was next. The repeat finds the key and the queue
// as they were, and must not pass the lock on a second time.
func TestRepeatedReleaseAfterFailover(t *testing.T) {
	t.Parallel()
	d := deploy(t, 3, fast, testserver.RedisOptions{})
	front := testserver.Proxy(t, d.nodes[0].Addr())
	master := newSite(front.Addr())
	holder := d.engineAt(master.addr)
	ctx, cancel := bounded()
	defer cancel()
	_, claim := d.take(holder, ask("race", d.cfg.MaxTTL))

	type grant struct {
		driver.Grant
		driver.Claim
		*redislock.Engine
	}
	granted := make(chan grant, 2)
	var waiters sync.WaitGroup
	defer waiters.Wait()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 2 {
		e := d.engineAt(master.addr)
		waiters.Go(func() {
			req := ask("race", d.cfg.MaxTTL)
			req.Wait = true
			g, err := e.Acquire(waiting, req)
			if err == nil {
				granted <- grant{g, req.Claim(g), e}
			} else if waiting.Err() == nil {
				t.Errorf("waiting: %v", err)
			}
		})
		d.until("a place in the queue", func() bool { return d.queued(0, "race") == i+1 })
	}
	d.freeze(0, 2)
	front.CutReplyTo("\r\nr\r\n")
	if err := holder.Release(ctx, claim); err == nil {
		t.Fatal("the reply was not lost")
	}
	first := <-granted
	d.promote(1, 2)
	master.move(d.nodes[1].Addr())
	front.Close()
	if !strings.Contains(d.holds(1, "race"), " ") || d.queued(1, "race") != 2 {
		t.Fatalf("the new master has %q and %d in the queue: this is not the test's case", d.holds(1, "race"), d.queued(1, "race"))
	}
	d.until("who waits listens to the new master", func() bool {
		channels, _ := must(t, d.nodes[1], "PUBSUB", "CHANNELS", "holdfast.in:*").([]any)
		return len(channels) == 2
	})
	d.until("the release is repeated", func() bool {
		err := holder.Release(ctx, claim)
		if kind, _ := kindOf(err); err != nil && kind != driver.Unavailable {
			t.Fatalf("the repeat: %v", err)
		}
		return err == nil
	})
	if v := d.holds(1, "race"); v != "" {
		t.Fatalf("the repeat has passed the lock on to %q", v)
	}
	d.renewed(first.Engine, first.Claim)
	if len(granted) > 0 {
		t.Fatalf("granted to %+v beside %+v", <-granted, first.Grant)
	}
	if err := first.Engine.Release(ctx, first.Claim); err != nil {
		t.Error(err)
	}
	if second := <-granted; second.Grant.Fence <= first.Grant.Fence {
		t.Errorf("fence %d after %d", second.Grant.Fence, first.Grant.Fence)
	}
}

// TestClocksApart: the clocks of servers are ten seconds apart, more than any lease and grace
// here. What is timed by one server means nothing on another.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		ahead time.Duration
	}{{"Ahead", 10 * time.Second}, {"Behind", -10 * time.Second}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, 3, fast, testserver.RedisOptions{OwnClock: true})
			d.nodes[1].SetClock(test.ahead)
			d.nodes[2].SetClock(-test.ahead)
			holder, other := d.engine(0), d.engine(1)
			seen := &watch{clock: driver.BootClock()}
			if test.ahead < 0 { // what it had it would keep for longer, and be safe
				d.freeze(0, 2)
			}
			req := ask("race", d.cfg.MaxTTL)
			g, claim := d.take(holder, req)
			seen.granted(t, g, claim.TTL)
			if test.ahead > 0 {
				d.synced(0, 2)
			}
			d.nodes[0].Kill()
			d.promote(1, 2)
			if v := d.holds(1, "race"); v != "" && before7(t, d.nodes[1]) {
				t.Skip("Redis 6.2 tells replicas how long a key lives, not until when: they keep what the master has")
			} else if v != "" {
				t.Fatalf("the new master has %q: this is not the test's case", v)
			}
			next := ask("race", d.cfg.MaxTTL)
			if err := d.tries(other, next); !strings.Contains(err.Error(), "the master is new") {
				t.Errorf("beside the holder: %v", err)
			}
			next.Wait = true
			g, claim = d.take(other, next)
			seen.granted(t, g, claim.TTL)
			if seen.grants.Load() != 2 {
				t.Error("one of the grants was over when it came")
			}
		})
	}
}

// TestClockStepsBack: a grace that a server began by a clock which has been set back since
// begins anew, and does not last until the clock is there again.
func TestClockStepsBack(t *testing.T) {
	t.Parallel()
	d := deploy(t, 3, fast, testserver.RedisOptions{OwnClock: true})
	must(t, d.nodes[0], "DEL", "holdfast.epoch")
	e := d.engine(0)
	if err := d.tries(e, ask("race", time.Second)); !strings.Contains(err.Error(), "the master is new") {
		t.Fatal(err)
	}
	d.nodes[0].SetClock(-time.Hour)
	if err := d.tries(e, ask("race", time.Second)); !strings.Contains(err.Error(), "the master is new") {
		t.Error(err)
	}
	now := must(t, d.nodes[0], "TIME").([]any)[0].(string)
	if start := strings.Fields(d.epoch(0))[2]; len(start) != len(now)+3 || start[:len(now)] > now {
		t.Errorf("the grace begins at %s ms, and it is %s s", start, now)
	}
	req := ask("race", time.Second)
	req.Wait = true
	d.take(e, req)
}

// TestFrozenMaster: a master is frozen for longer than a grace. When it goes on, what its
// replicas acknowledged before they turned away lies in its sockets, together with a request
// that is not a second old. It must not be believed to have replicas.
func TestFrozenMaster(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		name := map[bool]string{true: "LinksClosed", false: "LinksSilent"}[told]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, 3, fast, testserver.RedisOptions{})
			front := testserver.Proxy(t, d.nodes[0].Addr())
			late, other := d.engineAt(front.Addr), d.engine(1)
			d.take(late, ask("warm", time.Second)) // and there is a connection
			before := d.links[0].Stats().Bytes[testserver.Up]
			d.nodes[0].Pause()
			d.until("replicas acknowledge", func() bool { return d.links[0].Stats().Bytes[testserver.Up] > before+100 })
			if !told { // nor is the master told that they have gone
				d.links[0].Partition()
			}
			d.promote(1, 2)
			req := ask("race", d.cfg.MaxTTL)
			req.Wait = true
			held, _ := d.take(other, req)

			before = front.Stats().Bytes[testserver.Up]
			var g driver.Grant
			answer := make(chan error, 1)
			go func() {
				ctx, cancel := bounded()
				defer cancel()
				var err error
				g, err = late.Acquire(ctx, ask("race", d.cfg.MaxTTL))
				answer <- err
			}()
			d.until("the request is in the socket", func() bool { return front.Stats().Bytes[testserver.Up] > before })
			d.nodes[0].Resume()
			if err := <-answer; err == nil {
				t.Fatalf("granted %+v beside %+v", g, held)
			} else if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied {
				t.Errorf("from the superseded master: %v (%v)", err, outcome)
			}
		})
	}
}

// TestIdleDeployment: where nothing was asked for so long that the word of no replica counts
// any more, who asks once is not refused: the replicas are asked first.
func TestIdleDeployment(t *testing.T) {
	t.Parallel()
	d := deploy(t, 3, fast, testserver.RedisOptions{})
	e := d.engine(0)
	for try := 1; ; try++ {
		d.until("what replicas acknowledged is long ago", func() bool {
			return must(t, d.nodes[0], "EXISTS", "holdfast.poke") == int64(0)
		})
		ctx, cancel := bounded()
		_, err := e.Acquire(ctx, ask("idle", time.Second))
		cancel()
		if err == nil {
			return
		}
		if try == 3 { // a machine this busy may be too slow once
			t.Fatal(err)
		}
	}
}
