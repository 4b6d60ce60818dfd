package bench_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// goroutines that count at once, on two processors.
const counters = 64

func newRedis(b *testing.B) (*holdfast.Client, *redis.Client) {
	server := testserver.Redis(b, testserver.RedisOptions{})
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	engine, err := redislock.New(client, redislock.Config{})
	if err != nil {
		b.Fatal(err)
	}
	hf, err := holdfast.New(engine, holdfast.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { hf.Close(); client.Close() })
	return hf, client
}

// together runs f from 64 goroutines.
func together(b *testing.B, f func(context.Context) error) {
	b.SetParallelism(counters / 2)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f(context.Background()); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkSequenceContended draws numbers from one sequence, beside a plain INCR over the same
// client at its defaults.
func BenchmarkSequenceContended(b *testing.B) {
	b.Run("of=holdfast", func(b *testing.B) {
		hf, _ := newRedis(b)
		s := hf.Sequence("x")
		together(b, func(ctx context.Context) error { _, err := s.Next(ctx); return err })
	})
	b.Run("of=holdfast-block", func(b *testing.B) {
		hf, _ := newRedis(b)
		s := hf.Sequence("x", holdfast.WithBlock(100))
		together(b, func(ctx context.Context) error { _, err := s.Next(ctx); return err })
	})
	b.Run("of=incr", func(b *testing.B) {
		_, client := newRedis(b)
		together(b, func(ctx context.Context) error { return client.Incr(ctx, "x").Err() })
	})
}

// windowScript is the fixed window as it is often written.
var windowScript = redis.NewScript(`
local n = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return n`)

// BenchmarkLimiterContended asks one limiter, beside others that ask one by one.
func BenchmarkLimiterContended(b *testing.B) {
	for name, rate := range map[string]holdfast.Rate{
		"pace":    holdfast.Pace(1_000_000, time.Minute, 1_000_000),
		"fixed":   holdfast.FixedWindow(100_000_000, time.Minute),
		"sliding": holdfast.SlidingWindow(100_000_000, time.Minute),
	} {
		b.Run("of=holdfast-"+name, func(b *testing.B) {
			hf, _ := newRedis(b)
			l := hf.Limiter("x", rate)
			together(b, func(ctx context.Context) error { _, err := l.Allow(ctx, 1); return err })
		})
	}
	b.Run("of=redis_rate", func(b *testing.B) {
		_, client := newRedis(b)
		l := redis_rate.NewLimiter(client)
		limit := redis_rate.Limit{Rate: 1_000_000, Burst: 1_000_000, Period: time.Minute}
		together(b, func(ctx context.Context) error { _, err := l.Allow(ctx, "x", limit); return err })
	})
	b.Run("of=script", func(b *testing.B) {
		_, client := newRedis(b)
		together(b, func(ctx context.Context) error { return windowScript.Run(ctx, client, []string{"x"}, 1, 60).Err() })
	})
}
