package drivertest

import (
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
)

var exclusionCases = []testCase{
	{
		name:     "exclusive",
		sentence: "grant an Exclusive share only while nobody else holds any share of that name",
		run:      testExclusive,
	}, {
		name:     "shared",
		sentence: "let Shared shares of one name coexist",
		needs:    []ability{shared},
		run:      testShared,
	}, {
		name:     "upgradeable",
		sentence: "let at most one Upgradeable share of a name coexist with Shared ones",
		needs:    []ability{upgradeable, shared},
		run:      testUpgradeable,
	}, {
		name:     "permits",
		sentence: "grant Permits only while the weights held add up to Limit or less",
		needs:    []ability{permits},
		run:      testPermits,
	}, {
		name:     "limit-mismatch",
		sentence: "refuse a limit that differs from the one in use with Invalid",
		needs:    []ability{permits},
		run:      testLimitMismatch,
	}, {
		name:     "kinds",
		sentence: "never let Permits coexist with a share of another mode",
		needs:    []ability{permits},
		run:      testKinds,
	}, {
		name:     "names",
		sentence: "keep any two different names apart",
		run:      testNames,
	}, {
		name:     "race",
		sentence: "grant to exactly one of many concurrent exclusive requests",
		run:      testRace,
	},
}

func testExclusive(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		other := x.take(a, x.request(name, mode))
		x.taken(a, name)
		x.taken(b, name)
		other.release()

		excl := x.take(b, x.exclusive(name))
		x.refused(a, x.request(name, mode))
		x.refused(b, x.request(name, mode))
		excl.release()
		x.take(a, x.request(name, mode))
	}

	// The same under load, with everybody waiting for everybody.
	var seen occupancy
	modes := slices.DeleteFunc(x.modes(), func(m driver.Mode) bool { return m == driver.Permits })
	name := x.name()
	x.crowd(12, func(rng *mathrand.Rand) visit {
		req := x.request(name, modes[rng.IntN(len(modes))])
		return visit{req: req, enter: seen.enter(x, req), leave: seen.leave(req)}
	})
}

func testShared(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	first := x.take(a, x.request(name, driver.Shared))
	second := x.take(a, x.request(name, driver.Shared))
	third := x.take(b, x.request(name, driver.Shared))
	for _, s := range []*share{second, first, third} {
		x.taken(a, name)
		x.taken(b, name)
		s.release()
	}
	x.free(b, name)
}

func testUpgradeable(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	reader := x.take(a, x.request(name, driver.Shared))
	up := x.take(a, x.request(name, driver.Upgradeable))
	late := x.take(b, x.request(name, driver.Shared))
	x.refused(a, x.request(name, driver.Upgradeable))
	x.refused(b, x.request(name, driver.Upgradeable))
	reader.release()
	late.release()
	x.refused(b, x.request(name, driver.Upgradeable))
	x.taken(b, name)
	up.release()
	x.take(b, x.request(name, driver.Upgradeable))
}

func testPermits(x *env) {
	a, b := x.open(), x.open()
	rng := x.random()

	// One at a time, so that it is known what fits: what fits is granted, the rest is not.
	const limit = 7
	name, used := x.name(), 0
	var held []*share
	for range 60 {
		e := []driver.Engine{a, b}[rng.IntN(2)]
		req := x.weigh(name, 1+rng.IntN(limit), limit)
		if used+req.Weight <= limit {
			held = append(held, x.take(e, req))
			used += req.Weight
			continue
		}
		x.refused(e, req)
		i := rng.IntN(len(held))
		held[i].release()
		used -= held[i].req.Weight
		held = slices.Delete(held, i, i+1)
	}

	var seen occupancy
	name = x.name()
	x.crowd(12, func(rng *mathrand.Rand) visit {
		req := x.weigh(name, 1+rng.IntN(limit), limit)
		return visit{req: req, enter: seen.enter(x, req), leave: seen.leave(req)}
	})
}

func testLimitMismatch(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	first := x.take(a, x.weigh(name, 1, 3))
	for _, limit := range []int{1, 2, 4, 5} {
		x.fails(a, x.weigh(name, 1, limit), driver.Invalid)
		waiting := x.weigh(name, 1, limit)
		waiting.Wait = true
		x.fails(b, waiting, driver.Invalid)
	}
	x.take(b, x.weigh(name, 2, 3)).release()
	first.release()
	x.take(b, x.weigh(name, 4, 4)) // nobody uses the old limit any more
}

func testKinds(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		if mode == driver.Permits {
			continue
		}
		name := x.name()
		some := x.take(a, x.weigh(name, 1, 3))
		x.fails(b, x.request(name, mode), driver.Held, driver.Invalid)
		some.release()
		other := x.take(b, x.request(name, mode))
		x.fails(a, x.weigh(name, 1, 3), driver.Held, driver.Invalid)
		other.release()
		x.take(a, x.weigh(name, 1, 3))
	}
}

func testNames(x *env) {
	a, b := x.open(), x.open()
	names := hostileNames()
	held := make([]*share, len(names))
	for i, name := range names {
		if err := driver.CheckName(name); err != nil {
			x.Fatalf("bad test: %v", err)
		}
		held[i] = x.take(a, x.exclusive(name)) // refused when it is confused with one before
	}
	for i, name := range names {
		x.taken(b, name)
		held[i].release() // must not free a name that comes later
		x.free(b, name)
	}
}

// hostileNames are pairwise different, and each is close to another or has a meaning of its
// own somewhere: in a path, a pattern, a query, a shell, a key of Redis.
func hostileNames() []string {
	long := strings.Repeat("n", driver.MaxName-1)
	names := []string{
		"a", "A", "a/", "/a", "a/b", "A/B", "a//b", "a\\b", "a%2Fb", "a%2fb", "a:b", "a|b", "a.b", "a_b", "a-b",
		".", "..", "...", "../a", "./a", "a/..", "a/.", "~", "-", "--", "-rf", "a.", "a..", "a.lock",
		" ", "  ", " a", "a ", "a  ", "\u00a0", "a\u00a0",
		"'", "''", "\"", "a'--", "`", "$a", "$(a)", ";", "#", "&", "?", "!",
		"%", "%%", "%a", "%s", "%00", "*", "a*", "[a]", "_",
		"{a}", "{a}b", "{b}a", "{", "}", "{}",
		"con", "CON", "nul", "com1", "aux.txt", "null", "nil", "true", "0", "00", "-1", "1e1", "10",
		"k", "K", "\u212a", // the Kelvin sign folds to k
		"s", "\u017f", "ss", "ß", "ẞ", // so does the long s to s
		"i", "I", "ı", "İ",
		"\u00e9", "e\u0301", "é́", "e", // composed, decomposed
		"ﬁ", "fi", "Å", "\u212b", "A\u030a",
		"😀", "😁", "👍", "👍🏽", "❤", "❤\ufe0f",
		"a\u200b", "\u200ba", "\ufeffa", "a\u2028", "\u202ea", "\ufffd", "\U0010ffff",
		long, long + "a", long + "b", long + "A", long[1:] + "c",
		strings.Repeat("é", driver.MaxName/2), strings.Repeat("😀", driver.MaxName/4),
	}
	for _, n := range []int{63, 64, 127, 128, 250, 255, 256} { // where systems cut
		names = append(names, strings.Repeat("x", n), strings.Repeat("x", n)+"y")
	}
	return names
}

func testRace(x *env) {
	engines := []driver.Engine{x.open(), x.open(), x.open(), x.open()}
	const racers = 32
	for range max(1, x.Rounds/20) {
		name := x.name()
		start := make(chan struct{})
		grants := make(chan *share, racers)
		var all sync.WaitGroup
		for i := range racers {
			req, e := x.exclusive(name), engines[i%len(engines)]
			all.Go(func() {
				<-start
				if g, err := x.ask(e, req); err == nil {
					grants <- &share{x: x, engine: e, req: req, grant: g}
				}
			})
		}
		close(start)
		all.Wait()
		if n := len(grants); n != 1 {
			x.Fatalf("%d of %d concurrent exclusive requests were granted, want 1", n, racers)
		}
		(<-grants).release()
	}
}
