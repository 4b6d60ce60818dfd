package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const second = time.Second

// TestSteps: however many points become however few steps, no invoice, no error and no peak is lost, and
// the steps follow each other.
func TestSteps(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		within := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }
		points := make([]Point, 1+rnd.IntN(1000))
		var issued, errors int
		var peak, end time.Duration
		for i := range points {
			p := Point{At: 1 + within(100*second), Issued: rnd.IntN(50), Errors: rnd.IntN(2), P50: 1 + within(second), P99: within(9 * second)}
			if i > 0 && rnd.IntN(5) == 0 {
				p.At = points[i-1].At // two at once
			}
			points[i] = p
			issued, errors, peak, end = issued+p.Issued, errors+p.Errors, max(peak, p.P99), max(end, p.At)
		}
		before := slices.Clone(points)
		most := 1 + rnd.IntN(200)
		var at time.Duration
		got := steps(points, most)
		for _, s := range got {
			if s.From != at || s.To <= s.From || s.Issued > 0 && (s.P50 <= 0 || s.P50 > second) {
				t.Fatalf("seed %d: after %v: %+v", seed, at, s)
			}
			issued, errors, at = issued-s.Issued, errors-s.Errors, s.To
		}
		highest := slices.MaxFunc(got, func(a, b step) int { return int(a.P99 - b.P99) }).P99
		if len(got) > most || at != end || issued != 0 || errors != 0 || highest != peak {
			t.Fatalf("seed %d: %d steps of at most %d, until %v of %v, %d invoices and %d errors lost, peak %v of %v", seed,
				len(got), most, at, end, issued, errors, highest, peak)
		}
		if !slices.Equal(points, before) {
			t.Fatalf("seed %d: the report was changed", seed)
		}
	}
}

// TestMedian: of two points of which one has nearly all invoices, that one's median counts.
func TestMedian(t *testing.T) {
	points := []Point{{At: 1, Issued: 99, P50: 20}, {At: 2, Issued: 1, P50: 10}, {At: 3, P50: 0}}
	if got := steps(points, 1)[0]; got.P50 != 20 || got.Issued != 100 {
		t.Errorf("%+v", got)
	}
}

func TestLanes(t *testing.T) {
	holds := []Hold{
		{Instance: 7, From: 0, To: 10 * second, Fence: 9},
		{Instance: 2, From: 25 * second, To: 75 * second, Fence: 30},
		{Instance: 2, From: 5 * second, To: 10 * second, Fence: 12},
		{Instance: 9, From: 99 * second, To: 200 * second},
		{Instance: 4, From: 3, To: 3}, {Instance: 5, From: 300 * second, To: 400 * second}, // no time
	}
	got, all := lanes(holds, 100*second, 10, 2)
	if all != 3 || len(got) != 2 {
		t.Fatalf("%d of %d lanes", len(got), all)
	}
	for i, want := range []lane{
		{Instance: 2, Holds: 2, Held: 55 * second, Longest: 50 * second, First: 12, Last: 30, covered: []float64{.5, 0, .5, 1, 1, 1, 1, .5, 0, 0}},
		{Instance: 7, Holds: 1, Held: 10 * second, Longest: 10 * second, First: 9, Last: 9, covered: []float64{1, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		g := got[i]
		same := slices.EqualFunc(g.covered, want.covered, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
		if g.covered, want.covered = nil, nil; !same || g.Instance != want.Instance || g.Holds != want.Holds || g.Held != want.Held ||
			g.Longest != want.Longest || g.First != want.First || g.Last != want.Last {
			t.Errorf("%+v, covered as wanted: %t; want %+v", g, same, want)
		}
	}
}

func TestAtOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		holds []Hold
		want  int
	}{
		{"nobody", nil, 0},
		{"in turn", []Hold{{Instance: 1, From: 2, To: 4}, {Instance: 0, From: 0, To: 2}, {Instance: 1, From: 4, To: 5}}, 1},
		{"two", []Hold{{Instance: 0, From: 0, To: 3}, {Instance: 1, From: 2, To: 4}}, 2},
		{"one with two locks", []Hold{{Instance: 3, From: 0, To: 3}, {Instance: 3, From: 2, To: 4}}, 1},
		{"three, not four", []Hold{{Instance: 0, To: 9}, {Instance: 1, From: 1, To: 9}, {Instance: 2, From: 2, To: 3}, {Instance: 3, From: 3, To: 4}}, 3},
		{"no time", []Hold{{Instance: 0, From: 5, To: 1}, {Instance: 1, From: 2, To: 4}}, 1},
	} {
		if got := atOnce(c.holds); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	for want, got := range map[string]string{
		"0": count(0), "-1,234": count(-1234), "999": count(999), "1,000": count(1000), "-9,223,372,036,854,775,808": count(math.MinInt),
		"0 µs": duration(0), "850 µs": duration(850_000), "1.23 ms": duration(1_234_567), "12.3 s": duration(12_345 * time.Millisecond),
		"120 s": duration(2 * time.Minute), "1h0m1s": duration(time.Hour + second), "–": latency(0),
		"1,235": rate(1234.6), "0.5": rate(.5), "": plain("\x1b\u202e\x00 \n"), "one two": plain("one\n\ttwo"),
		"no invoices": Row{Duplicates: 0}.verdict(), "1 duplicate, 2 gaps": Row{Issued: 1, Duplicates: 1, Gaps: 2}.verdict(),
		"no duplicates, gaps by design": Row{Issued: 1, Gaps: 2, GapsAre: "skipped"}.verdict(), "every number once": Row{Issued: 1, GapsAre: "skipped"}.verdict(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
