package redislock_test

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// nodes starts servers that know nothing of each other.
func nodes(t testing.TB, n int, options testserver.RedisOptions) []*testserver.RedisServer {
	t.Helper()
	all := make([]*testserver.RedisServer, n)
	for i := range all {
		all[i] = testserver.Redis(t, options)
	}
	return all
}

// addrsOf are the addresses of servers.
func addrsOf(servers []*testserver.RedisServer) []string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Addr())
	}
	return all
}

// quorumOn returns an engine with clients of its own on servers at these addresses, as a
// process would have it. On a busy machine a connection may take long to be made.
func quorumOn(t drivertest.T, addrs []string, cfg redislock.QuorumConfig) *redislock.Quorum {
	t.Helper()
	var clients []redis.UniversalClient
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr, DialTimeout: labPatience, ReadTimeout: time.Second, DialerRetries: 1})
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	q, err := redislock.NewQuorum(clients, cfg)
	if err != nil {
		t.Fatalf("NewQuorum: %v", err)
	}
	return q
}

// found says that no lock was ever taken on new servers.
func found(t testing.TB, addrs []string, cfg redislock.QuorumConfig) {
	t.Helper()
	q := quorumOn(t, addrs, cfg)
	defer q.Close()
	ctx, cancel := context.WithTimeout(context.Background(), labPatience)
	defer cancel()
	if err := q.Init(ctx); err != nil {
		t.Fatalf("Init: %v", err)
	}
}

func TestConformanceQuorum(t *testing.T) {
	servers := nodes(t, 5, testserver.RedisOptions{})
	addrs := addrsOf(servers)
	found(t, addrs, redislock.QuorumConfig{})
	drivertest.Run(t, quorumHarness(addrs))
}

func quorumHarness(addrs []string) drivertest.Harness {
	return drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store {
			cfg := redislock.QuorumConfig{Prefix: prefix()}
			return drivertest.Store{Open: func() driver.Engine { return quorumOn(t, addrs, cfg) }}
		},
		TTL: 300 * time.Millisecond, Rounds: 100,
	}
}
