package driver_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// tape counts under one name at times of its own.
type tape struct {
	t    *testing.T
	data []byte
	now  time.Time
}

func newTape(t *testing.T) *tape { return &tape{t: t, now: time.UnixMicro(1_760_000_000_123_456)} }

func (p *tape) step(c driver.Count) driver.Counted {
	p.t.Helper()
	c.Name = "n"
	if err := driver.CheckCount(c); err != nil {
		p.t.Fatal(err)
	}
	keep, ttl, answer := c.Apply(p.data, p.now)
	if keep == nil && ttl != 0 || ttl < 0 || ttl != answer.ResetAfter && answer.Err == nil {
		p.t.Fatalf("%v keeps %q for %v: answer %+v", c.Rule, keep, ttl, answer)
	}
	p.data = keep
	return answer
}

func TestTotal(t *testing.T) {
	p := newTape(t)
	if a := p.step(driver.Count{Rule: driver.Total, N: 5}); !a.Unproven || a.Total != 0 || p.data != nil {
		t.Errorf("the first step: %+v, keeps %q", a, p.data)
	}
	if a := p.step(driver.Count{Rule: driver.Raise, N: 41}); a.Total != 41 || a.Unproven {
		t.Errorf("Raise: %+v", a)
	}
	if a := p.step(driver.Count{Rule: driver.Raise, N: 7}); a.Total != 41 {
		t.Errorf("Raise to less: %+v", a)
	}
	if a := p.step(driver.Count{Rule: driver.Total, N: 1}); a.Total != 42 || a.Unproven {
		t.Errorf("Total: %+v", a)
	}
	if a := p.step(driver.Count{Rule: driver.Total, N: driver.MaxTotal}); a.Err == nil || a.Total != 42 {
		t.Errorf("beyond the largest total: %+v", a)
	}
	if a := p.step(driver.Count{Rule: driver.Forget}); a != (driver.Counted{}) || p.data != nil {
		t.Errorf("Forget: %+v, keeps %q", a, p.data)
	}
}

func TestWindow(t *testing.T) {
	p := newTape(t)
	c := driver.Count{Rule: driver.Window, N: 3, Window: time.Minute}
	p.step(c)
	p.now = p.now.Add(20 * time.Second)
	if a := p.step(c); a.Total != 6 || a.ResetAfter != 40*time.Second {
		t.Errorf("within the window: %+v", a)
	}
	c.N = -6
	if a := p.step(c); a.Total != 0 || a.ResetAfter != 40*time.Second {
		t.Errorf("a total of zero still has its window: %+v", a)
	}
	p.now, c.N = p.now.Add(40*time.Second), 3
	if a := p.step(c); a.Total != 3 || a.ResetAfter != time.Minute {
		t.Errorf("in the next window: %+v", a)
	}
	p.now = p.now.Add(-time.Hour)
	if a := p.step(c); a.Total != 6 || a.ResetAfter != time.Minute {
		t.Errorf("after the clock went back: %+v", a)
	}
}

// TestLimits counts at random and checks against a list of everything that was let through:
// what RetryAfter promises, and that no window had more than the rule lets.
// A look changes nothing: neither does it begin a window, nor end one whose total is 0 again.
func TestWindowLooks(t *testing.T) {
	p := newTape(t)
	look := driver.Count{Rule: driver.Window, Window: time.Minute}
	if a := p.step(look); a != (driver.Counted{}) || p.data != nil {
		t.Errorf("a look at nothing: %+v, keeps %q", a, p.data)
	}
	for _, n := range []int64{5, -5} {
		p.step(driver.Count{Rule: driver.Window, Window: time.Minute, N: n})
	}
	before := string(p.data)
	p.now = p.now.Add(20 * time.Second)
	if a := p.step(look); a.ResetAfter != 40*time.Second || string(p.data) != before {
		t.Errorf("a look at a window with nothing in it: %+v, keeps %q instead of %q", a, p.data, before)
	}
	p.now = p.now.Add(40 * time.Second)
	if a := p.step(look); a != (driver.Counted{}) || p.data != nil {
		t.Errorf("a look at a window that is over: %+v, keeps %q", a, p.data)
	}
}

func TestLimits(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	rules := []struct {
		rule driver.Rule
		most func(driver.Count) int64 // in any stretch of time as long as a window, the ends included
	}{
		{driver.FixedWindow, func(c driver.Count) int64 { return 2 * c.Limit }},
		{driver.SlidingWindow, func(c driver.Count) int64 { return 2 * c.Limit }},
		{driver.Pace, func(c driver.Count) int64 { return c.Limit + c.Burst }},
	}
	for _, r := range rules {
		t.Run(r.rule.String(), func(t *testing.T) {
			for range 100 {
				p := newTape(t)
				c := driver.Count{Rule: r.rule, Limit: 1 + random.Int64N(20), Window: time.Duration(1+random.IntN(5000)) * time.Millisecond}
				c.Burst = 1 + random.Int64N(c.Limit)
				p.limits(c, random, r.most(c))
			}
		})
	}
}

func (p *tape) limits(c driver.Count, random *rand.Rand, most int64) {
	type passed struct {
		at time.Time
		n  int64
	}
	var log []passed
	largest := c.Limit
	if c.Rule == driver.Pace {
		largest = c.Burst
	}
	for range 300 {
		p.now = p.now.Add(time.Duration(random.Int64N(int64(c.Window)/4 + 1)))
		c.N = random.Int64N(largest + 1)
		look := c
		look.N = 0
		before := p.step(look)
		a := p.step(c)
		switch {
		case a.Allowed != (c.N <= before.Remaining) && c.N > 0:
			p.t.Fatalf("%d of %+v: %+v, and a look before said %+v", c.N, c, a, before)
		case a.Allowed:
			log = append(log, passed{p.now, c.N})
			if a.RetryAfter != 0 || a.Remaining != before.Remaining-c.N {
				p.t.Fatalf("%+v after %+v", a, before)
			}
		default:
			early, late := *p, *p
			early.now, late.now = p.now.Add(a.RetryAfter-time.Millisecond), p.now.Add(a.RetryAfter)
			if a.RetryAfter <= 0 || !late.step(c).Allowed {
				p.t.Fatalf("%+v: refused until %v, and then again", c, a.RetryAfter)
			}
			if a.RetryAfter > time.Millisecond && early.step(c).Allowed {
				p.t.Fatalf("%+v: refused until %v, and passed earlier", c, a.RetryAfter)
			}
		}
		var sum int64
		for _, l := range log {
			if p.now.Sub(l.at) < c.Window {
				sum += l.n
			}
		}
		if sum > most {
			p.t.Fatalf("%+v let %d pass in %v: at most %d", c, sum, c.Window, most)
		}
		if free := *p; a.ResetAfter > 0 {
			free.now = p.now.Add(a.ResetAfter)
			look.N = 0
			if f := free.step(look); f.Remaining != largest && f.Remaining != c.Limit {
				p.t.Fatalf("%+v has not forgotten everything after %v: %+v", c, a.ResetAfter, f)
			}
		}
	}
}

func TestRulesDoNotMix(t *testing.T) {
	for _, data := range []string{"t 5", "w 5 1", "s 1 2 3", "p 7", "x", " ", "t", "t x", "t 1 2", "t 9223372036854775807", "\x00"} {
		for _, rule := range []driver.Rule{driver.Total, driver.Window, driver.FixedWindow, driver.SlidingWindow, driver.Pace} {
			c := driver.Count{Name: "n", Rule: rule, N: 1, Limit: 5, Burst: 5, Window: time.Second}
			keep, _, a := c.Apply([]byte(data), time.Now())
			fits := data == "t 5" && rule == driver.Total || data == "w 5 1" && (rule == driver.Window || rule == driver.FixedWindow) ||
				data == "s 1 2 3" && rule == driver.SlidingWindow || data == "p 7" && rule == driver.Pace
			var d *driver.Error
			if fits && a.Err != nil || !fits && (!errors.As(a.Err, &d) || d.Kind != driver.Invalid || string(keep) != data) {
				t.Errorf("%v on %q: %+v, keeps %q", rule, data, a, keep)
			}
			if keep, _, a := (driver.Count{Rule: driver.Forget}).Apply([]byte(data), time.Now()); keep != nil || a.Err != nil {
				t.Errorf("Forget of %q: %+v, keeps %q", data, a, keep)
			}
		}
	}
}

func TestCheckCount(t *testing.T) {
	good := driver.Count{Name: "n", Rule: driver.Pace, N: 1, Limit: 5, Burst: 5, Window: time.Second}
	if err := driver.CheckCount(good); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*driver.Count){
		"no name":          func(c *driver.Count) { c.Name = "" },
		"no rule":          func(c *driver.Count) { c.Rule = 0 },
		"unknown rule":     func(c *driver.Count) { c.Rule = driver.Forget + 1 },
		"negative":         func(c *driver.Count) { c.N = -1 },
		"huge":             func(c *driver.Count) { c.Rule, c.N = driver.Total, driver.MaxTotal+1 },
		"no limit":         func(c *driver.Count) { c.Limit = 0 },
		"huge limit":       func(c *driver.Count) { c.Limit = driver.MaxLimit + 1 },
		"more than passes": func(c *driver.Count) { c.N = 6 },
		"no burst":         func(c *driver.Count) { c.Burst = 0 },
		"large burst":      func(c *driver.Count) { c.Burst = 6 },
		"no window":        func(c *driver.Count) { c.Window = 0 },
		"uneven window":    func(c *driver.Count) { c.Window = time.Second + 1 },
		"long window":      func(c *driver.Count) { c.Window = 25 * time.Hour },
		"fast pace":        func(c *driver.Count) { c.Window, c.Limit = time.Millisecond, 1001 },
	} {
		c := good
		spoil(&c)
		if driver.CheckCount(c) == nil {
			t.Errorf("%s: %+v passes", what, c)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte("s 1 2 3"), uint8(5), int64(3), int64(10), int64(5), int64(1000))
	f.Fuzz(func(t *testing.T, data []byte, rule uint8, n, limit, burst, window int64) {
		c := driver.Count{Name: "n", Rule: driver.Rule(rule), N: n, Limit: limit, Burst: burst, Window: time.Duration(window) * time.Millisecond}
		if driver.CheckCount(c) != nil {
			return
		}
		now := time.UnixMicro(1_760_000_000_123_456)
		keep, ttl, a := c.Apply(data, now)
		if ttl < 0 || a.Remaining < 0 || a.RetryAfter < 0 || a.ResetAfter < 0 || a.Allowed && a.Err != nil {
			t.Fatalf("%+v on %q: %+v, keeps %q for %v", c, data, a, keep, ttl)
		}
		if _, _, again := c.Apply(keep, now); a.Err == nil && again.Err != nil && c.Rule != driver.Total && c.Rule != driver.Window {
			t.Fatalf("%+v cannot read what it kept, %q: %v", c, keep, again.Err)
		}
	})
}
