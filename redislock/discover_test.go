package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// openURL opens a URL within a time that no test should need.
func openURL(t *testing.T, url string) (*redislock.Engine, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e, err := redislock.Open(ctx, url, redislock.Config{Timeout: 5 * time.Second})
	if err == nil {
		t.Cleanup(func() { e.Close() })
	}
	return e, err
}

// refuses fails unless Open refuses the URL with an error of that kind that says all of this.
func refuses(t *testing.T, url string, kind driver.Kind, says ...string) {
	t.Helper()
	_, err := openURL(t, url)
	var d *driver.Error
	if !errors.As(err, &d) {
		t.Errorf("%s: %v, want a refusal", url, err)
		return
	}
	if d.Kind != kind || d.Outcome != driver.NotApplied {
		t.Errorf("%s: %v, outcome %v; want kind %v, not applied", url, err, d.Outcome, kind)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error is\n%v\nand does not say %q", url, err, text)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%s: the error has the password", url)
	}
}

func accepts(t *testing.T, url string) *redislock.Engine {
	t.Helper()
	e, err := openURL(t, url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return e
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	plain := testserver.Redis(t, testserver.RedisOptions{})
	replica := testserver.Redis(t, testserver.RedisOptions{ReplicaOf: plain.Addr()})
	sentinel := testserver.Sentinel(t, testserver.SentinelOptions{Password: "hunter2"})
	cluster := testserver.Cluster(t, testserver.ClusterOptions{})
	watcher, node := sentinel.SentinelAddrs()[0], cluster.Addrs()[0]

	refuses(t, "redis://"+watcher, driver.Invalid, watcher+" is a Sentinel", "redis+sentinel://"+watcher)
	refuses(t, "redis://"+watcher+"/3", driver.Invalid, watcher+" is a Sentinel")
	refuses(t, "redis://"+node, driver.Invalid, node+" is a node of a Cluster", "redis+cluster://"+node)
	refuses(t, "redis://"+node+"/3", driver.Invalid, "redis+cluster://"+node)
	refuses(t, "redis://"+replica.Addr(), driver.Invalid, "is a replica of "+plain.Addr(), "name the master")

	refuses(t, "redis+cluster://"+plain.Addr(), driver.Invalid, plain.Addr()+" is a server on its own", "redis://"+plain.Addr())
	refuses(t, "redis+cluster://"+watcher, driver.Invalid, watcher+" is a Sentinel")

	refuses(t, "redis+sentinel://"+plain.Addr()+"/mymaster", driver.Invalid, plain.Addr()+" is a server on its own", "redis://"+plain.Addr())
	refuses(t, "redis+sentinel://"+node+"/mymaster", driver.Invalid, "redis+cluster://"+node)
	all := strings.Join(sentinel.SentinelAddrs(), ",")
	refuses(t, "redis+sentinel://:hunter2@"+all+"/nosuch", driver.Invalid, `no master "nosuch"`, `"mymaster"`)

	// The master has two replicas: enough for three data nodes, too many for two.
	accepts(t, "redis+sentinel://:hunter2@"+all+"/mymaster?data-nodes=2")
	master := sentinel.Proxy(sentinel.Master()).Addr()
	refuses(t, "redis://:hunter2@"+master+"?failover-grace=partition&data-nodes=1", driver.Invalid)
	accepts(t, "redis://:hunter2@"+master+"?failover-grace=crash")
}

func TestOpenCountsReplicas(t *testing.T) {
	t.Parallel()
	sentinel := testserver.Sentinel(t, testserver.SentinelOptions{Replicas: 3})
	base := "redis+sentinel://" + strings.Join(sentinel.SentinelAddrs(), ",") + "/" + sentinel.MasterName()
	refuses(t, base, driver.Invalid, "DataNodes is 3", "3 replicas", "data-nodes in the URL) to 4")
	accepts(t, base+"?data-nodes=4")
	accepts(t, base+"?failover-grace=crash")
}

func TestOpenComparesConstants(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	url := "redis://" + server.Addr() + "?failover-grace=crash&max-ttl="
	first := accepts(t, url+"1s")
	if _, err := first.Acquire(t.Context(), request("a")); err == nil {
		t.Error("a server that was just started has granted something")
	}
	accepts(t, url+"1s")
	refuses(t, url+"2s", driver.Invalid, `"2000 0 3"`, `"1000 0 3"`, "MaxTTL")
}

// request asks for the lock of that name once.
func request(name string) driver.Request {
	return driver.Request{Name: name, Mode: driver.Exclusive, Span: 1, Weight: 1, TTL: time.Second, Owner: "me", Token: driver.Token{1}}
}

// TestOpenAsksForLittle: what a user may not be told is no reason to refuse.
func TestOpenAsksForLittle(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{Users: []string{
		"least on >hunter2 -@all +ping",
		"deaf on >hunter2 ~* &* +@all -hello -info -client -get",
	}})
	for _, user := range []string{"least", "deaf"} {
		accepts(t, fmt.Sprintf("redis://%s:hunter2@%s", user, server.Addr()))
	}
	refuses(t, "redis://least:hunter@"+server.Addr(), driver.Unavailable, "WRONGPASS")
}

func TestOpenSentinelWithPassword(t *testing.T) {
	t.Parallel()
	sentinel := testserver.Sentinel(t, testserver.SentinelOptions{SentinelPassword: "hunter2"})
	base := "redis+sentinel://" + strings.Join(sentinel.SentinelAddrs(), ",") + "/"
	accepts(t, base+"mymaster?sentinel-password=hunter2")
	refuses(t, base+"mymaster", driver.Unavailable, "NOAUTH")
	refuses(t, base+"other?sentinel-password=hunter2", driver.Invalid, `"mymaster"`)
}
