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
)

// initRefused fails unless Init refuses with an error of that kind that says this.
func initRefused(t *testing.T, e *redislock.Engine, kind driver.Kind, says string) {
	t.Helper()
	err := e.Init(t.Context())
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != kind || d.Outcome != driver.NotApplied || !strings.Contains(err.Error(), says) {
		t.Errorf("Init: %v; want %v, not applied, %q", err, kind, says)
	}
}

func TestInit(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	url := "redis://" + server.Addr()
	initRefused(t, accepts(t, url), driver.Invalid, "SingleProcess")

	e := accepts(t, url+"?failover-grace=crash&max-ttl=1h")
	if err := e.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	finds(t, diagnose(t, e, time.Second), driver.LevelOK, "epoch", "locks are granted since")
	if _, err := e.Acquire(t.Context(), request("a")); err != nil {
		t.Errorf("after Init: %v", err)
	}
	initRefused(t, e, driver.Invalid, "granted already")

	// Without the epoch the lock that was taken still speaks against it.
	must(t, server, "DEL", "holdfast.epoch")
	initRefused(t, e, driver.Invalid, "locks were taken before")
	if n := must(t, server, "EXISTS", "holdfast.epoch"); n != int64(0) {
		t.Error("refused, and written")
	}
	must(t, server, "FLUSHALL")
	must(t, server, "SET", "holdfast.epoch", "v1 "+strings.Repeat("0", 40)+" 1 3600000 0 3")
	initRefused(t, e, driver.Invalid, "clients have used the server before")
	if got := must(t, server, "GET", "holdfast.epoch").(string); !strings.Contains(got, " 1 3600000 0 3") {
		t.Errorf("overwritten by %q", got)
	}
	e.Close()
	initRefused(t, e, driver.Closed, "")
}

// TestInitAfterTakeover: whoever follows a dead master must not be taken for new.
func TestInitAfterTakeover(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	e := accepts(t, "redis+sentinel://"+strings.Join(set.SentinelAddrs(), ",")+"/mymaster")
	promoted := set.Failover()
	comesTrue(t, "the engine has found the new master", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := e.Init(ctx)
		return err != nil && strings.Contains(err.Error(), "was a replica and took over")
	})
	if n := must(t, promoted, "EXISTS", "holdfast.epoch"); n != int64(0) {
		t.Error("refused, and written")
	}
}

func TestInitOnAReplica(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	other := testserver.Redis(t, testserver.RedisOptions{})
	e := accepts(t, "redis://"+server.Addr()+"?failover-grace=crash")
	host, port, _ := strings.Cut(other.Addr(), ":")
	must(t, server, "REPLICAOF", host, port)
	initRefused(t, e, driver.Unavailable, "replica")
}

// TestInitPartitionSafe: the quiet phase is over as well.
func TestInitPartitionSafe(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	e := accepts(t, "redis+sentinel://"+strings.Join(set.SentinelAddrs(), ",")+"/mymaster")
	if err := e.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	comesTrue(t, "a lock is granted long before the grace would be over", func() bool {
		_, err := e.Acquire(t.Context(), request("a"))
		return err == nil // but while the replicas lag behind
	})
}

func TestInitCluster(t *testing.T) {
	t.Parallel()
	cluster := testserver.Cluster(t, testserver.ClusterOptions{})
	e := accepts(t, "redis+cluster://"+strings.Join(cluster.Addrs(), ",")+"?max-ttl=1h")
	if _, err := e.Acquire(t.Context(), request("before")); err == nil {
		t.Error("granted before Init")
	}
	initRefused(t, e, driver.Invalid, "clients have used the server before")
	for _, node := range cluster.Nodes() {
		must(t, node, "FLUSHALL")
	}
	for range 2 { // slots that are done are passed over
		if err := e.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c", "d", "before"} {
		if _, err := e.Acquire(t.Context(), request(name)); err != nil {
			t.Errorf("after Init: %v", err)
		}
	}
}
