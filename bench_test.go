package holdfast_test

import (
	"context"
	"testing"

	"github.com/holdfast-go/holdfast"
)

// BenchmarkMutexUncontended is one Lock and Unlock by a lone goroutine. Its yardstick is
// BenchmarkChan, a lock made of a channel.
func BenchmarkMutexUncontended(b *testing.B) {
	m := newClient(b, holdfast.Config{}).Mutex("bench")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		l, err := m.Lock(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChan is the yardstick of BenchmarkMutexUncontended.
func BenchmarkChan(b *testing.B) {
	lock := make(chan struct{}, 1)
	for b.Loop() {
		lock <- struct{}{}
		<-lock
	}
}

// BenchmarkMutexContended is 64 goroutines on one name. Its yardstick is the weighted
// semaphore of golang.org/x/sync, in the bench module.
func BenchmarkMutexContended(b *testing.B) {
	m := newClient(b, holdfast.Config{}).Mutex("bench")
	ctx := context.Background()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, err := m.Lock(ctx)
			if err != nil {
				b.Error(err)
				return
			}
			if err := l.Unlock(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
