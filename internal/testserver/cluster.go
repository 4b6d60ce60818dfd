package testserver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ClusterOptions says what a cluster consists of.
type ClusterOptions struct {
	Masters  int    // default 3, fewer elect nobody
	Replicas int    // of each master, default none
	Password string // what clients must know as the default user
	// NodeTimeout is after what silence a node counts as failing. Default: 2 s.
	NodeTimeout time.Duration
	Config      []string // further lines of each node's configuration file
}

// RedisCluster is a Redis Cluster of its own for one test. Its methods that cannot do what
// they say end the test.
type RedisCluster struct {
	t     testing.TB
	nodes []*RedisServer // the masters at the start, then their replicas
	ids   map[string]*RedisServer
}

const slots = 16384

// Cluster starts a cluster, with the slots spread evenly in the order of the nodes, and returns
// when all nodes agree that it works and all replicas follow. Its nodes are killed when the
// test ends.
func Cluster(t testing.TB, options ClusterOptions) *RedisCluster {
	t.Helper()
	options.Masters = cmp.Or(options.Masters, 3)
	options.NodeTimeout = cmp.Or(options.NodeTimeout, 2*time.Second)
	c := &RedisCluster{t: t, ids: map[string]*RedisServer{}}
	for range options.Masters * (1 + options.Replicas) {
		c.nodes = append(c.nodes, c.startNode(options))
	}
	masters := c.nodes[:options.Masters]
	for i, n := range masters {
		add := []string{"CLUSTER", "ADDSLOTS"}
		for slot := slots * i / len(masters); slot < slots*(i+1)/len(masters); slot++ {
			add = append(add, strconv.Itoa(slot))
		}
		c.must(n, add...)
	}
	for i, n := range c.nodes {
		c.must(n, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
	}
	for _, n := range c.nodes[1:] {
		c.must(c.nodes[0], "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(n.port), strconv.Itoa(n.port+busOffset))
	}
	c.until("the nodes know each other", c.settled)
	for i, n := range c.nodes[options.Masters:] {
		c.must(n, "CLUSTER", "REPLICATE", c.id(masters[i%len(masters)]))
	}
	c.until("the replicas follow", func() error { return c.following(options) })
	return c
}

func (c *RedisCluster) startNode(options ClusterOptions) *RedisServer {
	c.t.Helper()
	n := newRedis(c.t, RedisOptions{
		Password: options.Password,
		Config: append([]string{
			"cluster-enabled yes",
			"cluster-config-file nodes.conf",
			fmt.Sprintf("cluster-node-timeout %d", options.NodeTimeout.Milliseconds()),
			// Replicas stand for election however long ago they heard of their master.
			"cluster-replica-validity-factor 0",
		}, options.Config...),
	})
	n.offsets = []int{busOffset}
	n.launch()
	id, ok := c.must(n, "CLUSTER", "MYID").(string)
	if !ok {
		c.t.Fatal("a node has no id")
	}
	c.ids[id] = n
	return n
}

// settled is nil when each node sees all the others and a cluster that works.
func (c *RedisCluster) settled() error {
	for _, n := range c.nodes {
		reply, err := n.do(time.Second, "CLUSTER", "INFO")
		if err != nil {
			return err
		}
		info := parseInfo(reply)
		if info["cluster_state"] != "ok" || info["cluster_known_nodes"] != strconv.Itoa(len(c.nodes)) {
			return fmt.Errorf("the node on port %d: state %s, knows %s nodes",
				n.port, info["cluster_state"], info["cluster_known_nodes"])
		}
	}
	return nil
}

// following is nil when every replica has what its master has, and every node knows.
func (c *RedisCluster) following(options ClusterOptions) error {
	for i, n := range c.nodes {
		reply, err := n.do(time.Second, "CLUSTER", "NODES")
		if err != nil {
			return err
		}
		text, _ := reply.(string)
		if known := strings.Count(text, "slave "); known != options.Masters*options.Replicas {
			return fmt.Errorf("the node on port %d knows %d replicas", n.port, known)
		}
		replicas := options.Replicas
		if i >= options.Masters {
			replicas = 0
		}
		if err := n.replicates(replicas); err != nil {
			return err
		}
	}
	return c.settled()
}

// Nodes returns all nodes, living or not: first those that were masters at the start.
func (c *RedisCluster) Nodes() []*RedisServer { return slices.Clone(c.nodes) }

// Addrs returns the addresses of Nodes.
func (c *RedisCluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.Addr()
	}
	return addrs
}

// Node returns the master that serves a slot, as soon as most of the nodes that run see a
// cluster that works, and none that answers disagrees.
func (c *RedisCluster) Node(slot int) *RedisServer {
	c.t.Helper()
	return c.WaitForMaster(slot, nil)
}

// Failover kills the master of a slot and returns the replica that took its place.
func (c *RedisCluster) Failover(slot int) *RedisServer {
	c.t.Helper()
	old := c.Node(slot)
	old.Kill()
	return c.WaitForMaster(slot, old)
}

// WaitForMaster is Node, for a master that is not the given one.
func (c *RedisCluster) WaitForMaster(slot int, not *RedisServer) *RedisServer {
	c.t.Helper()
	var owner *RedisServer
	c.until(fmt.Sprintf("the nodes agree on who has slot %d", slot), func() error {
		votes, running := map[*RedisServer]int{}, 0
		last := errors.New("all nodes are down")
		for _, n := range c.nodes {
			if n.down() {
				continue
			}
			running++
			o, err := c.owner(n, slot)
			if err != nil {
				last = err
				continue
			}
			owner = o
			votes[o]++
		}
		switch {
		case len(votes) > 1 || votes[not] > 0:
			return fmt.Errorf("%d nodes name the old master, %d masters are named", votes[not], len(votes))
		case 2*votes[owner] <= running:
			return last
		}
		return nil
	})
	return owner
}

// owner returns who has a slot in the eyes of node n, in a cluster that works.
func (c *RedisCluster) owner(n *RedisServer, slot int) (*RedisServer, error) {
	reply, err := n.do(time.Second, "CLUSTER", "INFO")
	if err != nil {
		return nil, err
	}
	if state := parseInfo(reply)["cluster_state"]; state != "ok" {
		return nil, fmt.Errorf("the node on port %d sees state %s", n.port, state)
	}
	if reply, err = n.do(time.Second, "CLUSTER", "SLOTS"); err != nil {
		return nil, err
	}
	ranges, _ := reply.([]any)
	for _, r := range ranges {
		r, _ := r.([]any) // first slot, last slot, master, replicas
		if len(r) < 3 {
			continue
		}
		first, _ := r[0].(int64)
		last, _ := r[1].(int64)
		master, _ := r[2].([]any) // host, port, id
		if int64(slot) < first || int64(slot) > last || len(master) < 3 {
			continue
		}
		if o := c.ids[fmt.Sprint(master[2])]; o != nil {
			return o, nil
		}
	}
	return nil, fmt.Errorf("the node on port %d knows nobody with slot %d", n.port, slot)
}

func (c *RedisCluster) id(n *RedisServer) string {
	for id, node := range c.ids {
		if node == n {
			return id
		}
	}
	c.t.Helper()
	c.t.Fatal("a node of another cluster")
	return ""
}

func (c *RedisCluster) must(n *RedisServer, args ...string) any {
	c.t.Helper()
	reply, err := n.Do(args...)
	if err != nil {
		c.t.Fatalf("%q on port %d: %v", args, n.port, err)
	}
	return reply
}

func (c *RedisCluster) until(what string, try func() error) {
	c.t.Helper()
	if err := poll(nil, try); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}
