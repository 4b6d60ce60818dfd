package zklock_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

var roots atomic.Int64

// root returns a path that no other test uses.
func root() string { return fmt.Sprintf("/test%d", roots.Add(1)) }

func TestConformanceStandalone(t *testing.T) {
	server := testserver.ZooKeeper(t, testserver.ZooKeeperOptions{})
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return store(t, zklock.Config{Root: root()}, server.Addr()) },
		TTL: 300 * time.Millisecond, Rounds: 100,
	})
}

// store opens each engine with a session of its own, as processes do. Sessions are long: it
// is the engine that has to end shares which are not renewed.
func store(t drivertest.T, cfg zklock.Config, addrs ...string) drivertest.Store {
	cfg.SessionTimeout = 3 * time.Minute
	return drivertest.Store{Open: func() driver.Engine {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		e, err := zklock.Open(ctx, "zk://"+strings.Join(addrs, ","), cfg)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return e
	}}
}
