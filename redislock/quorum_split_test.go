package redislock_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// TestQuorumManyContenders: 64 engines, each as a process of its own, want one lock at once.
// Split votes end, everybody gets it, and one at a time.
func TestQuorumManyContenders(t *testing.T) {
	t.Parallel()
	addrs := addrsOf(nodes(t, 5, testserver.RedisOptions{}))
	found(t, addrs, redislock.QuorumConfig{})
	const contenders = 64
	rounds := scale(4)
	ctx, cancel := context.WithTimeout(context.Background(), 10*labPatience)
	defer cancel()
	var inside atomic.Int32
	var last atomic.Int64
	var all sync.WaitGroup
	engines := make([]*redislock.Quorum, contenders)
	for i := range engines {
		engines[i] = quorumOn(t, addrs, redislock.QuorumConfig{})
		defer engines[i].Close()
	}
	began := time.Now()
	for _, q := range engines {
		all.Go(func() {
			for range rounds {
				req := ask("one", labTTL/2)
				req.Wait = true
				g, err := q.Acquire(ctx, req)
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				if before := last.Swap(g.Fence); before >= g.Fence {
					t.Errorf("fence %d after %d", g.Fence, before)
				}
				inside.Add(-1)
				if err := q.Release(ctx, req.Claim(g)); err != nil {
					t.Errorf("Release: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	attempts := uint64(0)
	for _, q := range engines {
		attempts += q.Attempts()
	}
	n := contenders * rounds
	t.Logf("%d acquisitions by %d contenders in %v, %.0f a second; %.2f attempts an acquisition",
		n, contenders, took.Round(time.Millisecond), float64(n)/took.Seconds(), float64(attempts)/float64(n))
}
