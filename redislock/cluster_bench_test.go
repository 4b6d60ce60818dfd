package redislock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// BenchmarkClusterCycle takes and releases locks in many slots of three masters, beside the
// two commands that a client without a library would send.
func BenchmarkClusterCycle(b *testing.B) {
	c := testserver.Cluster(b, testserver.ClusterOptions{})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	defer client.Close()
	e, err := redislock.New(client, redislock.Config{Safety: redislock.SingleProcess})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	ctx := context.Background()
	script := redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)
	raw := func(name string) error {
		if err := client.SetArgs(ctx, name, "token", redis.SetArgs{Mode: "NX", TTL: 10 * time.Second}).Err(); err != nil {
			return err
		}
		return script.Run(ctx, client, []string{name}, "token").Err()
	}
	engine := func(name string) error {
		req := driver.Request{Name: name, Mode: driver.Exclusive, Token: driver.Token{1}, TTL: 10 * time.Second, Span: 1}
		g, err := e.Acquire(ctx, req)
		if err != nil {
			return err
		}
		return e.Release(ctx, req.Claim(g))
	}
	for _, n := range []int{1, 64, 512} {
		for kind, cycle := range map[string]func(string) error{"raw": raw, "engine": engine} {
			b.Run(fmt.Sprint(kind, "-", n), func(b *testing.B) {
				b.ReportAllocs()
				var all sync.WaitGroup
				for g := range n {
					all.Go(func() {
						for i := g; i < b.N; i += n {
							if err := cycle(fmt.Sprint(kind, g, ":", i%100)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}
