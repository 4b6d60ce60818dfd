package redislock_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

var prefixes atomic.Int64

// prefix returns one that no other test uses.
func prefix() string { return fmt.Sprintf("test%d:", prefixes.Add(1)) }

func TestConformanceStandalone(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return standaloneStore(t, server) },
		TTL: 300 * time.Millisecond, Rounds: 200,
	})
}

// standaloneStore opens each engine on a client of its own, as processes do.
func standaloneStore(t drivertest.T, server *testserver.RedisServer) drivertest.Store {
	cfg := redislock.Config{Prefix: prefix()}
	return drivertest.Store{Open: func() driver.Engine {
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		e, err := redislock.New(client, cfg)
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		t.Cleanup(func() { client.Close() })
		return e
	}}
}
