package redislock_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

func BenchmarkEngine(b *testing.B) {
	server := testserver.Redis(b, testserver.RedisOptions{})
	drivertest.Benchmark(b, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return standaloneStore(t, server) },
	})
}

// BenchmarkCycle takes and releases one lock after the other, beside the two commands that a
// client without a library would send.
func BenchmarkCycle(b *testing.B) {
	server := testserver.Redis(b, testserver.RedisOptions{})
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	ctx := context.Background()
	b.Run("raw", func(b *testing.B) {
		release := redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)
		for i := range b.N {
			key := fmt.Sprint("raw", i%1000)
			if ok, err := client.SetNX(ctx, key, "token", 10*time.Second).Result(); err != nil || !ok {
				b.Fatal(ok, err)
			}
			if err := release.Run(ctx, client, []string{key}, "token").Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	e, err := redislock.New(client, redislock.Config{Prefix: prefix()})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("engine", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			req := driver.Request{Name: fmt.Sprint("e", i%1000), Mode: driver.Exclusive, Token: driver.Token{1}, TTL: 10 * time.Second, Span: 1, Wait: true}
			g, err := e.Acquire(ctx, req)
			if err != nil {
				b.Fatal(err)
			}
			if err := e.Release(ctx, req.Claim(g)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("holdfast", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			l, err := hf.Mutex(fmt.Sprint("h", i%1000)).Lock(ctx)
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Unlock(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("holdfast-async", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			l, err := hf.Mutex(fmt.Sprint("a", i%1000), holdfast.WithAsyncUnlock()).Lock(ctx)
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Unlock(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, n := range []int{64, 512} {
		b.Run(fmt.Sprint("holdfast-", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(n / 2)
			var ids atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				m := hf.Mutex(fmt.Sprint("p", ids.Add(1)))
				for pb.Next() {
					l, err := m.Lock(ctx)
					if err != nil {
						b.Error(err)
						return
					}
					l.Unlock()
				}
			})
		})
	}
}
