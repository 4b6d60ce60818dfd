package etcdlock_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var prefixes atomic.Int64

// prefix returns one that no other test uses.
func prefix() string { return fmt.Sprintf("test%d/", prefixes.Add(1)) }

func TestConformanceSingle(t *testing.T) {
	t.Parallel()
	conforms(t, testserver.Etcd(t, testserver.EtcdOptions{}))
}

func TestConformanceCluster(t *testing.T) {
	t.Parallel()
	conforms(t, testserver.Etcd(t, testserver.EtcdOptions{Members: 3, Current: true}))
}

func conforms(t *testing.T, cluster *testserver.EtcdCluster) {
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return store(t, cluster) },
		TTL: time.Second, Rounds: 60,
	})
}

// store opens each engine on a client of its own, as processes do.
func store(t drivertest.T, cluster *testserver.EtcdCluster) drivertest.Store {
	cfg := etcdlock.Config{Prefix: prefix()}
	return drivertest.Store{Open: func() driver.Engine {
		client, err := clientv3.New(clientv3.Config{Endpoints: cluster.Addrs(), Logger: zap.NewNop()})
		if err != nil {
			t.Fatalf("client: %v", err)
		}
		e, err := etcdlock.New(client, cfg)
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		return closing{e, client}
	}}
}

// closing closes the client with the engine.
type closing struct {
	*etcdlock.Engine
	client *clientv3.Client
}

func (c closing) Close() error {
	err := c.Engine.Close()
	_ = c.client.Close()
	return err
}
