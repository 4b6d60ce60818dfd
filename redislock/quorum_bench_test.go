package redislock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// BenchmarkQuorum times lock and unlock on five servers. Its yardstick is a PING to all five in
// parallel, of which a cycle needs two at least.
func BenchmarkQuorum(b *testing.B) {
	addrs := addrsOf(nodes(b, 5, testserver.RedisOptions{}))
	found(b, addrs, redislock.QuorumConfig{})
	ctx := context.Background()
	b.Run("Ping", func(b *testing.B) {
		var clients []*redis.Client
		for _, a := range addrs {
			c := redis.NewClient(&redis.Options{Addr: a})
			defer c.Close()
			clients = append(clients, c)
		}
		for b.Loop() {
			var all sync.WaitGroup
			for _, c := range clients {
				all.Go(func() { _ = c.Ping(ctx).Err() })
			}
			all.Wait()
		}
	})
	cycle := func(b *testing.B, q *redislock.Quorum, name string) {
		req := ask(name, labTTL/2)
		g, err := q.Acquire(ctx, req)
		if err == nil {
			err = q.Release(ctx, req.Claim(g))
		}
		if err != nil {
			b.Error(err)
		}
	}
	b.Run("Uncontended", func(b *testing.B) {
		q := quorumOn(b, addrs, redislock.QuorumConfig{})
		defer q.Close()
		for b.Loop() {
			cycle(b, q, "one")
		}
	})
	b.Run("Distinct64", func(b *testing.B) {
		q := quorumOn(b, addrs, redislock.QuorumConfig{})
		defer q.Close()
		var next atomic.Int64
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			name := fmt.Sprint("n", next.Add(1))
			for pb.Next() {
				cycle(b, q, name)
			}
		})
	})
}
