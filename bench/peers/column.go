package main

import "strings"

// column is one figure of a sample.
type column struct {
	title string
	value func(*sample) float64
	ratio bool // print the ratio to the base as well
}

func acquire(r *result) *histogram { return r.Acquire }
func handed(r *result) *histogram  { return r.Handover }

func rate(s *sample) float64        { return s.cycles() / s.seconds() }
func cycleTime(s *sample) float64   { return s.perCycle(s.seconds() * 1e6) }
func acquireMid(s *sample) float64  { return s.quantile(acquire, 0.5) }
func acquireLate(s *sample) float64 { return s.quantile(acquire, 0.99) }
func clientCost(s *sample) float64 {
	return s.perCycle(s.sum(func(r *result) float64 { return micros(r.Processor) }))
}
func serverCost(s *sample) float64 { return s.perCycle(micros(s.Workers[0].Server.Processor)) }
func allocations(s *sample) float64 {
	return s.perCycle(s.sum(func(r *result) float64 { return float64(r.Allocs) }))
}
func handoverRate(s *sample) float64 {
	return s.sum(func(r *result) float64 { return float64(r.Handovers) }) / s.seconds()
}
func handoverMid(s *sample) float64  { return s.quantile(handed, 0.5) }
func handoverLate(s *sample) float64 { return s.quantile(handed, 0.99) }

func clientShare(s *sample) float64 {
	return 100 * s.Workers[0].Processor.Seconds() / s.seconds()
}
func serverShare(s *sample) float64 {
	return 100 * s.Workers[0].Server.Processor.Seconds() / s.seconds()
}
func callRate(s *sample) float64 {
	var calls int64
	for name, n := range s.Workers[0].Server.Calls {
		if fromClients(name) {
			calls += n
		}
	}
	return float64(calls) / s.seconds()
}

// fromClients is false for the commands that only scripts send while leases are held: the
// server counts those of scripts and of clients together.
func fromClients(command string) bool {
	switch command, _, _ = strings.Cut(command, "|"); command {
	case "evalsha", "eval", "evalsha_ro", "fcall", "ping", "hello", "client", "script", "subscribe", "ssubscribe", "wait", "auth":
		return true
	}
	return false
}

func heapEach(s *sample) float64  { return s.perCycle(float64(s.Workers[0].HeapBytes)) }
func stackEach(s *sample) float64 { return s.perCycle(float64(s.Workers[0].StackBytes)) }
func lostLeases(s *sample) float64 {
	return float64(s.Workers[0].Lost)
}
func takenIn(s *sample) float64 { return s.Workers[0].Acquired.Seconds() * 1e3 }

var (
	columnsDistinct = []column{
		{"cycles/s", rate, true}, {"acquire p50 us", acquireMid, true}, {"p99 us", acquireLate, false},
		{"client CPU us", clientCost, false}, {"server CPU us", serverCost, false}, {"allocs", allocations, false},
	}
	columnsTurns = []column{
		{"turns/s", rate, true}, {"wait p50 us", acquireMid, false}, {"p99 us", acquireLate, false},
		{"max/min", (*sample).spread, false}, {"client CPU us", clientCost, false}, {"server CPU us", serverCost, false},
	}
	columnsHandovers = []column{
		{"hand-overs/s", handoverRate, true}, {"p50 us", handoverMid, true}, {"p99 us", handoverLate, false},
		{"turns/s", rate, false}, {"max/min", (*sample).spread, false},
		{"client CPU us", clientCost, false}, {"server CPU us", serverCost, false},
	}
	columnsHold = []column{
		{"client CPU %", clientShare, true}, {"server CPU %", serverShare, false}, {"calls/s", callRate, true},
		{"heap B/lease", heapEach, true}, {"stack B/lease", stackEach, false}, {"taken in ms", takenIn, false}, {"lost", lostLeases, false},
	}
)
