package redislock_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestDiagnoseSentinel(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{Password: "hunter2", SentinelPassword: "hunter3"})
	url := "redis+sentinel://:hunter2@" + strings.Join(set.SentinelAddrs(), ",") + "/mymaster?sentinel-password=hunter3"
	e := accepts(t, url)
	d := diagnose(t, e, 30*time.Second)
	finds(t, d, driver.LevelOK, "replicas", "2 acknowledge, 1 have to")
	finds(t, d, driver.LevelOK, "sentinels", "2 of 3")
	finds(t, d, driver.LevelOK, "failover", "leases of 30s", "down-after-milliseconds 1s", "5s until the predecessor")
	finds(t, d, driver.LevelNote, "epoch", "waits 35s", "doctor --init")
	finds(t, d, driver.LevelOK, "safety", "PartitionSafe")
	if d.Worst() != driver.LevelNote {
		t.Errorf("worst is %v:\n%s", d.Worst(), sheet(d))
	}
	if text := sheet(d); strings.Contains(text, "hunter") {
		t.Errorf("it has a password:\n%s", text)
	}
	// 1 s + 4 s + 5 s is two thirds of 15 s.
	finds(t, diagnose(t, e, 15*time.Second), driver.LevelWarning, "failover", "leases of 15s", "TTL of 16s or more")
	finds(t, diagnose(t, e, 16*time.Second), driver.LevelOK, "failover")
	short := accepts(t, url+"&max-ttl=10s")
	finds(t, diagnose(t, short, 10*time.Second), driver.LevelWarning, "failover", "raise MaxTTL")

	set.Sentinels()[2].Kill()
	d = diagnose(t, e, 30*time.Second)
	finds(t, d, driver.LevelWarning, "sentinel "+set.SentinelAddrs()[2], "does not answer")
	finds(t, d, driver.LevelOK, "sentinels", "2 of 3")
	finds(t, d, driver.LevelNote, "safety", "See the warnings")

	// One replica less is a warning, two are the end of all grants.
	replicas := set.Replicas()
	replicas[0].Kill()
	master := set.Master()
	follow := func(n string) func() bool {
		return func() bool {
			info, err := master.Info()
			return err == nil && info["connected_slaves"] == n
		}
	}
	comesTrue(t, "the master misses a replica", follow("1"))
	finds(t, diagnose(t, e, 30*time.Second), driver.LevelWarning, "replicas", "1 of the 2")
	replicas[1].Kill()
	comesTrue(t, "the master misses both", follow("0"))
	d = diagnose(t, e, 30*time.Second)
	finds(t, d, driver.LevelProblem, "replicas", "0 of 0 acknowledge", "1 have to")
	finds(t, d, driver.LevelProblem, "safety")
}

// TestDiagnoseSentinelMasterDown: what the Sentinels say is most wanted when the master does
// not answer.
func TestDiagnoseSentinelMasterDown(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{Replicas: 1, DownAfter: time.Minute})
	e := accepts(t, "redis+sentinel://"+strings.Join(set.SentinelAddrs(), ",")+"/mymaster?data-nodes=2")
	set.Master().Kill()
	set.Proxy(set.Nodes()[0]).Refuse()
	d := diagnose(t, e, 30*time.Second)
	finds(t, d, driver.LevelProblem, "connection", "the master does not answer")
	finds(t, d, driver.LevelWarning, "failover", "down-after-milliseconds 1m0s")
	finds(t, d, driver.LevelOK, "sentinels")
}

func TestDiagnoseCluster(t *testing.T) {
	t.Parallel()
	cluster := testserver.Cluster(t, testserver.ClusterOptions{Replicas: 1, Password: "hunter2"})
	e := accepts(t, "redis+cluster://:hunter2@"+cluster.Addrs()[0])
	d := diagnose(t, e, 30*time.Second)
	for _, node := range cluster.Nodes()[:3] {
		finds(t, d, driver.LevelOK, node.Addr()+" server")
		finds(t, d, driver.LevelOK, node.Addr()+" permissions")
		finds(t, d, driver.LevelNote, node.Addr()+" replicas", "1 follow")
		finds(t, d, driver.LevelOK, node.Addr()+" failover", "cluster-node-timeout 2s")
	}
	if d.Worst() != driver.LevelNote {
		t.Errorf("worst is %v:\n%s", d.Worst(), sheet(d))
	}
	for _, node := range cluster.Nodes() {
		if n := must(t, node, "DBSIZE"); n != int64(0) {
			t.Errorf("it left %d keys behind: %v", n, must(t, node, "KEYS", "*"))
		}
	}
	lone := testserver.Cluster(t, testserver.ClusterOptions{})
	e = accepts(t, "redis+cluster://"+strings.Join(lone.Addrs(), ","))
	lone.Nodes()[1].Kill()
	d = diagnose(t, e, 30*time.Second)
	finds(t, d, driver.LevelProblem, lone.Addrs()[1]+" connection", "cannot be had")
	finds(t, d, driver.LevelOK, lone.Addrs()[0]+" server")
}

func TestDiagnoseEpoch(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{AppendOnly: true})
	url := "redis://" + server.Addr() + "?failover-grace=crash&max-ttl=1h"
	e := accepts(t, url)
	finds(t, diagnose(t, e, time.Second), driver.LevelNote, "epoch", "there is none yet")
	if _, err := e.Acquire(t.Context(), request("a")); err == nil {
		t.Fatal("granted in the grace")
	}
	finds(t, diagnose(t, e, time.Second), driver.LevelNote, "epoch", "the master is new", "1h0m")
	finds(t, diagnose(t, accepts(t, "redis://"+server.Addr()), time.Second), driver.LevelWarning, "epoch", "may take what they hold")
	server.Restart()
	comesTrue(t, "the engine is connected again", func() bool {
		_, err := e.Diagnose(t.Context(), time.Second)
		return err == nil
	})
	finds(t, diagnose(t, e, time.Second), driver.LevelNote, "epoch", "was restarted", "1h0m")
	must(t, server, "SET", "holdfast.epoch", "v1 "+strings.Repeat("0", 40)+" 1 1000 0 3")
	finds(t, diagnose(t, e, time.Second), driver.LevelProblem, "epoch", `"1000 0 3"`)
}
