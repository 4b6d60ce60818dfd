package drivertest

import (
	"cmp"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-go/holdfast/driver"
)

var fenceCases = []testCase{
	{
		name:     "fence-grows",
		sentence: "answer a larger Fence than every number that any grant of that name was given before the call",
		run:      testFenceGrows,
	}, {
		name:     "fence-after-release",
		sentence: "keep that order across a release of the name by its last holder",
		run:      testFenceAfterRelease,
	}, {
		name:     "fence-span",
		sentence: "give each grant 1 to Request.Span numbers that no other grant of the name gets",
		run:      testFenceSpan,
	}, {
		name:     "fence-range",
		sentence: "keep every number between 1 and 2^53-1",
		run:      testFenceRange,
	},
}

// highest follows the numbers of one name.
type highest struct{ atomic.Int64 }

// check ends the case unless s has larger numbers than every grant before it.
func (h *highest) check(s *share, when string) {
	s.x.Helper()
	if last := h.Load(); s.grant.Fence <= last {
		s.x.Fatalf("%v share has fence %d %s, want more than %d", s.req.Mode, s.grant.Fence, when, last)
	}
	h.Store(s.top())
}

// raise takes note of a number that others may be ahead of.
func (h *highest) raise(to int64) {
	for last := h.Load(); last < to && !h.CompareAndSwap(last, to); last = h.Load() {
	}
}

func testFenceGrows(x *env) {
	engines := []driver.Engine{x.open(), x.open(), x.open()}
	rng := x.random()
	var top highest
	name, modes := x.name(), x.modes()
	var held []*share
	for range max(60, x.Rounds/5) {
		e := engines[rng.IntN(len(engines))]
		req := x.request(name, modes[rng.IntN(len(modes))])
		req.Span = 1 + rng.IntN(70)
		if len(held) > 0 && rng.IntN(4) == 0 { // a repeated request is a new grant
			again := held[rng.IntN(len(held))]
			e, req = again.engine, again.req
		}
		g, err := x.ask(e, req)
		if err == nil {
			s := &share{x: x, engine: e, req: req, grant: g}
			top.check(s, "after others")
			if !slices.ContainsFunc(held, func(h *share) bool { return h.req.Token == req.Token }) {
				held = append(held, s)
			}
			continue
		}
		if len(held) == 0 {
			x.Fatalf("request for a free name: %v", err)
		}
		i := rng.IntN(len(held))
		held[i].release()
		held = slices.Delete(held, i, i+1)
	}
	for _, s := range held {
		s.release()
	}
	if x.caps.Expires {
		s := x.take(engines[0], x.short(name, driver.Exclusive))
		top.check(s, "after a release")
		top.check(x.freed(engines[1], x.exclusive(name), s.end(), s.end()), "after one ran out")
	}

	var floor highest
	name = x.name()
	x.crowd(12, func(rng *mathrand.Rand) visit {
		req := x.request(name, modes[rng.IntN(min(2, len(modes)))])
		req.Span = 1 + rng.IntN(70)
		before := floor.Load()
		return visit{req: req, leave: func() {}, enter: func(g driver.Grant) {
			if g.Fence <= before {
				x.Errorf("fence is %d, want more than %d, which was granted before the call", g.Fence, before)
			}
			floor.raise(req.Claim(g).Fence)
		}}
	})
}

func testFenceAfterRelease(x *env) {
	name := x.name()
	var top highest
	for _, mode := range slices.Concat(x.modes(), x.modes()) {
		// A new engine each time: the order is the name's, not that of an engine.
		e := x.open()
		for range 3 {
			req := x.request(name, mode)
			req.Span = 10
			s := x.take(e, req)
			top.check(s, "after a release")
			s.release()
		}
		if err := e.Close(); err != nil {
			x.Fatalf("Close: %v", err)
		}
	}
}

func testFenceSpan(x *env) {
	type numbers struct{ first, last int64 }
	var mu sync.Mutex
	var all []numbers
	note := func(req driver.Request, g driver.Grant) {
		if g.FenceSpan < 1 || g.FenceSpan > req.Span {
			x.Errorf("FenceSpan is %d, want 1 to %d", g.FenceSpan, req.Span)
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, numbers{g.Fence, req.Claim(g).Fence})
	}
	name, modes, e := x.name(), x.modes(), x.open()
	for _, span := range []int{1, 2, 64, 1000, 1, 1, 64, 64} {
		req := x.exclusive(name)
		req.Span = span
		s := x.take(e, req)
		note(req, s.grant)
		x.pass(x.Pause / 10)
		s.release()
	}
	x.crowd(12, func(rng *mathrand.Rand) visit {
		req := x.request(name, modes[rng.IntN(len(modes))])
		req.Span = 1 + rng.IntN(64)
		return visit{req: req, enter: func(g driver.Grant) { note(req, g) }, leave: func() {}}
	})
	slices.SortFunc(all, func(a, b numbers) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(all); i++ {
		if all[i].first <= all[i-1].last {
			x.Fatalf("one grant has the fences %d to %d and another %d to %d",
				all[i-1].first, all[i-1].last, all[i].first, all[i].last)
		}
	}
}

func testFenceRange(x *env) {
	const largest = 1<<53 - 1 // what a float64 counts up to without gaps
	e := x.open()
	for _, mode := range x.modes() {
		for _, span := range []int{1, 64, 1 << 20} {
			req := x.request(x.name(), mode)
			req.Span = span
			s := x.take(e, req)
			if s.grant.Fence < 1 || s.top() > largest {
				x.Errorf("fences are %d to %d, want them within 1 to %d", s.grant.Fence, s.top(), int64(largest))
			}
		}
	}
}
