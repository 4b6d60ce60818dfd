package main

import (
	"slices"
	"time"
)

// pattern is one way in which locks are used, and the table about it.
type pattern struct {
	name, title string
	processes   int
	parallel    int // goroutines of each process
	oneKey      bool
	hold        bool
	processors  int // pin client and server to so many, 0 for wherever they run
	adapters    []string
	base        string // ratios are to this one
	columns     []column
}

// The patterns, without what each server has to measure in them.
var (
	patternA = pattern{
		name: "a", title: "one goroutine, client and server on any core", processes: 1, parallel: 1,
		columns: columnsDistinct,
	}
	patternA1 = pattern{
		name: "a1", title: "one goroutine, client and server on one core", processes: 1, parallel: 1, processors: 1,
		columns: columnsDistinct,
	}
	patternA2 = pattern{
		name: "a2", title: "one goroutine, client and server on a core each", processes: 1, parallel: 1, processors: 2,
		columns: columnsDistinct,
	}
	patternB = pattern{name: "b", title: "64 goroutines, a lock each", processes: 1, parallel: 64, columns: columnsDistinct}
	patternC = pattern{name: "c", title: "512 goroutines, a lock each", processes: 1, parallel: 512, columns: columnsDistinct}
	patternD = pattern{name: "d", title: "64 goroutines of one process, one lock", processes: 1, parallel: 64, oneKey: true, columns: columnsTurns}
	patternE = pattern{name: "e", title: "4 processes, one lock", processes: 4, parallel: 1, oneKey: true, columns: columnsHandovers}
	patternF = pattern{name: "f", title: "leases held", processes: 1, hold: true, columns: columnsHold}
)

// of returns the pattern with adapters, and ratios to the base among them.
func (p pattern) of(base string, adapters ...string) pattern {
	p.base, p.adapters = base, adapters
	return p
}

// sample is one cell: what its workers answered.
type sample struct {
	Workers    []*result
	Overlaps   int64
	LostUpdate int64
}

func (s *sample) sum(f func(*result) float64) float64 {
	var total float64
	for _, r := range s.Workers {
		total += f(r)
	}
	return total
}

func (s *sample) cycles() float64  { return s.sum(func(r *result) float64 { return float64(r.Cycles) }) }
func (s *sample) seconds() float64 { return s.Workers[0].Seconds }
func (s *sample) errors() int {
	return int(s.sum(func(r *result) float64 { return float64(r.Errors + r.Lost) }))
}

// perCycle is 0 when there was no cycle.
func (s *sample) perCycle(total float64) float64 {
	if c := s.cycles(); c > 0 {
		return total / c
	}
	return 0
}

func (s *sample) quantile(which func(*result) *histogram, q float64) float64 {
	var h histogram
	for _, r := range s.Workers {
		h.merge(which(r))
	}
	return micros(h.quantile(q))
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// spread is how often the luckiest contender was served for each turn of the unluckiest.
// Who was not served at all counts as served once.
func (s *sample) spread() float64 {
	var served []uint64
	for _, r := range s.Workers {
		served = append(served, r.Served...)
	}
	if len(served) == 0 {
		return 0
	}
	return float64(max(slices.Max(served), 1)) / float64(max(slices.Min(served), 1))
}
