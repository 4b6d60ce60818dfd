package drivertest

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
)

// crowdSize is how many goroutines the benchmarks with company have.
const crowdSize = 64

// Benchmark measures the engine of h. An operation is an Acquire and its Release, or a Renew
// of a thousand claims in one call.
func Benchmark(b *testing.B, h Harness) {
	b.Run("uncontended", func(b *testing.B) {
		x := newEnv(b, h)
		e, name := x.open(), x.name()
		b.ReportAllocs()
		for b.Loop() {
			x.cycle(b, e, x.exclusive(name))
		}
	})
	b.Run("64-names", func(b *testing.B) {
		benchmarkCrowd(b, h, func(x *env) func() string { return x.name })
	})
	b.Run("one-name", func(b *testing.B) {
		benchmarkCrowd(b, h, func(x *env) func() string {
			name := x.name()
			return func() string { return name }
		})
	})
	b.Run("renew-1000", func(b *testing.B) {
		x := newEnv(b, h)
		e := x.open()
		var claims []driver.Claim
		for range 1000 {
			claims = append(claims, x.take(e, x.exclusive(x.name())).claim())
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range x.renewAll(e, claims...) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// benchmarkCrowd has goroutines share b.N operations, each on a name of its own choice.
func benchmarkCrowd(b *testing.B, h Harness, naming func(*env) func() string) {
	x := newEnv(b, h)
	e, pick := x.open(), naming(x)
	var begun atomic.Int64
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range crowdSize {
		req := x.exclusive(pick())
		all.Go(func() {
			for begun.Add(1) <= int64(b.N) && x.cycle(b, e, req) {
			}
		})
	}
	all.Wait()
}

// cycle acquires and releases, and reports whether both went well.
func (x *env) cycle(b *testing.B, e driver.Engine, req driver.Request) bool {
	req.Wait = true
	g, err := e.Acquire(b.Context(), req)
	if err == nil {
		err = e.Release(b.Context(), req.Claim(g))
	}
	if err != nil {
		b.Error(err)
	}
	return err == nil
}
