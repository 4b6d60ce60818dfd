package redislock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// onCluster is a test on a Cluster of its own.
type onCluster struct {
	*testing.T
	*testserver.RedisCluster
}

func newCluster(t *testing.T, options testserver.ClusterOptions) *onCluster {
	t.Helper()
	return &onCluster{t, testserver.Cluster(t, options)}
}

// engine opens an engine on a client of its own, as a process does.
func (x *onCluster) engine(cfg redislock.Config) *redislock.Engine {
	return x.engineOn(redis.NewClusterClient(&redis.ClusterOptions{Addrs: x.Addrs()}), cfg)
}

// engineOn opens an engine on a client, which is closed after it.
func (x *onCluster) engineOn(client redis.UniversalClient, cfg redislock.Config) *redislock.Engine {
	x.Helper()
	x.Cleanup(func() { client.Close() })
	return newEngine(x.T, client, cfg)
}

var ungated = redislock.Config{Safety: redislock.SingleProcess}

// until waits for a condition.
func (x *onCluster) until(what string, ok func() bool) {
	x.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.Fatalf("not within 30 s: %s", what)
		}
	}
}

// waiting is a call of Acquire under way.
type waiting struct {
	x      *onCluster
	req    driver.Request
	engine *redislock.Engine
	grant  chan driver.Grant
	err    chan error
	cancel context.CancelFunc
}

// wait makes a call that waits, and returns when it has its place in the queue.
func (x *onCluster) wait(e *redislock.Engine, req driver.Request) *waiting {
	x.Helper()
	before := x.inspect(e, req.Name).Waiters
	w := x.start(e, req)
	x.until("the request has a place in the queue", func() bool { return x.inspect(e, req.Name).Waiters > before })
	return w
}

func (x *onCluster) start(e *redislock.Engine, req driver.Request) *waiting {
	req.Wait = true
	w := &waiting{x: x, req: req, engine: e, grant: make(chan driver.Grant, 1), err: make(chan error, 1)}
	var ctx context.Context
	ctx, w.cancel = context.WithTimeout(context.Background(), time.Minute)
	x.Cleanup(w.cancel)
	go func() {
		g, err := e.Acquire(ctx, req)
		w.err <- err
		w.grant <- g
	}()
	return w
}

// granted returns the claim once the call has returned.
func (w *waiting) granted() driver.Claim {
	w.x.Helper()
	if err := <-w.err; err != nil {
		w.x.Fatalf("%v request for %q: %v", w.req.Mode, w.req.Name, err)
	}
	return w.req.Claim(<-w.grant)
}

func (x *onCluster) inspect(e *redislock.Engine, name string) driver.Info {
	x.Helper()
	ctx, cancel := bounded()
	defer cancel()
	info, err := e.Inspect(ctx, name)
	if err != nil {
		x.Fatalf("Inspect %q: %v", name, err)
	}
	return info
}

func (x *onCluster) take(e *redislock.Engine, req driver.Request) driver.Claim {
	x.Helper()
	ctx, cancel := bounded()
	defer cancel()
	g, err := e.Acquire(ctx, req)
	if err != nil {
		x.Fatalf("%v request for %q: %v", req.Mode, req.Name, err)
	}
	return req.Claim(g)
}

func (x *onCluster) release(e *redislock.Engine, claim driver.Claim) {
	x.Helper()
	ctx, cancel := bounded()
	defer cancel()
	if err := e.Release(ctx, claim); err != nil {
		x.Fatalf("release of %q: %v", claim.Name, err)
	}
}

// handsOver takes the name of req with one engine, waits for it with the other, and releases
// it: the release must have passed it on, which it does when somebody hears of it.
func (x *onCluster) handsOver(from, to *redislock.Engine, req driver.Request) {
	x.Helper()
	held := x.take(from, req)
	next := ask(req.Name, req.TTL)
	next.Owner = "next"
	w := x.wait(to, next)
	x.passesOn(from, held, w)
}

func (x *onCluster) passesOn(from *redislock.Engine, held driver.Claim, w *waiting) {
	x.Helper()
	x.release(from, held)
	if info := x.inspect(from, held.Name); len(info.Holders) != 1 || info.Holders[0].Owner != w.req.Owner {
		x.Errorf("the release of %q passed it on to nobody: %+v", held.Name, info)
	}
	x.release(w.engine, w.granted())
}

// listening returns how many channels of waiters a node knows, plain or sharded.
func (x *onCluster) listening(n *testserver.RedisServer, kind string) int {
	x.Helper()
	if kind == "SHARDCHANNELS" && before7(x.T, n) {
		kind = "CHANNELS"
	}
	reply, err := n.Do("PUBSUB", kind, "holdfast.in:*")
	if err != nil {
		x.Fatal(err)
	}
	return len(reply.([]any))
}

// noHello is a server that does not know HELLO.
type noHello struct{}

type unknownCommand struct{}

func (unknownCommand) Error() string { return "ERR unknown command" }
func (unknownCommand) RedisError()   {}

func (noHello) DialHook(next redis.DialHook) redis.DialHook { return next }
func (noHello) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (noHello) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "hello" {
			cmd.SetErr(unknownCommand{})
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}

// TestClusterPush: a release wakes who waits in any slot, whether it listens to sharded
// channels or to plain ones, and whatever the one who releases does.
func TestClusterPush(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	sharded := x.engine(ungated)
	// Who cannot ask the server what it is uses what every server has.
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: x.Addrs()})
	client.OnNewNode(func(node *redis.Client) { node.AddHook(noHello{}) })
	plain := x.engineOn(client, ungated)
	old := x.engineOn(redis.NewClusterClient(&redis.ClusterOptions{Addrs: x.Addrs(), Protocol: 2}), ungated)
	count := func(kind string) (n int) {
		for _, node := range x.Nodes() {
			n += x.listening(node, kind)
		}
		return n
	}
	for i := range 12 {
		x.handsOver(plain, sharded, ask(fmt.Sprintf("a%d", i), 20*time.Second))
		x.handsOver(sharded, old, ask(fmt.Sprintf("a%d", i), 20*time.Second))
	}
	if n, m := count("SHARDCHANNELS"), count("CHANNELS"); (n < 10 || m != 0) && !before7(t, x.Nodes()[0]) {
		t.Errorf("%d sharded and %d plain channels, want sharded ones alone", n, m)
	}
	for i := range 12 {
		x.handsOver(sharded, plain, ask(fmt.Sprintf("b%d", i), 20*time.Second))
	}
	if n := count("CHANNELS"); n < 10 {
		t.Errorf("%d plain channels", n)
	}
}

// TestClusterPushAfterLostConnection: who waits in several slots of a node hears of all of
// them again when the connection was cut.
func TestClusterPushAfterLostConnection(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	a, b := x.engine(ungated), x.engine(ungated)
	node, names := x.Node(0), slotNames()
	var held []driver.Claim
	var next []*waiting
	for slot := range 6 {
		held = append(held, x.take(a, ask(names[slot], time.Minute)))
		req := ask(names[slot], time.Minute)
		req.Owner = "next"
		next = append(next, x.wait(b, req))
	}
	for range 3 {
		if n, err := node.Do("CLIENT", "KILL", "TYPE", "pubsub"); err != nil || n == int64(0) {
			t.Fatalf("%v connections cut: %v", n, err)
		}
		x.until("the waiters listen again", func() bool { return x.listening(node, "SHARDCHANNELS") == 6 })
	}
	for i := range held {
		x.passesOn(a, held[i], next[i])
	}
}

// TestClusterPushAfterMove: waiters hear of what they are granted at the node that their slot
// has gone to, and at the first one when it has come back.
func TestClusterPushAfterMove(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	a, b := x.engine(ungated), x.engine(ungated)
	const slot = 5
	names := slotNames()
	req := ask(names[slot], time.Minute)
	next := func() *waiting {
		req := ask(names[slot], time.Minute)
		req.Owner = "next"
		return x.wait(b, req)
	}
	// In another slot of the first node somebody waits all the time.
	stays := x.take(a, ask(names[slot+1], time.Minute))
	stayer := ask(names[slot+1], time.Minute)
	stayer.Owner = "stayer"
	staying := x.wait(b, stayer)
	for _, to := range []*testserver.RedisServer{x.Nodes()[1], x.Nodes()[0]} {
		before := x.listening(to, "SHARDCHANNELS")
		held := x.take(a, req)
		w := next()
		x.MoveSlot(slot, to)
		x.until("the waiter listens at the other node", func() bool {
			return x.listening(to, "SHARDCHANNELS") > before || before > 0 && before7(t, to) // plain channels stay where they were
		})
		x.passesOn(a, held, w)
		req = ask(names[slot], time.Minute)
	}
	x.passesOn(a, stays, staying)
}

// TestClusterPushForbidden: who may not listen gets its turn by asking.
func TestClusterPushForbidden(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	for _, n := range x.Nodes() {
		if _, err := n.Do("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "resetchannels", "+@all"); err != nil {
			t.Fatal(err)
		}
	}
	e := x.engineOn(redis.NewClusterClient(&redis.ClusterOptions{Addrs: x.Addrs(), Username: "deaf", Password: "pw"}), ungated)
	for i := range 2 {
		name := fmt.Sprintf("deaf%d", i)
		held := x.take(e, ask(name, time.Minute))
		w := x.wait(e, ask(name, time.Minute))
		x.release(e, held)
		x.release(e, w.granted())
	}
}

// TestClusterACL: the rule that the engine names is enough for it.
func TestClusterACL(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	for _, cfg := range []redislock.Config{ungated, {MaxTTL: time.Second}} {
		e := x.engine(cfg)
		if _, err := e.Inspect(t.Context(), "acl"); err != nil { // before it is asked it takes servers for new ones
			t.Fatal(err)
		}
		rule := e.ACL("worker")
		for _, n := range x.Nodes() {
			if _, err := n.Do("ACL", "SETUSER", "worker", "reset"); err != nil {
				t.Fatal(err)
			}
			if _, err := n.Do(append(strings.Fields(rule), ">pw")...); err != nil {
				t.Fatal(err)
			}
		}
		client := func() *redis.ClusterClient {
			return redis.NewClusterClient(&redis.ClusterOptions{Addrs: x.Addrs(), Username: "worker", Password: "pw"})
		}
		a, b := x.engineOn(client(), cfg), x.engineOn(client(), cfg)
		ctx, cancel := bounded()
		if err := takeAndGiveBack(ctx, a, ask("acl", 0)); err != nil {
			t.Fatal(err)
		}
		cancel()
		x.handsOver(a, b, ask("acl", time.Second))
	}
}
