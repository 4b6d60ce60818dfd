package main

import (
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestRedisScripts runs scripts against real servers, whose URLs are in their environment.
func TestRedisScripts(t *testing.T) {
	server := testserver.Redis(t, testserver.RedisOptions{
		Password: "hunter2",
		Users:    []string{"limited on >hunter3 ~holdfast* &holdfast* +@all -zadd -publish"},
	})
	// One that scripts may tell that it is new, and one that is.
	fresh := testserver.Redis(t, testserver.RedisOptions{Password: "hunter2"})
	sentinel := testserver.Sentinel(t, testserver.SentinelOptions{Password: "hunter2", SentinelPassword: "hunter3"})
	cluster := testserver.Cluster(t, testserver.ClusterOptions{Password: "hunter2"})
	down := testserver.Redis(t, testserver.RedisOptions{})
	down.Kill()
	runScripts(t, "redis", map[string]string{
		"REDIS":           "redis://:hunter2@" + server.Addr(),
		"REDIS_ADDR":      server.Addr(),
		"REDIS_LIMITED":   "redis://limited:hunter3@" + server.Addr(),
		"REDIS_FRESH":     "redis://:hunter2@" + fresh.Addr() + "?failover-grace=crash&max-ttl=1h",
		"REDIS_DOWN":      "redis://:hunter2@" + down.Addr(),
		"SENTINEL":        "redis+sentinel://:hunter2@" + strings.Join(sentinel.SentinelAddrs(), ",") + "/mymaster?sentinel-password=hunter3",
		"SENTINEL_NOSUCH": "redis+sentinel://:hunter2@" + strings.Join(sentinel.SentinelAddrs(), ",") + "/nosuch?sentinel-password=hunter3",
		"SENTINEL_AS":     "redis://:hunter3@" + sentinel.SentinelAddrs()[0],
		"CLUSTER":         "redis+cluster://:hunter2@" + strings.Join(cluster.Addrs(), ","),
		"CLUSTER_AS":      "redis://:hunter2@" + cluster.Addrs()[0],
	})
}
