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

// judge compares with the targets as far as was measured.
func judge(targets []target, outcomes []*outcome) (all []verdict) {
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
	failed := len(ours) > 0 && len(values) == 0
	if len(t.to) > 0 {
		values = ratiosTo(t.beside, t.value, ours, o.samples[o.best(t.to, t.value)])
	}
	f := summary(values)
	v := verdict{Pattern: t.pattern, What: t.what, Median: f.Median, Min: f.Min, Max: f.Max}
	v.Met, v.Limit = f.Median <= t.limit, fmt.Sprintf("<= %v", t.limit)
	if t.least {
		v.Met, v.Limit = f.Median >= t.limit, fmt.Sprintf(">= %v", t.limit)
	}
	v.Met = v.Met && !failed
	return v, failed || len(values) > 0
}

// beside is the value of another adapter. One that did nothing in all its time, where more is
// better, counts as having done it once: there is no ratio to nothing.
func (t *target) beside(s *sample) float64 {
	if t.least {
		return max(t.value(s), 1/s.seconds())
	}
	return t.value(s)
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
