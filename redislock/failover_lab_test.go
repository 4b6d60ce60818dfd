package redislock_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// deployment is a master and its replicas, which the test makes change places itself: at the
// moment that it chooses, and without the time that Sentinels need.
type deployment struct {
	*testing.T
	cfg   redislock.Config
	nodes []*testserver.RedisServer
	links []*testserver.TCPProxy // through which replicas reach the node of that number
}

// deploy starts n data nodes, of which the first is the master, and says that they are new: no
// grace stands at the beginning.
func deploy(t *testing.T, n int, cfg redislock.Config, options testserver.RedisOptions) *deployment {
	t.Helper()
	d := &deployment{T: t, cfg: cfg}
	d.cfg.Prefix, d.cfg.DataNodes = prefix(), n
	for i := range n {
		if i > 0 {
			options.ReplicaOf = d.links[0].Addr()
		}
		node := testserver.Redis(t, options)
		link := testserver.Proxy(t, node.Addr())
		link.Mark("PSYNC")
		d.nodes, d.links = append(d.nodes, node), append(d.links, link)
	}
	d.followed(0, n-1)
	e := d.engine(0)
	d.until("the epoch is written", func() bool {
		err := e.Init(t.Context())
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	d.synced(0, n-1)
	return d
}

// engine returns one of a process that takes the node of that number for the master.
func (d *deployment) engine(node int) *redislock.Engine {
	d.Helper()
	return d.engineAt(func() string { return d.nodes[node].Addr() })
}

// engineAt returns one of a process that looks up where the master is each time it connects.
func (d *deployment) engineAt(master func() string) *redislock.Engine {
	d.Helper()
	client := redis.NewClient(&redis.Options{
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, master())
		},
		ReadTimeout: labPatience, MaxRetries: -1,
	})
	d.Cleanup(func() { client.Close() })
	return newEngine(d.T, client, d.cfg)
}

// promote makes a replica a master, which the others of the given numbers then follow.
func (d *deployment) promote(node int, followers ...int) {
	d.Helper()
	must(d.T, d.nodes[node], "REPLICAOF", "NO", "ONE")
	for _, f := range followers {
		d.follow(f, node)
	}
	d.followed(node, len(followers))
}

// follow makes a node a replica of another.
func (d *deployment) follow(node, master int) {
	d.Helper()
	must(d.T, d.nodes[node], "REPLICAOF", "127.0.0.1", strconv.Itoa(d.links[master].Port()))
}

// followed returns when so many replicas get what is written to a node.
func (d *deployment) followed(node, replicas int) {
	d.Helper()
	d.until(fmt.Sprintf("node %d has %d replicas", node, replicas), func() bool {
		replication, _ := must(d.T, d.nodes[node], "INFO", "replication").(string)
		return strings.Count(replication, "state=online") == replicas
	})
}

// synced returns when so many replicas have what was written to a node.
func (d *deployment) synced(node, replicas int) {
	d.Helper()
	acknowledged(d.T, d.nodes[node], replicas)
}

// acknowledged returns when so many replicas have what was written to a master, and it knows.
func acknowledged(t *testing.T, master *testserver.RedisServer, replicas int) {
	t.Helper()
	c, err := master.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Do("SET", "acknowledged", "1", "PX", "1000"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Do("WAIT", strconv.Itoa(replicas), strconv.FormatInt(labPatience.Milliseconds(), 10)); err != nil || n != int64(replicas) {
		t.Fatalf("%v of %d replicas have everything, %v", n, replicas, err)
	}
}

// freeze has a master lose what is written from now on. The replicas have acknowledged what
// was written before, so that it goes on granting for a while.
func (d *deployment) freeze(node, replicas int) {
	d.Helper()
	e := d.engine(node)
	req := ask("warm", time.Second)
	_, claim := d.take(e, req)
	if err := e.Release(d.Context(), claim); err != nil {
		d.Fatal(err)
	}
	d.synced(node, replicas)
	d.links[node].FreezeMarked()
}

// epoch returns what the gate keeps at a node.
func (d *deployment) epoch(node int) string {
	d.Helper()
	v, _ := must(d.T, d.nodes[node], "GET", "holdfast.epoch").(string)
	return v
}

// holds returns the value of a name's key at a node, "" where there is none.
func (d *deployment) holds(node int, name string) string {
	d.Helper()
	v, _ := must(d.T, d.nodes[node], "GET", d.cfg.Prefix+name).(string)
	return v
}

func (d *deployment) until(what string, ok func() bool) {
	d.Helper()
	comesTrue(d.T, what, ok)
}

// queued returns how many wait for a name at a node.
func (d *deployment) queued(node int, name string) int {
	d.Helper()
	n, _ := must(d.T, d.nodes[node], "ZCARD", "holdfast.q:"+d.cfg.Prefix+name).(int64)
	return int(n)
}

// site is where processes find the master.
type site struct{ at atomic.Pointer[string] }

func newSite(addr string) *site {
	s := new(site)
	s.move(addr)
	return s
}

func (s *site) move(addr string) { s.at.Store(&addr) }
func (s *site) addr() string     { return *s.at.Load() }
