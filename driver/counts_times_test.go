package driver_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// TestTimes: a step that is carried out many times answers and keeps what as many steps do, over
// random histories, in which limits, windows and clocks change as well.
func TestTimes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	mixed := map[driver.Rule]int{} // how often some of the times passed and others did not
	for _, rule := range []driver.Rule{
		driver.Total, driver.Raise, driver.Window, driver.FixedWindow, driver.SlidingWindow, driver.Pace, driver.Forget,
	} {
		for range 60 {
			p := newTape(t)
			for range 50 {
				p.now = p.now.Add(time.Duration(random.Int64N(3_000_000)-300_000) * time.Microsecond)
				if rule == driver.Total && random.IntN(20) == 0 {
					p.step(driver.Count{Rule: driver.Raise, N: random.Int64N(100)})
				}
				if p.times(manyTimes(random, rule)) {
					mixed[rule]++
				}
			}
		}
	}
	for _, rule := range []driver.Rule{driver.FixedWindow, driver.SlidingWindow, driver.Pace} {
		if mixed[rule] < 100 {
			t.Errorf("%v let only a part pass %d times: that is too seldom to show anything", rule, mixed[rule])
		}
	}
}

func manyTimes(random *rand.Rand, rule driver.Rule) driver.Count {
	c := driver.Count{Name: "n", Rule: rule, Limit: 1 + random.Int64N(30), Times: random.Int64N(12)}
	c.Window = time.Duration(1+random.IntN(5000)) * time.Millisecond
	c.Burst = 1 + random.Int64N(c.Limit)
	c.N = random.Int64N(min(c.Burst, 5) + 1)
	if rule == driver.Window && random.IntN(3) == 0 {
		c.N = -c.N
	}
	return c
}

// times carries out a step, and reports whether a limit let some of its times pass, but not all.
func (p *tape) times(c driver.Count) (mixed bool) {
	p.t.Helper()
	one, before := *p, string(p.data)
	all := p.step(c)
	single := c
	single.Times = 0
	for i := int64(1); i <= max(1, c.Times); i++ {
		want := one.step(single)
		if got := c.Nth(all, i); got != want {
			p.t.Fatalf("%+v on %q: %+v, of which the one of number %d is %+v: want %+v", c, before, all, i, got, want)
		}
	}
	if string(p.data) != string(one.data) {
		p.t.Fatalf("%+v on %q keeps %q: want %q", c, before, p.data, one.data)
	}
	return all.Passed > 0 && !all.Allowed
}

// TestTimesBeyondTheBound: where a total cannot take all of them it takes none.
func TestTimesBeyondTheBound(t *testing.T) {
	p := newTape(t)
	p.step(driver.Count{Rule: driver.Raise, N: driver.MaxTotal - 5})
	c := driver.Count{Rule: driver.Total, N: 2, Times: 3}
	if a := p.step(c); a.Err == nil || a.Total != driver.MaxTotal-5 || c.Nth(a, 1).Err == nil {
		t.Errorf("beyond the bound: %+v", a)
	}
	c.Times = 2
	if a := p.step(c); a.Err != nil || a.Total != driver.MaxTotal-1 || c.Nth(a, 1).Total != driver.MaxTotal-3 {
		t.Errorf("up to the bound: %+v", a)
	}
	for _, c := range []driver.Count{
		{Rule: driver.Total, N: 1, Times: -1}, {Rule: driver.Total, N: 2, Times: driver.MaxTotal/2 + 1},
		{Rule: driver.Window, N: -2, Times: driver.MaxTotal/2 + 1, Window: time.Second}, {Rule: driver.Total, Times: driver.MaxTotal + 1},
	} {
		if c.Name = "n"; driver.CheckCount(c) == nil {
			t.Errorf("%+v passes", c)
		}
	}
}
