package drivertest

import (
	"slices"

	"github.com/holdfast-go/holdfast/driver"
)

var inspectorCases = []testCase{
	{
		name:     "inspect",
		sentence: "describe every holder of a name, and answer an empty Info for a free one",
		needs:    []ability{inspector},
		run:      testInspect,
	}, {
		name:     "list",
		sentence: "list each name that is held, and no name that is free",
		needs:    []ability{inspector},
		run:      testList,
	}, {
		name:     "break",
		sentence: "take all shares of a name from their holders, so that others may be granted",
		needs:    []ability{inspector},
		run:      testBreak,
	}, {
		name:     "break-fence",
		sentence: "refuse with Stale, and change nothing, when Fence is not 0 and nobody holds that fence",
		needs:    []ability{inspector},
		run:      testBreakFence,
	}, {
		name:     "break-told",
		sentence: "answer Lost to the next renewal of a holder whose share was broken",
		needs:    []ability{inspector},
		run:      testBreakTold,
	}, {
		name:     "break-order",
		sentence: "never let a fence after a break be smaller than one before it",
		needs:    []ability{inspector},
		run:      testBreakOrder,
	},
}

func (x *env) inspect(e driver.Engine, name string) driver.Info {
	x.Helper()
	ctx, cancel := x.patience()
	defer cancel()
	info, err := e.(driver.Inspector).Inspect(ctx, name)
	if err != nil {
		x.Fatalf("Inspect: %v", err)
	}
	return info
}

func (x *env) list(e driver.Engine, prefix string, limit int) []string {
	x.Helper()
	ctx, cancel := x.patience()
	defer cancel()
	infos, err := e.(driver.Inspector).List(ctx, prefix, limit)
	if err != nil {
		x.Fatalf("List: %v", err)
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.Name)
		if len(info.Holders) == 0 {
			x.Errorf("List shows %q without holders", info.Name)
		}
	}
	return names
}

func (x *env) breakName(e driver.Engine, name string, fence int64) (driver.Info, error) {
	ctx, cancel := x.patience()
	defer cancel()
	return e.(driver.Inspector).Break(ctx, driver.BreakRequest{
		Name: name, Fence: fence, By: "drivertest", Reason: "test",
	})
}

// broken breaks a name that is held.
func (x *env) broken(e driver.Engine, name string, fence int64) driver.Info {
	x.Helper()
	info, err := x.breakName(e, name, fence)
	if err != nil {
		x.Fatalf("Break: %v", err)
	}
	return info
}

// empty ends the case unless info describes a free name.
func (x *env) empty(info driver.Info, when string) {
	x.Helper()
	if len(info.Holders) > 0 || info.Limit != 0 || info.Waiters > 0 {
		x.Fatalf("Inspect of a name %s: %+v, want an empty Info", when, info)
	}
}

// together returns requests, one of them of that mode, for shares of one name that coexist.
func (x *env) together(name string, mode driver.Mode) []driver.Request {
	reqs := []driver.Request{x.request(name, mode)}
	switch {
	case mode == driver.Shared:
		reqs = append(reqs, x.request(name, mode), x.request(name, mode))
	case mode == driver.Upgradeable && x.caps.Shared:
		reqs = append(reqs, x.request(name, driver.Shared))
	case mode == driver.Permits:
		reqs = []driver.Request{x.weigh(name, 2, 6), x.weigh(name, 1, 6), x.weigh(name, 3, 6)}
	}
	return reqs
}

// takeTogether has one share of each of those requests granted, by turns to a and to b.
func (x *env) takeTogether(a, b driver.Engine, name string, mode driver.Mode) []*share {
	x.Helper()
	var held []*share
	for i, req := range x.together(name, mode) {
		req.Owner, req.Span = []string{"first", "second", "third"}[i], 4
		held = append(held, x.take([]driver.Engine{a, b}[i%2], req))
	}
	return held
}

func testInspect(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		x.empty(x.inspect(a, name), "that nobody ever held")
		held := x.takeTogether(a, b, name, mode)
		x.describes(x.inspect(b, name), held)
		last := len(held) - 1
		held[last].release()
		x.describes(x.inspect(a, name), held[:last])
		for _, s := range held[:last] {
			s.release()
		}
		x.empty(x.inspect(b, name), "that was released")
		if x.caps.Expires {
			dead := x.take(a, x.short(name, mode))
			if !x.eventually(dead.end(), func() bool { return len(x.inspect(b, name).Holders) == 0 }) {
				x.Fatalf("Inspect shows a %v holder whose share ran out", mode)
			}
			x.empty(x.inspect(b, name), "whose share ran out")
		}
	}
}

// describes ends the case unless info tells of the shares held, in whatever order.
func (x *env) describes(info driver.Info, held []*share) {
	x.Helper()
	if len(held) == 0 {
		x.empty(info, "that was released")
		return
	}
	if info.Name != held[0].req.Name || info.Limit != held[0].req.Limit || len(info.Holders) != len(held) {
		x.Fatalf("Inspect: %+v, want %d holders of %+v", info, len(held), held[0].req)
	}
	for _, s := range held {
		fits := func(h driver.Holder) bool {
			return h.Owner == s.req.Owner && (h.Mode == 0 || h.Mode == s.req.Mode) && h.Weight == s.req.Weight &&
				(h.Fence == 0 || s.grant.Fence <= h.Fence && h.Fence <= s.top()) &&
				(info.Fence == 0 || info.Fence >= s.top())
		}
		if x.caps.Holders && !slices.ContainsFunc(info.Holders, fits) {
			x.Fatalf("Inspect: %+v, want a holder for %+v with %+v", info, s.req, s.grant)
		}
	}
}

func testList(x *env) {
	a, b := x.open(), x.open()
	base := x.name()
	prefix := base + "*%_[a-c]?\\" // a prefix is not a pattern
	var want []string
	for i, suffix := range []string{"", "a", "b", "é", "{c}"} {
		modes := x.modes()
		x.take(a, x.request(prefix+suffix, modes[i%len(modes)]))
		want = append(want, prefix+suffix)
	}
	for _, other := range []string{base, base + "x", base + "xx%_a?\\", base + "*%_[a-c]", base + "*%_A?\\"} {
		x.take(a, x.exclusive(other))
	}
	x.take(a, x.exclusive(prefix+"released")).release()
	x.refused(b, x.exclusive(prefix))
	check := func(limit int, want []string) {
		x.Helper()
		if got := x.list(b, prefix, limit); !slices.Equal(got, want) {
			x.Fatalf("List with limit %d: %q, want %q", limit, got, want)
		}
	}
	slices.Sort(want)
	check(100, want)
	check(len(want), want)
	check(2, want[:2])
	if x.caps.Expires {
		dead := x.take(a, x.short(prefix+"dead", driver.Exclusive))
		gone := func() bool { return !slices.Contains(x.list(b, prefix, 100), prefix+"dead") }
		if !x.eventually(dead.end(), gone) {
			x.Fatalf("List shows a share that ran out")
		}
		check(100, want)
	}
	if got := x.list(b, x.name(), 100); len(got) > 0 {
		x.Fatalf("List of a prefix that no name has: %q", got)
	}
}

func testBreak(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		_, err := x.breakName(c, name, 0)
		x.wantKind(err, "Break of a free name", nil, driver.NotHeld)
		held := x.takeTogether(a, b, name, mode)
		x.describes(x.broken(c, name, 0), held)
		next := x.take(b, x.exclusive(name))
		for _, s := range held {
			s.notHeld()
		}
		next.alive()
		next.release()
		_, err = x.breakName(c, name, 0)
		x.wantKind(err, "Break of a free name", nil, driver.NotHeld)

		// Who waits is granted what was broken.
		x.takeTogether(a, b, name, mode)
		waiting := x.queue(b, x.exclusive(name))
		x.broken(c, name, 0)
		waiting.granted().release()
	}
}

func testBreakFence(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		before := x.take(a, x.request(name, mode))
		before.release()
		held := x.takeTogether(a, b, name, mode)
		for _, fence := range []int64{1, before.top(), held[len(held)-1].top() + 1000} {
			_, err := x.breakName(b, name, fence)
			x.wantKind(err, "Break with fence %d of a share with fence %d", []any{fence, held[0].top()}, driver.Stale)
		}
		for _, s := range held {
			s.alive()
		}
		x.taken(b, name)
		x.broken(b, name, held[0].top())
		x.free(b, name)

		// What Inspect shows is what people break by.
		x.take(a, x.request(name, mode))
		if info := x.inspect(b, name); info.Holders[0].Fence != 0 {
			x.broken(b, name, info.Holders[0].Fence)
			x.free(b, name)
		}
	}
}

func testBreakTold(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		held := x.takeTogether(a, b, name, mode)
		x.broken(b, name, 0)
		for _, s := range held {
			x.wantLost(s.renew(), "of a share that was broken")
		}
		x.free(b, name)

		s := x.take(a, x.request(name, mode))
		x.broken(a, name, s.top())
		next := x.take(b, x.exclusive(name))
		x.wantLost(s.renew(), "of a share that was broken, held by another")
		next.alive()
	}
}

func testBreakOrder(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	var top highest
	for _, mode := range slices.Concat(x.modes(), x.modes()) {
		req := x.request(name, mode)
		req.Span = 64
		s := x.take(a, req)
		top.check(s, "after a break")
		waiting := x.queue(b, x.exclusive(name))
		x.broken(b, name, s.top())
		s = waiting.granted()
		top.check(s, "after a break")
		x.broken(a, name, 0)
	}
}
