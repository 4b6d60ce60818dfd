package testserver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// ask returns the address that a sentinel gives to clients.
func ask(t *testing.T, s *testserver.SentinelSet, sentinel doer) string {
	t.Helper()
	pair, _ := do(t, sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.MasterName()).([]any)
	if len(pair) != 2 {
		t.Fatalf("master at %v", pair)
	}
	return pair[0].(string) + ":" + pair[1].(string)
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	s := testserver.Sentinel(t, testserver.SentinelOptions{Password: "secret", SentinelPassword: "other"})
	nodes := s.Nodes()
	if len(nodes) != 3 || len(s.Sentinels()) != 3 || len(s.SentinelAddrs()) != 3 {
		t.Fatalf("%d nodes, %d sentinels", len(nodes), len(s.Sentinels()))
	}
	if s.Master() != nodes[0] || !slices.Equal(s.Replicas(), nodes[1:]) {
		t.Error("another master than at the start")
	}
	c := connect(t, s.SentinelAddrs()[1])
	if _, err := c.Do("PING"); err == nil || !strings.HasPrefix(err.Error(), "NOAUTH") {
		t.Errorf("sentinel without a password: %v", err)
	}
	want(t, "OK", c, "AUTH", "other")
	addr := ask(t, s, c)
	if addr != s.Proxy(nodes[0]).Addr() {
		t.Errorf("clients are sent to %s", addr)
	}
	c = connect(t, addr)
	want(t, "OK", c, "AUTH", "secret")
	want(t, "OK", c, "SET", "k", "v")
	want(t, int64(2), c, "WAIT", "2", "10000")

	promoted := s.Failover()
	if promoted == nodes[0] || s.Master() != promoted {
		t.Error("no other master after a failover")
	}
	want(t, "v", promoted, "GET", "k")

	for _, sentinel := range s.Sentinels() {
		sentinel.Restart() // they keep what they know on disk
		if got := ask(t, s, sentinel); got != s.Proxy(promoted).Addr() {
			t.Errorf("after a restart clients are sent to %s", got)
		}
	}
}

// TestSentinelLosesAWrite: the master acknowledges a write, dies before a replica has it, and
// the replica takes over.
func TestSentinelLosesAWrite(t *testing.T) {
	t.Parallel()
	s := testserver.Sentinel(t, testserver.SentinelOptions{})
	master := s.Master()
	client := connect(t, s.Proxy(master).Addr())
	want(t, "OK", client, "SET", "before", "v")
	want(t, int64(2), client, "WAIT", "2", "10000")
	s.FreezeReplication(master)
	want(t, "OK", client, "SET", "k", "v")
	want(t, int64(0), client, "WAIT", "1", "1")
	master.Kill()
	promoted := s.WaitForMaster(master)
	want(t, "v", promoted, "GET", "before")
	want(t, nil, promoted, "GET", "k")

	s.Proxy(master).Heal()
	master.Restart()
	eventually(t, "the old master follows", func() bool {
		info, err := master.Info()
		return err == nil && info["role"] == "slave" && info["master_link_status"] == "up"
	})
	want(t, nil, promoted, "GET", "k")
}

// TestSentinelTwoMasters: a master that is cut off with one client goes on serving it while
// the others have a new one.
func TestSentinelTwoMasters(t *testing.T) {
	t.Parallel()
	s := testserver.Sentinel(t, testserver.SentinelOptions{Replicas: 1})
	old := s.Master()
	isolated, err := old.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer isolated.Close()
	s.Isolate(old)
	promoted := s.WaitForMaster(old)
	other := connect(t, ask(t, s, s.Sentinels()[0]))
	want(t, "OK", isolated, "SET", "k", "old", "NX")
	want(t, "OK", other, "SET", "k", "new", "NX")
	want(t, "old", isolated, "GET", "k")
	want(t, "new", promoted, "GET", "k")

	s.Proxy(old).Heal()
	eventually(t, "the old master gave in", func() bool {
		v, err := old.Do("GET", "k")
		return err == nil && v == "new"
	})
}
