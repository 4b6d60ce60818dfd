package drivertest

import (
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var counterCases = []testCase{
	{
		name:     "count",
		sentence: "answer each step as Count.Apply does, at a time of the engine's clock between the call and its return",
		needs:    []ability{counters},
		run:      testCount,
	}, {
		name:     "count-order",
		sentence: "carry out the steps of one call on one name in their order, and answer all in order, one failure not touching the others",
		needs:    []ability{counters},
		run:      testCountOrder,
	}, {
		name:     "count-race",
		sentence: "count every step of concurrent calls once",
		needs:    []ability{counters},
		run:      testCountRace,
	}, {
		name:     "count-names",
		sentence: "keep what is counted under any two names apart, and apart from the locks and values of those names",
		needs:    []ability{counters},
		run:      testCountNames,
	}, {
		name:     "count-close",
		sentence: "answer Closed to every step after Close",
		needs:    []ability{counters},
		run:      testCountClose,
	},
}

// count makes one call, and forgets what it counted when the case is over.
func (x *env) count(e driver.Engine, steps ...driver.Count) []driver.Counted {
	x.Helper()
	ctx, cancel := x.patience()
	defer cancel()
	answers := e.(driver.Counters).Count(ctx, steps)
	if len(answers) != len(steps) {
		x.Fatalf("Count of %d steps returned %d answers", len(steps), len(answers))
	}
	return answers
}

// counted carries out one step that has to succeed.
func (x *env) counted(e driver.Engine, step driver.Count) driver.Counted {
	x.Helper()
	answer := x.count(e, step)[0]
	if answer.Err != nil {
		x.Fatalf("%v of %d: %v", step.Rule, step.N, answer.Err)
	}
	return answer
}

// counter returns a name to count under.
func (x *env) counter() string {
	name := x.name()
	e := x.open()
	x.Cleanup(func() { x.count(e, driver.Count{Name: name, Rule: driver.Forget}) })
	return name
}

// reference counts as the contract says, beside the engine.
type reference map[string][]byte

func (r reference) apply(step driver.Count) driver.Counted {
	keep, _, answer := step.Apply(r[step.Name], time.Now())
	r[step.Name] = keep
	return answer
}

// testCount carries out random steps on windows that do not end within the case, and compares
// with the reference. Times may differ by as much as the case has lasted.
func testCount(x *env) {
	e := x.open()
	random := x.random()
	ref := reference{}
	const hour = time.Hour
	templates := []driver.Count{
		{Rule: driver.Total}, {Rule: driver.Raise}, {Rule: driver.Window, Window: hour},
		{Rule: driver.FixedWindow, Window: hour, Limit: 20}, {Rule: driver.SlidingWindow, Window: hour, Limit: 20},
		{Rule: driver.Pace, Window: hour, Limit: 60, Burst: 10},
	}
	names := make([]string, len(templates))
	for i := range names {
		names[i] = x.counter()
	}
	names[1] = names[0]
	began := time.Now()
	for range 200 {
		k := random.IntN(len(templates))
		step := templates[k]
		step.Name, step.N, step.Times = names[k], random.Int64N(8), random.Int64N(5)
		if random.IntN(50) == 0 {
			step = driver.Count{Name: names[k], Rule: driver.Forget}
		}
		want, got := ref.apply(step), x.count(e, step)[0]
		x.sameCount(step, got, want, time.Since(began)+time.Second)
	}
	x.testCountEnds(e)
}

// sameCount ends the case unless got is want, but for times that differ by late.
func (x *env) sameCount(step driver.Count, got, want driver.Counted, late time.Duration) {
	x.Helper()
	off := func(a, b time.Duration) bool {
		return (a-b).Abs() > late || (a == 0) != (b == 0)
	}
	if off(got.RetryAfter, want.RetryAfter) || off(got.ResetAfter, want.ResetAfter) {
		x.Fatalf("%v of %d: answer %+v, want times as in %+v", step.Rule, step.N, got, want)
	}
	got.RetryAfter, got.ResetAfter, want.RetryAfter, want.ResetAfter = 0, 0, 0, 0
	if fmt.Sprint(got) != fmt.Sprint(want) {
		x.Fatalf("%v of %d: answer %+v, want %+v", step.Rule, step.N, got, want)
	}
}

// testCountEnds shows that windows end.
func (x *env) testCountEnds(e driver.Engine) {
	x.Helper()
	window := x.TTL.Round(time.Millisecond)
	for _, step := range []driver.Count{
		{Rule: driver.Window, N: 1}, {Rule: driver.FixedWindow, N: 3, Limit: 3},
		{Rule: driver.SlidingWindow, N: 3, Limit: 3}, {Rule: driver.Pace, N: 3, Limit: 3, Burst: 3},
	} {
		step.Name, step.Window = x.counter(), window
		x.counted(e, step)
		x.pass(2 * window)
		for end := x.clock.Now().Add(x.Slack); ; x.pass(x.Pause) {
			answer := x.counted(e, step)
			if step.Rule == driver.Window && answer.Total == 1 || answer.Allowed {
				break
			}
			if x.clock.Now() > end {
				x.Fatalf("%v has not ended: %+v", step.Rule, answer)
			}
		}
	}
}

func testCountOrder(x *env) {
	e := x.open()
	one, two := x.counter(), x.counter()
	add := func(name string, n int64) driver.Count { return driver.Count{Name: name, Rule: driver.Total, N: n} }
	x.counted(e, driver.Count{Name: one, Rule: driver.Raise, N: 10})
	x.counted(e, driver.Count{Name: two, Rule: driver.Raise, N: 100})
	wrong := driver.Count{Name: one, Rule: driver.Window, N: 1, Window: time.Hour}
	answers := x.count(e, add(one, 1), add(two, 1), wrong, add(one, 2), add(two, 2), add(one, 3))
	for i, want := range []int64{11, 101, 0, 13, 103, 16} {
		if i == 2 {
			x.wantKind(answers[i].Err, "a step under another rule", nil, driver.Invalid)
		} else if answers[i].Err != nil || answers[i].Total != want {
			x.Errorf("step %d answered %+v: want a total of %d", i, answers[i], want)
		}
	}
}

func testCountRace(x *env) {
	const users, rounds, steps = 4, 25, 5
	name := x.counter()
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]bool{}
	x.counted(x.open(), driver.Count{Name: name, Rule: driver.Raise})
	for range users {
		e := x.open()
		all.Go(func() {
			for range rounds {
				batch := make([]driver.Count, steps)
				for i := range batch {
					batch[i] = driver.Count{Name: name, Rule: driver.Total, N: 1}
				}
				ctx, cancel := x.patience()
				answers := e.(driver.Counters).Count(ctx, batch)
				cancel()
				mu.Lock()
				for _, a := range answers {
					if a.Err != nil || seen[a.Total] {
						x.Errorf("a step answered %+v, and that total before: %v", a, seen[a.Total])
					}
					seen[a.Total] = true
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if total := x.counted(x.open(), driver.Count{Name: name, Rule: driver.Total}).Total; total != users*rounds*steps {
		x.Errorf("%d steps were counted as %d", users*rounds*steps, total)
	}
}

func testCountNames(x *env) {
	a, b := x.open(), x.open()
	one := x.counter()
	names := []string{one, one + " ", one + ":c", "c:" + one, one + "/c", "{" + one + "}", one + "*"}
	held := x.take(a, x.exclusive(one))
	for i, name := range names {
		x.Cleanup(func() { x.count(b, driver.Count{Name: name, Rule: driver.Forget}) })
		x.counted(a, driver.Count{Name: name, Rule: driver.Raise, N: int64(100 + i)})
	}
	if _, ok := a.(driver.Values); ok {
		v := x.put(a, one, "value")
		x.counted(b, driver.Count{Name: one, Rule: driver.Total})
		x.stores(b, one, "value", v.Version)
	}
	for i, name := range names {
		if got := x.counted(b, driver.Count{Name: name, Rule: driver.Total}); got.Total != int64(100+i) {
			x.Errorf("under %q %+v was counted: want %d", name, got, 100+i)
		}
	}
	held.alive()
	held.release()
	x.counted(a, driver.Count{Name: one, Rule: driver.Forget})
	if got := x.counted(b, driver.Count{Name: one, Rule: driver.Total}); !got.Unproven {
		x.Errorf("after Forget %+v is counted", got)
	}
	if got := x.counted(b, driver.Count{Name: names[1], Rule: driver.Total}); got.Total != 101 {
		x.Errorf("Forget of one name left %+v under another", got)
	}
	x.free(a, one)
}

func testCountClose(x *env) {
	e := x.open()
	name := x.counter()
	if err := e.Close(); err != nil {
		x.Fatalf("Close: %v", err)
	}
	step := driver.Count{Name: name, Rule: driver.Total, N: 1}
	for _, answer := range x.count(e, step, step) {
		x.wantKind(answer.Err, "a step after Close", nil, driver.Closed)
	}
}
