package drivertest

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// visit is one stay of a goroutine in a crowd: a request that waits, and what to do once it
// was granted and before it is released.
type visit struct {
	req   driver.Request
	enter func(driver.Grant)
	leave func()
}

// crowd has many goroutines on several engines make visits, each its part of x.Rounds. No
// share runs out and everybody releases, so everybody has to be served.
func (x *env) crowd(size int, next func(*mathrand.Rand) visit) {
	x.Helper()
	engines := []driver.Engine{x.open(), x.open(), x.open()}
	rng := x.random()
	var all sync.WaitGroup
	for i := range size {
		own := mathrand.New(mathrand.NewPCG(rng.Uint64(), 0))
		e := engines[i%len(engines)]
		all.Go(func() {
			for range max(2, x.Rounds/20/size) {
				if !x.visit(e, next(own)) {
					return
				}
			}
		})
	}
	all.Wait()
}

func (x *env) visit(e driver.Engine, v visit) bool {
	v.req.Wait = true
	g, err := x.ask(e, v.req)
	if err != nil {
		x.Errorf("waiting %v request in a crowd: %v, want a grant", v.req.Mode, err)
		return false
	}
	v.enter(g)
	v.leave()
	s := share{x: x, engine: e, req: v.req, grant: g}
	if err := s.tryRelease(); err != nil {
		x.Errorf("release of a held %v share: %v", v.req.Mode, err)
		return false
	}
	return true
}

// occupancy watches, from the holders' side, that nobody is there who must not be.
type occupancy struct {
	mu     sync.Mutex
	count  [driver.Permits + 1]int
	weight int
}

func (o *occupancy) enter(x *env, req driver.Request) func(driver.Grant) {
	return func(driver.Grant) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.count[req.Mode]++
		o.weight += req.Weight
		all := 0
		for _, n := range o.count {
			all += n
		}
		if o.count[driver.Exclusive] > 0 && all > 1 || o.count[driver.Upgradeable] > 1 ||
			o.count[driver.Permits] > 0 && o.weight > req.Limit {
			x.Errorf("held at once: %d exclusive, %d upgradeable, %d shared, %d of %d permits",
				o.count[driver.Exclusive], o.count[driver.Upgradeable], o.count[driver.Shared], o.weight, req.Limit)
		}
	}
}

func (o *occupancy) leave(req driver.Request) func() {
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.count[req.Mode]--
		o.weight -= req.Weight
	}
}

// mixture has goroutines take and give back a few names through one engine, each time under a context of
// another kind: one that never ends, one that may, and one that does so at any moment. Nobody meets
// another, everybody returns, and nothing stays behind.
func (x *env) mixture() {
	x.Helper()
	e := x.open()
	stuck := time.AfterFunc(x.Slack, func() { // nothing else ends those whose context does not
		x.Errorf("callers with contexts of every kind are not served")
		e.Close()
	})
	defer stuck.Stop()
	names := []string{x.name(), x.name(), x.name()}
	inside := make([]atomic.Int32, len(names))
	var served atomic.Int32
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			for turn := range min(60, x.Rounds) {
				n := (i + turn) % len(names)
				ctx, cancel := x.patience()
				switch (i + turn) % 4 {
				case 0:
					ctx = context.WithoutCancel(ctx)
				case 1:
					time.AfterFunc(time.Duration(turn)*50*time.Microsecond, cancel)
				}
				req := x.exclusive(names[n])
				req.Wait = turn%2 == 0
				g, err := e.Acquire(ctx, req)
				cancel()
				if err != nil {
					var d *driver.Error
					if !errors.As(err, &d) || d.Kind != driver.Held && d.Kind != driver.Unavailable || errors.Is(err, context.DeadlineExceeded) {
						x.Errorf("request among others, which waits %t: %v", req.Wait, err)
					}
					continue
				}
				if inside[n].Add(1) != 1 {
					x.Errorf("two hold %q", names[n])
				}
				inside[n].Add(-1)
				served.Add(1)
				if err := (&share{x: x, engine: e, req: req, grant: g}).tryRelease(); err != nil {
					x.Errorf("release of a held share: %v", err)
				}
			}
		})
	}
	all.Wait()
	if served.Load() == 0 {
		x.Errorf("none of the callers was served")
	}
	for _, name := range names {
		x.free(e, name)
	}
}
