package main

import (
	"fmt"
	"slices"
)

// figure sums up the samples of one adapter in one column.
type figure struct {
	Median, Min, Max float64
	Ratio            float64 `json:",omitempty"` // see ratios
}

// figureOf leaves out the rounds in which the cell failed, which are nil.
func figureOf(value func(*sample) float64, samples, base []*sample) figure {
	f := summary(valuesOf(value, samples))
	f.Ratio = median(ratios(value, samples, base))
	return f
}

func summary(values []float64) figure {
	if len(values) == 0 {
		return figure{}
	}
	return figure{Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

func valuesOf(value func(*sample) float64, samples []*sample) (values []float64) {
	for _, s := range samples {
		if s != nil {
			values = append(values, value(s))
		}
	}
	return values
}

// ratios compares what was measured in the same round.
func ratios(value func(*sample) float64, samples, base []*sample) []float64 {
	return ratiosTo(value, value, samples, base)
}

// ratiosTo is ratios, with another value of the base.
func ratiosTo(ofBase, value func(*sample) float64, samples, base []*sample) (all []float64) {
	for round, s := range samples {
		if s == nil || round >= len(base) || base[round] == nil {
			continue
		}
		if b := ofBase(base[round]); b > 0 {
			all = append(all, value(s)/b)
		}
	}
	return all
}

// median is 0 for no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[mid-1] + sorted[mid]) / 2
	}
	return sorted[mid]
}

// short prints a number as precisely as it is worth.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
