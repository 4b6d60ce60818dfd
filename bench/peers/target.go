package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// target is what holdfast is to reach.
type target struct {
	pattern string
	what    string
	value   func(*sample) float64
	to      []string // the figure is the ratio to the best of these, see best; empty: it is the value
	limit   float64
	least   bool // the limit is the least that will do, not the most
}

// verdict is a target and what was measured.
type verdict struct {
	Pattern, What    string
	Limit            string
	Median, Min, Max float64
	Met              bool
}

var targets = []target{
	{pattern: "a1", what: "cycles/s to the best peer", value: rate, to: peersOf("a1"), limit: 0.97, least: true},
	{pattern: "a1", what: "acquire p50 to SET NX PX over the same client", value: acquireMid, to: []string{"raw-goredis"}, limit: 1.1},
	{pattern: "a2", what: "cycles/s to the best peer", value: rate, to: peersOf("a2"), limit: 0.97, least: true},
	{pattern: "a2", what: "acquire p50 to SET NX PX over the same client", value: acquireMid, to: []string{"raw-goredis"}, limit: 1.1},
	{pattern: "b", what: "cycles/s to redsync over AutoPipeline", value: rate, to: []string{"redsync-goredis-ap"}, limit: 1.2, least: true},
	{pattern: "b", what: "cycles/s to redsync, defaults", value: rate, to: []string{"redsync-goredis"}, limit: 2.5, least: true},
	{pattern: "b", what: "cycles/s to redislock, defaults", value: rate, to: []string{"redislock"}, limit: 2.5, least: true},
	{pattern: "c", what: "cycles/s to the best peer", value: rate, to: peersOf("c"), limit: 1.5, least: true},
	{pattern: "c", what: "cycles/s to redsync, defaults", value: rate, to: []string{"redsync-goredis"}, limit: 5, least: true},
	{pattern: "c", what: "cycles/s to redislock, defaults", value: rate, to: []string{"redislock"}, limit: 5, least: true},
	{pattern: "c", what: "client CPU us a cycle", value: clientCost, limit: 5},
	{pattern: "c", what: "allocations a cycle", value: allocations, limit: 8},
	{pattern: "d", what: "turns/s", value: rate, limit: 300_000, least: true},
	{pattern: "d", what: "wait p99 us", value: acquireLate, limit: 1000},
	{pattern: "d", what: "turns of goroutines, max/min", value: (*sample).spread, limit: 1.2},
	{pattern: "e", what: "hand-overs/s to the token, bare connections", value: handoverRate, to: []string{"token"}, limit: 0.95, least: true},
	{pattern: "e", what: "hand-overs/s to the token over go-redis", value: handoverRate, to: []string{"token-goredis"}, limit: 0.95, least: true},
	{pattern: "e", what: "hand-over p50 to the token, bare connections", value: handoverMid, to: []string{"token"}, limit: 1.2},
	{pattern: "e", what: "hand-over p50 to the token over go-redis", value: handoverMid, to: []string{"token-goredis"}, limit: 1.2},
	{pattern: "e", what: "turns of processes, max/min", value: (*sample).spread, limit: 1.2},
	{pattern: "f", what: "client CPU, % of a core", value: clientShare, limit: 1},
	{pattern: "f", what: "calls/s", value: callRate, limit: 40},
	{pattern: "f", what: "bytes of client memory a lease", value: func(s *sample) float64 { return heapEach(s) + stackEach(s) }, limit: 1024},
	{pattern: "f", what: "leases lost", value: lostLeases, limit: 0},
}

// peersOf names the other libraries in a pattern.
func peersOf(name string) (peers []string) {
	for _, p := range patterns {
		if p.name != name {
			continue
		}
		for _, n := range p.adapters {
			if a, err := adapterNamed(n); err == nil && (a.kind == byDefault || a.kind == atBest) {
				peers = append(peers, n)
			}
		}
	}
	return peers
}

// judge compares with the targets as far as was measured.
func judge(outcomes []*outcome) (all []verdict) {
	for _, t := range targets {
		for _, o := range outcomes {
			if o.pattern.name != t.pattern {
				continue
			}
			if v, ok := t.judge(o); ok {
				all = append(all, v)
			}
		}
	}
	return all
}

func (t *target) judge(o *outcome) (verdict, bool) {
	ours := o.samples["holdfast"]
	values := valuesOf(t.value, ours)
	if len(t.to) > 0 {
		values = ratios(t.value, ours, o.samples[o.best(t.to, t.value)])
	}
	if len(values) == 0 {
		return verdict{}, false
	}
	f := summary(values)
	v := verdict{Pattern: t.pattern, What: t.what, Median: f.Median, Min: f.Min, Max: f.Max}
	v.Met, v.Limit = f.Median <= t.limit, fmt.Sprintf("<= %v", t.limit)
	if t.least {
		v.Met, v.Limit = f.Median >= t.limit, fmt.Sprintf(">= %v", t.limit)
	}
	return v, true
}

// best names the adapter with the largest median. Not the largest value of each round: on a
// busy machine that is luck, and the more of them there are the more of it.
func (o *outcome) best(names []string, value func(*sample) float64) string {
	return slices.MaxFunc(names, func(a, b string) int {
		return cmp.Compare(median(valuesOf(value, o.samples[a])), median(valuesOf(value, o.samples[b])))
	})
}

func verdicts(out io.Writer, all []verdict) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\ntargets of holdfast")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range all {
		met := "met"
		if !v.Met {
			met = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Pattern, v.What, v.Limit, figure{Median: v.Median, Min: v.Min, Max: v.Max}, met)
	}
	return w.Flush()
}
