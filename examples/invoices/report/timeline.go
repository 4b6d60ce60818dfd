package report

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// step is what a plot knows of a stretch of time.
type step struct {
	From, To       time.Duration // From is before To
	Issued, Errors int
	P50, P99       time.Duration // 0 where nothing was issued
}

// rate is so many a second of the step.
func (s step) rate(n int) float64 { return float64(n) / (s.To - s.From).Seconds() }

// steps makes points into at most so many steps, in order. Where several points become one step,
// their numbers are added, P50 is the median of theirs, weighted by invoices, and P99 the largest of
// theirs: no peak gets lost. Points that end before the first request are left out.
func steps(points []Point, most int) []step {
	points = slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return p.At <= 0 })
	if len(points) == 0 {
		return nil
	}
	slices.SortStableFunc(points, func(a, b Point) int { return cmp.Compare(a.At, b.At) })
	end := points[len(points)-1].At
	together := func(a, b Point) bool { return a.At == b.At } // a step has to last
	if len(points) > most {
		part := func(p Point) int { return bin(p.At, end, most) }
		together = func(a, b Point) bool { return part(a) == part(b) }
	}
	var all []step
	var from time.Duration
	for len(points) > 0 {
		n := 1
		for n < len(points) && together(points[0], points[n]) {
			n++
		}
		s := merge(points[:n])
		s.From = from
		all, from, points = append(all, s), s.To, points[n:]
	}
	return all
}

// bin says in which of n equal parts of the time until end at is.
func bin(at, end time.Duration, n int) int {
	return min(n-1, max(0, int(float64(at)/float64(end)*float64(n))))
}

func merge(points []Point) step {
	s := step{To: points[len(points)-1].At}
	for _, p := range points {
		s.Issued += max(0, p.Issued)
		s.Errors += max(0, p.Errors)
		s.P99 = max(s.P99, p.P99)
	}
	byP50 := slices.SortedFunc(slices.Values(points), func(a, b Point) int { return cmp.Compare(a.P50, b.P50) })
	seen := 0
	for _, p := range byP50 {
		seen += max(0, p.Issued)
		if 2*seen >= s.Issued && p.Issued > 0 {
			s.P50 = max(0, p.P50)
			break
		}
	}
	return s
}

// lane is what one instance held.
type lane struct {
	Instance      int
	Holds         int
	Held, Longest time.Duration
	First, Last   uint64    // fences; 0 without any
	covered       []float64 // of each of equal parts of the time: how much of it the lock was held, 0 to 1
}

// lanes sorts the holds by instance, over equal parts of the time until end, and returns the first
// lanes, at most so many, and the number of all. Holds that do not last, or lie outside of that time, are
// left out.
func lanes(holds []Hold, end time.Duration, parts, most int) (first []lane, all int) {
	byInstance := map[int][]Hold{}
	for _, h := range holds {
		h.From, h.To = max(0, h.From), min(end, h.To)
		if h.From < h.To {
			byInstance[h.Instance] = append(byInstance[h.Instance], h)
		}
	}
	for _, instance := range slices.Sorted(maps.Keys(byInstance))[:min(most, len(byInstance))] {
		l := lane{Instance: instance, First: math.MaxUint64, covered: make([]float64, parts)}
		for _, h := range byInstance[instance] {
			l.add(h, end)
		}
		first = append(first, l)
	}
	return first, len(byInstance)
}

func (l *lane) add(h Hold, end time.Duration) {
	l.Holds++
	l.Held += h.To - h.From
	l.Longest = max(l.Longest, h.To-h.From)
	l.First, l.Last = min(l.First, h.Fence), max(l.Last, h.Fence)
	parts := len(l.covered)
	width := float64(end) / float64(parts)
	for i := bin(h.From, end, parts); i <= bin(h.To, end, parts); i++ {
		held := min(float64(h.To), float64(i+1)*width) - max(float64(h.From), float64(i)*width)
		l.covered[i] = min(1, l.covered[i]+max(0, held)/width)
	}
}

// atOnce is how many instances had the lock at the same time, at most. One that ends when another
// begins is not beside it.
func atOnce(holds []Hold) int {
	type edge struct {
		at       time.Duration
		instance int
		change   int
	}
	var edges []edge
	for _, h := range holds {
		if h.From < h.To {
			edges = append(edges, edge{h.From, h.Instance, 1}, edge{h.To, h.Instance, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.change, b.change)) })
	held := map[int]int{} // by instance: goroutines of one may each have a lock of their own
	most := 0
	for _, e := range edges {
		if held[e.instance] += e.change; held[e.instance] == 0 {
			delete(held, e.instance)
		}
		most = max(most, len(held))
	}
	return most
}
