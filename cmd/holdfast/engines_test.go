package main

import (
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestEngineScripts runs the same scripts on every engine that has a server: what a user types
// does the same everywhere.
func TestEngineScripts(t *testing.T) {
	urls := map[string]func(*testing.T) string{
		"postgres": func(t *testing.T) string { return testserver.Postgres(t, testserver.PostgresOptions{}).URL() },
		"mysql": func(t *testing.T) string {
			s := testserver.MariaDB(t, testserver.MariaDBOptions{})
			return s.URL(s.Addr())
		},
		"etcd": func(t *testing.T) string {
			return "etcd://" + strings.Join(testserver.Etcd(t, testserver.EtcdOptions{}).Addrs(), ",")
		},
		"zookeeper": func(t *testing.T) string {
			return "zk://" + testserver.ZooKeeper(t, testserver.ZooKeeperOptions{}).Addr() + "/locks"
		},
		"redlock": func(t *testing.T) string {
			var nodes []string
			for range 3 {
				nodes = append(nodes, testserver.Redis(t, testserver.RedisOptions{}).Addr())
			}
			return "redlock://" + strings.Join(nodes, ",")
		},
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScripts(t, "engines", map[string]string{"HOLDFAST_URL": url(t)})
		})
	}
}
