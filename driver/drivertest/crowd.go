package drivertest

import (
	mathrand "math/rand/v2"
	"sync"

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
