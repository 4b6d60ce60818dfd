package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// step is what one point of a timeline is about.
const step = 250 * time.Millisecond

// timeline sums up requests, step by step.
func timeline(all []answered) []report.Point {
	var points []report.Point
	var took [][]time.Duration
	for _, a := range all {
		n := int(a.at / step)
		for len(points) <= n {
			points = append(points, report.Point{At: time.Duration(len(points)+1) * step})
			took = append(took, nil)
		}
		if !a.issued {
			points[n].Errors++
			continue
		}
		points[n].Issued++
		took[n] = append(took[n], a.took)
	}
	for n := range points {
		points[n].P50, points[n].P99 = quantile(took[n], 0.5), quantile(took[n], 0.99)
	}
	return points
}

// quantile returns the time within which that share of the requests was answered, 0 without any. It sorts
// them.
func quantile(took []time.Duration, share float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[int(share*float64(len(took)-1)+0.5)]
}

// quiet returns the longest time after a moment without an invoice.
func quiet(all []answered, after time.Duration) (longest time.Duration) {
	last := after
	for _, a := range all { // in the order of their ends
		if a.issued && a.at > after {
			longest = max(longest, a.at-last)
			last = a.at
		}
	}
	return longest
}

// together is how far apart two holds of an instance may be to be shown as one, where nobody else had the
// lock in between: it was handed over within the process.
const together = 20 * time.Millisecond

// holds joins what instances have held, in the order of its beginning.
func holds(began time.Time, instances [][]line) []report.Hold {
	var all []report.Hold
	for n, lines := range instances {
		for _, l := range lines {
			all = append(all, report.Hold{Instance: n, From: l.From.Sub(began), To: l.To.Sub(began), Fence: l.Fence})
		}
	}
	slices.SortFunc(all, func(a, b report.Hold) int { return cmp.Compare(a.From, b.From) })
	var joined []report.Hold
	for _, h := range all {
		if n := len(joined) - 1; n >= 0 && joined[n].Instance == h.Instance && h.From-joined[n].To < together {
			joined[n].To, joined[n].Fence = max(joined[n].To, h.To), h.Fence
			continue
		}
		joined = append(joined, h)
	}
	return joined
}
