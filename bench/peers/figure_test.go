package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var whole, half, other histogram
	for i := range 20_000 {
		d := time.Duration(math.Exp(random.Float64() * 20)) // 1 ns to half a second
		all = append(all, d)
		whole.add(d)
		if i%2 == 0 {
			half.add(d)
		} else {
			other.add(d)
		}
	}
	half.merge(&other)
	data, err := json.Marshal(&half)
	if err != nil {
		t.Fatal(err)
	}
	var read histogram
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.9999} {
		want := all[int(q*float64(len(all)))]
		for name, h := range map[string]*histogram{"whole": &whole, "merged": &half, "read": &read} {
			if got := h.quantile(q); math.Abs(float64(got-want)) > 0.01*float64(want)+0.5 {
				t.Errorf("%s: quantile %v is %v, not %v", name, q, got, want)
			}
		}
	}
	if read != half || whole != half {
		t.Error("merging or writing changed counts")
	}
	var none histogram
	if none.quantile(0.5) != 0 {
		t.Error("a quantile of nothing is not 0")
	}
	for _, d := range []time.Duration{-1, math.MaxInt64} {
		none.add(d) // at either end
	}
	if none.n != 2 {
		t.Error("durations out of range are not counted")
	}
}

func TestBucketsAreInOrder(t *testing.T) {
	last := -1
	for v := time.Duration(0); v < 1<<41; v += v/300 + 1 {
		b := bucketOf(v)
		if b < last || b >= coarse*fine {
			t.Fatalf("%v is in bucket %d, what is shorter in %d", v, b, last)
		}
		last = b
	}
}

// cells makes samples of one worker each that did so many cycles in a second; a negative
// number stands for a cell that failed.
func cells(cycles ...int) (all []*sample) {
	for _, n := range cycles {
		if n < 0 {
			all = append(all, nil)
			continue
		}
		all = append(all, &sample{Workers: []*result{{Seconds: 1, Cycles: uint64(n), Served: []uint64{uint64(n)}, Acquire: new(histogram), Handover: new(histogram)}}})
	}
	return all
}

func TestFiguresAreOfTheSameRound(t *testing.T) {
	f := figureOf(rate, cells(10, 40, -1, 90), cells(5, 10, 1, 30))
	if f.Median != 40 || f.Min != 10 || f.Max != 90 || f.Ratio != 3 {
		t.Errorf("%+v", f)
	}
	if f := figureOf(rate, cells(-1), nil); f != (figure{}) {
		t.Errorf("of nothing: %+v", f)
	}
	got := ratios(rate, cells(10, 10, 10, 10), cells(5, 2, -1))
	if !slices.Equal(got, []float64{2, 5}) {
		t.Errorf("ratios: %v", got)
	}
	o := &outcome{samples: map[string][]*sample{"lucky": cells(1, 9, 1), "good": cells(3, 3, 3), "failed": cells(-1, -1, -1)}}
	if best := o.best([]string{"failed", "lucky", "good", "absent"}, rate); best != "good" {
		t.Errorf("the best is %s", best)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median %v", m)
	}
}

func TestTargets(t *testing.T) {
	o := &outcome{pattern: pattern{name: "b"}, samples: map[string][]*sample{
		"holdfast": cells(130, 125), "redsync-goredis-ap": cells(100, 100), "redsync-goredis": cells(60, 60),
	}}
	var got []bool
	for _, v := range judge(onRedis.targets, []*outcome{o}) {
		got = append(got, v.Met)
	}
	if !slices.Equal(got, []bool{true, false}) {
		t.Errorf("verdicts %v: 1.275 of 1.2 is met, 2.125 of 2.5 is not, and what was not measured is not judged", got)
	}
	idle := &outcome{pattern: pattern{name: "d"}, samples: map[string][]*sample{"holdfast": cells(99, 101), "peer": cells(0, 0)}}
	atLeast := []target{{pattern: "d", value: rate, to: []string{"peer"}, limit: 100, least: true}}
	if v := judge(atLeast, []*outcome{idle}); len(v) != 1 || !v[0].Met || v[0].Median != 100 {
		t.Errorf("to a peer that did nothing: %+v", v)
	}
	idle.samples["holdfast"] = cells(-1, -1)
	if v := judge(atLeast, []*outcome{idle}); len(v) != 1 || v[0].Met {
		t.Errorf("of cells that failed: %+v", v)
	}
	atMost := []target{{pattern: "d", value: rate, limit: 100}}
	if v := judge(atMost, []*outcome{idle}); len(v) != 1 || v[0].Met {
		t.Errorf("of cells that failed, at most: %+v", v)
	}
	for _, p := range products {
		for _, tg := range p.targets {
			if len(tg.to) == 0 && tg.limit > 0 && tg.least && tg.pattern != "d" {
				t.Errorf("%s: %s %s is to be at least %v of nothing", p.name, tg.pattern, tg.what, tg.limit)
			}
		}
	}
}

func TestProductsNameWhatThereIs(t *testing.T) {
	for _, p := range products {
		if a, err := p.adapter("holdfast"); err != nil || a.kind != ours {
			t.Errorf("%s: holdfast is %q: %v", p.name, a.kind, err)
		}
		for _, w := range p.patterns {
			for _, name := range append(slices.Clone(w.adapters), w.base) {
				if _, err := p.adapter(name); err != nil {
					t.Errorf("%s: pattern %s: %v", p.name, w.name, err)
				}
			}
			if !slices.Contains(w.adapters, w.base) || !slices.Contains(w.adapters, "holdfast") || len(w.columns) == 0 {
				t.Errorf("%s: pattern %s lacks its base, holdfast or columns", p.name, w.name)
			}
		}
		for _, tg := range p.targets {
			w, err := p.pattern(tg.pattern)
			for _, name := range tg.to {
				if !slices.Contains(w.adapters, name) {
					err = errors.Join(err, fmt.Errorf("%s is not measured", name))
				}
			}
			if err != nil {
				t.Errorf("%s: target %s %s: %v", p.name, tg.pattern, tg.what, err)
			}
		}
	}
}

func TestSpread(t *testing.T) {
	s := &sample{Workers: []*result{{Served: []uint64{10, 40}}, {Served: []uint64{20, 30}}}}
	if got := s.spread(); got != 4 {
		t.Errorf("spread %v", got)
	}
	s.Workers[0].Served[0] = 0
	if got := s.spread(); got != 40 {
		t.Errorf("spread with one that was never served: %v", got)
	}
}

func TestRegister(t *testing.T) {
	path := filepath.Join(t.TempDir(), "register")
	if err := newRegister(path); err != nil {
		t.Fatal(err)
	}
	open := func() *register {
		r, err := openRegister(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unmap(r) })
		return r
	}
	a, b := open(), open() // as two processes
	if h := a.enter(1, 1, time.Now()); h.other {
		t.Error("the first holder has nobody before it")
	}
	a.section(0)
	a.leave(1, 1)
	if h := b.enter(2, 2, time.Now().Add(time.Minute)); !h.other || h.took < time.Minute/2 {
		t.Errorf("hand-over from another process: %+v", h)
	}
	b.section(0)
	b.leave(2, 2)
	if h := b.enter(2, 2, time.Now()); h.other {
		t.Error("a second turn is taken for a hand-over")
	}
	if a.overlaps.Load() != 0 || a.counter.Load() != 2 {
		t.Errorf("%d overlaps, count %d after turns", a.overlaps.Load(), a.counter.Load())
	}
	a.enter(1, 1, time.Now())
	if b.overlaps.Load() != 1 {
		t.Error("two at once are not seen")
	}
	b.leave(2, 2)
	if a.overlaps.Load() != 2 {
		t.Error("whose place was taken does not see it at the end")
	}
}
