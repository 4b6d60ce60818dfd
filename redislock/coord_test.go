package redislock_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// coordinates checks the types beside locks on what url names.
func coordinates(t *testing.T, url string, cfg redislock.Config) {
	coordtest.Run(t, coordtest.Harness{Open: func(t *testing.T) *holdfast.Client {
		e, err := redislock.Open(context.Background(), url, cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}})
}

func TestCoordinationStandalone(t *testing.T) {
	t.Parallel()
	coordinates(t, "redis://"+testserver.Redis(t, testserver.RedisOptions{}).Addr(), redislock.Config{})
}

func TestCoordinationCluster(t *testing.T) {
	t.Parallel()
	x := testserver.Cluster(t, testserver.ClusterOptions{})
	coordinates(t, "redis+cluster://"+strings.Join(x.Addrs(), ","), redislock.Config{Safety: redislock.SingleProcess})
}

func TestCoordinationSentinel(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	url := "redis+sentinel://" + strings.Join(set.SentinelAddrs(), ",") + "/" + set.MasterName()
	// What is counted here is not tried again: replicas of a busy machine may be seconds late.
	cfg := redislock.Config{MaxTTL: 10 * time.Second, MaxLag: 3 * time.Second}
	e := eventually(t, "open", func() (driver.Engine, error) { return redislock.Open(t.Context(), url, cfg) })
	awaitGrace(t, e)
	e.Close()
	coordinates(t, url, cfg)
}

// TestSequenceFailover has numbers handed out that the master never gets to its replicas, and
// that are not in the database yet when it dies. They are not handed out again.
func TestSequenceFailover(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	url := "redis+sentinel://" + strings.Join(set.SentinelAddrs(), ",") + "/" + set.MasterName()
	var asked, written atomic.Int64
	var clients []*holdfast.Sequence
	for range 3 {
		e := eventually(t, "open", func() (driver.Engine, error) { return redislock.Open(t.Context(), url, fast) })
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c.Sequence("invoice", holdfast.WithSource(func(context.Context) (int64, error) {
			asked.Add(1)
			return written.Load(), nil
		})))
	}
	seen := map[int64]bool{}
	draw := func(s *holdfast.Sequence) int64 {
		n := eventually(t, "Next", func() (int64, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return s.Next(ctx)
		})
		if seen[n] {
			t.Fatalf("%d was handed out twice", n)
		}
		seen[n] = true
		return n
	}
	for i := range 30 {
		written.Store(draw(clients[i%3]))
	}
	if asked.Load() != 1 {
		t.Errorf("the source was asked %d times for a new sequence", asked.Load())
	}
	last := lostInFailover(t, set, func() (last int64) {
		for range 20 {
			last = draw(clients[0]) // by one that does not come back
		}
		return last
	})
	for i := range 30 {
		if n := draw(clients[1+i%2]); n <= last {
			t.Errorf("%d follows %d, which was handed out before the failover", n, last)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("the source was asked %d times: want once for the new sequence and once for the failover", asked.Load())
	}
}
