package testserver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	c := testserver.Cluster(t, testserver.ClusterOptions{Password: "secret"})
	nodes := c.Nodes()
	if len(nodes) != 3 || !slices.Equal(c.Addrs(), []string{nodes[0].Addr(), nodes[1].Addr(), nodes[2].Addr()}) {
		t.Errorf("%d nodes at %v", len(nodes), c.Addrs())
	}
	for slot, owner := range map[int]int{0: 0, 5460: 0, 5461: 1, 10921: 1, 10922: 2, 16383: 2} {
		if c.Node(slot) != nodes[owner] {
			t.Errorf("slot %d is not on node %d", slot, owner)
		}
	}
	for _, key := range []string{"k", "", "{tag}k", "{}k", "{k", "a{b}c{d}", "}{x}", "\xff\x00"} {
		want(t, int64(testserver.Slot(key)), nodes[0], "CLUSTER", "KEYSLOT", key)
	}
	owner := c.Node(testserver.Slot("k"))
	want(t, "OK", owner, "SET", "k", "v")
	for _, n := range nodes {
		_, err := n.Do("GET", "k")
		moved := err != nil && strings.HasPrefix(err.Error(), fmt.Sprintf("MOVED %d %s", testserver.Slot("k"), owner.Addr()))
		if (n == owner) == moved {
			t.Errorf("GET on port %d: %v", n.Port(), err)
		}
	}
}

func TestClusterMoveSlot(t *testing.T) {
	t.Parallel()
	c := testserver.Cluster(t, testserver.ClusterOptions{})
	slot := testserver.Slot("{tag}")
	from := c.Node(slot)
	to := c.Nodes()[0]
	if to == from {
		to = c.Nodes()[1]
	}
	const keys = 250
	for i := range keys {
		do(t, from, "SET", fmt.Sprintf("{tag}%d", i), "v")
	}
	c.BeginMove(slot, to)
	if n := c.MoveKeys(to, "{tag}1", "{tag}2"); n != 2 {
		t.Errorf("moved %d keys", n)
	}
	refused := func(prefix string, args ...string) {
		t.Helper()
		if _, err := from.Do(args...); err == nil || !strings.HasPrefix(err.Error(), prefix) {
			t.Errorf("%q: %v, want %s", args, err, prefix)
		}
	}
	refused("ASK", "GET", "{tag}1")
	refused("TRYAGAIN", "MGET", "{tag}1", "{tag}3")
	want(t, "v", from, "GET", "{tag}3")
	c.EndMove(slot, to)
	refused("MOVED", "GET", "{tag}3")
	want(t, int64(keys), to, "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
	want(t, "v", to, "GET", "{tag}3")
	if c.Node(slot) != to {
		t.Error("the slot has not moved")
	}
	c.MoveSlot(slot, from)
	want(t, int64(keys), from, "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
}

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := testserver.Cluster(t, testserver.ClusterOptions{Replicas: 1})
	slot := testserver.Slot("k")
	old := c.Node(slot)
	conn, err := old.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want(t, "OK", conn, "SET", "k", "v")
	want(t, int64(1), conn, "WAIT", "1", "10000")
	promoted := c.Failover(slot)
	if promoted == old || !slices.Contains(c.Nodes()[3:], promoted) {
		t.Error("promoted is not a replica")
	}
	want(t, "v", promoted, "GET", "k")
	want(t, "OK", promoted, "SET", "k", "w")
	old.Restart()
	eventually(t, "the old master follows", func() bool {
		info, err := old.Info()
		return err == nil && info["role"] == "slave" && info["master_link_status"] == "up"
	})
	if c.Node(slot) != promoted {
		t.Error("the old master has the slot again")
	}
}
