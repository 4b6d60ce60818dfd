package zklock_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

func BenchmarkEngine(b *testing.B) {
	s := testserver.ZooKeeper(b, testserver.ZooKeeperOptions{})
	drivertest.Benchmark(b, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return store(t, zklock.Config{Root: root()}, s.Addr()) },
		TTL: time.Second,
	})
}

// BenchmarkUncontended is one goroutine on one name, through the core and with the library's
// own lock.
func BenchmarkUncontended(b *testing.B) {
	s := testserver.ZooKeeper(b, testserver.ZooKeeperOptions{})
	b.Run("holdfast", func(b *testing.B) {
		ctx := context.Background()
		hf, err := holdfast.Open(ctx, "zk://"+s.Addr()+"/locks?session-timeout=30s", holdfast.Config{})
		if err != nil {
			b.Fatal(err)
		}
		defer hf.Close()
		m := hf.Mutex("n")
		for b.Loop() {
			l, err := m.Lock(ctx)
			if err == nil {
				err = l.Unlock()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("go-zookeeper", func(b *testing.B) {
		conn, _, err := zk.Connect([]string{s.Addr()}, 30*time.Second, zk.WithLogInfo(false), zk.WithLogger(quiet{}))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		l := zk.NewLock(conn, "/theirs/n", zk.WorldACL(zk.PermAll))
		for b.Loop() {
			err := l.Lock()
			if err == nil {
				err = l.Unlock()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
