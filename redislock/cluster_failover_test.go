package redislock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// quick is how clients learn soon that a node is dead or frozen.
func (x *onCluster) quick(cfg redislock.Config) *redislock.Engine {
	return x.engineOn(redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: x.Addrs(), DialTimeout: time.Second, ReadTimeout: time.Second, DialerRetries: 1,
	}), cfg)
}

// TestClusterFailoverLosesLock: a lock that the replica never heard of survives the death of
// its master, for as long as its holder believes in it. One holder is heard of again, and one
// is not: its slot is one that the replica does not even know was ever used.
func TestClusterFailoverLosesLock(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{Replicas: 1, NodeTimeout: time.Second})
	const slot, ttl = 300, 8 * time.Second
	cfg := redislock.Config{Safety: redislock.CrashSafe, MaxTTL: ttl}
	a, b := x.quick(cfg), x.quick(cfg)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	first := &lost{x: x, a: a, b: b, name: slotNames()[slot], ttl: ttl}
	second := &lost{x: x, a: a, b: b, name: slotNames()[slot+1], ttl: ttl}
	if err := takeAndGiveBack(ctx, a, ask(first.name, 0)); err != nil {
		t.Fatal(err)
	}
	master, replica := x.Node(slot), x.replicaOf(slot)
	replica.Pause()
	// What the master sends no longer gets as far as the replica's system.
	if _, err := master.Do("CLIENT", "KILL", "TYPE", "replica"); err != nil {
		t.Fatal(err)
	}
	first.take(ctx)
	second.take(ctx)
	master.Kill()
	replica.Resume()
	if promoted := x.WaitForMaster(slot, master); promoted != replica {
		t.Fatal("another replica was promoted")
	}
	for _, name := range []string{redislock.DefaultPrefix + first.name, redislock.DefaultPrefix + second.name} {
		if reply, err := replica.Do("GET", name); err != nil || reply != nil {
			t.Fatalf("the replica has heard of the lock: %v %v", reply, err)
		}
	}
	first.renew(ctx)
	first.passed()
	second.passed()
}

// lost is a lock that a failover loses, and that another engine waits for.
type lost struct {
	x    *onCluster
	a, b *redislock.Engine
	name string
	ttl  time.Duration

	watch watch
	grant driver.Grant
	claim driver.Claim
	w     *waiting
}

func (l *lost) take(ctx context.Context) {
	l.x.Helper()
	req := ask(l.name, l.ttl)
	var err error
	if l.grant, err = l.a.Acquire(ctx, req); err != nil {
		l.x.Fatal(err)
	}
	l.claim = req.Claim(l.grant)
	l.watch.clock = driver.BootClock()
	l.watch.granted(l.x.T, l.grant, l.ttl)
	l.w = l.x.wait(l.b, ask(l.name, l.ttl))
}

// renew renews the lock until the new master has it, and gives it back.
func (l *lost) renew(ctx context.Context) {
	x := l.x
	x.Helper()
	x.until("the holder has its lock on the new master", func() bool {
		err := l.a.Renew(ctx, []driver.Claim{l.claim})[0]
		if kind, _ := kindOf(err); err != nil && kind != driver.Unavailable {
			x.Fatalf("renewal: %v", err)
		}
		return err == nil
	})
	x.until("the other learns who is master", func() bool {
		info, err := l.b.Inspect(ctx, l.name)
		if err == nil && (len(info.Holders) != 1 || info.Holders[0].Fence != l.grant.Fence) {
			x.Fatalf("held with fence %d, Inspect says %+v", l.grant.Fence, info)
		}
		return err == nil
	})
	if len(l.w.err) > 0 {
		x.Error("another was granted the lock that is held")
	}
	l.watch.returned(l.grant.Fence)
	x.release(l.a, l.claim)
}

// passed fails unless who waits gets the lock, but not beside its holder.
func (l *lost) passed() {
	l.x.Helper()
	if err := <-l.w.err; err != nil {
		l.x.Fatalf("who waited: %v", err)
	}
	l.watch.granted(l.x.T, <-l.w.grant, l.ttl)
	l.x.release(l.b, l.w.req.Claim(driver.Grant{}))
}

// replicaOf returns the node that follows the master of a slot.
func (x *onCluster) replicaOf(slot int) *testserver.RedisServer {
	x.Helper()
	master := x.Node(slot)
	for _, n := range x.Nodes() {
		info, err := n.Info()
		if err == nil && info["role"] == "slave" && strings.HasSuffix(master.Addr(), ":"+info["master_port"]) {
			return n
		}
	}
	x.Fatal("the master has no replica")
	return nil
}

// TestClusterFailoverContended: masters die and are replaced while a lock is contended for.
func TestClusterFailoverContended(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{Replicas: 1, NodeTimeout: time.Second})
	cfg := redislock.Config{Safety: redislock.CrashSafe, MaxTTL: time.Second}
	const slot = 400
	seen := &watch{clock: driver.BootClock()}
	stop := make(chan struct{})
	all := contend(t, seen, slotNames()[slot], time.Second, stop, x.quick(cfg), x.quick(cfg))
	granted := func() {
		t.Helper()
		from := seen.grants.Load()
		x.until("the lock is granted", func() bool { return seen.grants.Load() >= from+20 })
	}
	granted()
	for range 2 {
		old := x.Node(slot)
		x.Failover(slot)
		granted() // nobody on the old master's address says where its slots are
		old.Restart()
		x.until("the old master follows", func() bool {
			info, err := old.Info()
			return err == nil && info["role"] == "slave" && info["master_link_status"] == "up"
		})
	}
	granted()
	close(stop)
	all.Wait()
}

// TestClusterDown: without a majority nothing is granted, and the caller knows that nothing
// was done; when the masters are back things go on.
func TestClusterDown(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{NodeTimeout: time.Second})
	e, names := x.quick(ungated), slotNames()
	const slot = 16000 // of the third node
	held := x.take(e, ask(names[slot], time.Minute))
	waiting := x.wait(e, ask(names[slot], time.Minute))
	x.Nodes()[0].Kill()
	x.Nodes()[1].Kill()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	x.until("the cluster is down", func() bool {
		req := ask(names[slot+1], time.Minute)
		g, err := e.Acquire(ctx, req)
		if err == nil {
			_ = e.Release(ctx, req.Claim(g)) // the nodes may find out just now
			return false
		}
		if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied || !strings.Contains(err.Error(), "CLUSTERDOWN") {
			t.Fatalf("request while the cluster is down: %v (%v)", err, outcome)
		}
		return true
	})
	_, err := e.Acquire(ctx, ask(names[0], time.Minute)) // of a node that is dead
	if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied {
		t.Errorf("request to a dead node: %v (%v)", err, outcome)
	}
	err = e.Renew(ctx, []driver.Claim{held})[0]
	if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied {
		t.Errorf("renewal while the cluster is down: %v (%v)", err, outcome)
	}
	x.Nodes()[0].Start()
	x.Nodes()[1].Start()
	x.Node(slot)
	x.until("the lock is renewed", func() bool { return e.Renew(ctx, []driver.Claim{held})[0] == nil })
	x.until("the lock is given back", func() bool { // the cluster may be down once more
		err := e.Release(ctx, held)
		kind, _ := kindOf(err)
		return err == nil || kind == driver.NotHeld
	})
	waiting.granted()
}

// TestClusterFrozen: callers who give up are not kept by nodes that do not answer, neither
// where the slots have to be asked for nor afterwards.
func TestClusterFrozen(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{NodeTimeout: 20 * time.Second})
	for _, known := range []bool{false, true} {
		client := redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: x.Addrs(), DialTimeout: time.Minute, ReadTimeout: time.Minute,
		})
		e := x.engineOn(client, ungated)
		if known {
			x.take(e, ask("known", time.Minute))
		}
		for _, n := range x.Nodes() {
			n.Pause()
		}
		ends := func(what string, call func(context.Context) error) {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- call(ctx) }()
			select {
			case err := <-done:
				if kind, _ := kindOf(err); kind != driver.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s, nodes known: %v: %v", what, known, err)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s, nodes known: %v: hangs", what, known)
			}
		}
		for _, wait := range []bool{false, true} {
			ends("Acquire", func(ctx context.Context) error {
				req := ask("frozen", time.Minute)
				req.Wait = wait
				_, err := e.Acquire(ctx, req)
				return err
			})
		}
		claim := ask("frozen", time.Minute).Claim(driver.Grant{Fence: 1, FenceSpan: 1})
		ends("Renew", func(ctx context.Context) error { return e.Renew(ctx, []driver.Claim{claim})[0] })
		ends("Release", func(ctx context.Context) error { return e.Release(ctx, claim) })
		ends("Inspect", func(ctx context.Context) error { _, err := e.Inspect(ctx, "frozen"); return err })
		ends("List", func(ctx context.Context) error { _, err := e.List(ctx, "", 10); return err })
		for _, n := range x.Nodes() {
			n.Resume()
		}
	}
}

// TestClusterReadOnly: a client that reads from replicas locks at the masters, also after
// they have changed.
func TestClusterReadOnly(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{Replicas: 1, NodeTimeout: time.Second})
	names := slotNames()
	for _, o := range []redis.ClusterOptions{{ReadOnly: true}, {RouteRandomly: true}, {RouteByLatency: true}} {
		o.Addrs = x.Addrs()
		a, b := x.engineOn(redis.NewClusterClient(&o), ungated), x.engine(ungated)
		var held []driver.Claim
		for _, slot := range []int{0, 6000, 16000} {
			x.handsOver(a, b, ask(names[slot], time.Minute))
			x.handsOver(b, a, ask(names[slot], time.Minute))
			held = append(held, x.take(a, ask(names[slot], time.Minute)))
		}
		old, next := x.Node(0), x.replicaOf(0)
		if reply, err := old.Do("WAIT", "1", "10000"); err != nil || reply == int64(0) {
			t.Fatalf("WAIT: %v %v", reply, err)
		}
		if !o.RouteByLatency { // once more would tell no more
			x.takesOver(next)
			x.WaitForMaster(0, old)
		}
		for _, c := range held {
			x.until("the lock is renewed", func() bool {
				err := a.Renew(t.Context(), []driver.Claim{c})[0]
				if kind, _ := kindOf(err); err != nil && kind != driver.Unavailable {
					t.Fatalf("renewal: %v", err)
				}
				return err == nil
			})
			x.release(a, c)
		}
	}
}

// takesOver makes a replica change places with its master, which lives.
func (x *onCluster) takesOver(replica *testserver.RedisServer) {
	x.Helper()
	var asked time.Time
	x.until("the replica takes over", func() bool {
		info, err := replica.Info()
		if err == nil && info["role"] == "master" {
			return true
		}
		// What comes to nothing within its 5 s is given up without a word.
		if err == nil && info["master_link_status"] == "up" && time.Since(asked) > 6*time.Second {
			asked = time.Now()
			_, err = replica.Do("CLUSTER", "FAILOVER")
		}
		if err != nil {
			x.Log(err)
		}
		return false
	})
}

// TestClusterClientForSentinel: a client for a Cluster that Sentinel tells of its only master
// shares locks with one for Sentinel, messages included.
func TestClusterClientForSentinel(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	x := &onCluster{T: t}
	for _, random := range []bool{false, true} {
		client := redis.NewFailoverClusterClient(&redis.FailoverOptions{
			MasterName: set.MasterName(), SentinelAddrs: set.SentinelAddrs(), RouteRandomly: random,
		})
		if e := x.engineOn(client, redislock.Config{}); e.Safety() != redislock.PartitionSafe {
			t.Errorf("the default level is %v", e.Safety())
		}
		a, b := x.engineOn(client, ungated), newEngine(t, sentinelClient(t, set), ungated)
		for _, name := range []string{"one", "two", "a{b}c"} {
			x.handsOver(a, b, ask(name, time.Minute))
			x.handsOver(b, a, ask(name, time.Minute))
		}
		ctx, cancel := bounded()
		if infos, err := a.List(ctx, "", 10); err != nil || len(infos) != 0 {
			t.Errorf("List: %+v %v", infos, err)
		}
		cancel()
	}
}
