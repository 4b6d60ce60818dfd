package bench

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

func newClient(b *testing.B) *holdfast.Client {
	b.Helper()
	c, err := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkMemoryUncontended is one lock and unlock by a lone goroutine. Bar: at most 10
// times the channel and 3 allocations. The second yardstick is a lock made of a channel that
// can be given up with a context, as ours can.
func BenchmarkMemoryUncontended(b *testing.B) {
	b.Run("of=chan", func(b *testing.B) {
		lock := make(chan struct{}, 1)
		b.ReportAllocs()
		for b.Loop() {
			lock <- struct{}{}
			<-lock
		}
	})
	b.Run("of=chan+ctx", func(b *testing.B) {
		lock := make(chan struct{}, 1)
		ctx := b.Context()
		for b.Loop() {
			select {
			case lock <- struct{}{}:
			case <-ctx.Done():
			}
			<-lock
		}
	})
	b.Run("of=holdfast", func(b *testing.B) {
		m := newClient(b).Mutex("bench")
		ctx := context.Background()
		b.ReportAllocs()
		for b.Loop() {
			cycle(b, ctx, m)
		}
	})
}

// BenchmarkMemoryContended is 64 goroutines on one name. Bar: at least half the rate of the
// semaphore.
func BenchmarkMemoryContended(b *testing.B) {
	ctx := context.Background()
	b.Run("of=semaphore", func(b *testing.B) {
		s := semaphore.NewWeighted(1)
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := s.Acquire(ctx, 1); err != nil {
					b.Error(err)
					return
				}
				s.Release(1)
			}
		})
	})
	b.Run("of=holdfast", func(b *testing.B) {
		m := newClient(b).Mutex("bench")
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				cycle(b, ctx, m)
			}
		})
	})
}

// BenchmarkMemoryDistinct is 64 goroutines, each on a name of its own.
func BenchmarkMemoryDistinct(b *testing.B) {
	c := newClient(b)
	ctx := context.Background()
	names := make(chan string, 1)
	go func() {
		for i := 0; ; i++ {
			names <- fmt.Sprint("bench", i)
		}
	}()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		m := c.Mutex(<-names)
		for pb.Next() {
			cycle(b, ctx, m)
		}
	})
}

func cycle(b *testing.B, ctx context.Context, m *holdfast.Mutex) {
	l, err := m.Lock(ctx)
	if err != nil {
		b.Error(err)
		return
	}
	if err := l.Unlock(); err != nil {
		b.Error(err)
	}
}

// BenchmarkMemoryHold holds 10,000 leases for ten seconds and reports how much of a core their
// renewal takes. Bar: below 1 %. One run is enough: -benchtime 1x.
func BenchmarkMemoryHold(b *testing.B) {
	const leases, hold = 10_000, 10 * time.Second
	c := newClient(b)
	for i := range leases {
		if _, err := c.Mutex(fmt.Sprint("hold", i)).Lock(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		before := cpu(b)
		time.Sleep(hold)
		b.ReportMetric(100*float64(cpu(b)-before)/float64(hold), "%core")
	}
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
