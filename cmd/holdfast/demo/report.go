package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// report is what the demo found.
type report struct {
	Engine      string   `json:"engine"`
	Instances   int      `json:"instances"`
	Invoices    int      `json:"invoices_per_instance"`
	Concurrency int      `json:"requests_per_instance"` // at a time
	Strategies  []result `json:"strategies"`
	Sound       bool     `json:"sound"` // with holdfast every number was issued once
}

// result is what one strategy came to.
type result struct {
	Strategy string `json:"strategy"`
	counts
	LostUpdates int64   `json:"lost_updates"` // invoices that are missing from the total
	FirstError  string  `json:"first_error,omitempty"`
	Seconds     float64 `json:"seconds"`
	PerSecond   float64 `json:"per_second"`
	Explanation string  `json:"explanation"`
}

func newResult(s strategy, t *tally, lost int64, took time.Duration, instances int) result {
	r := result{Strategy: s.title, counts: t.counts(), LostUpdates: lost, Seconds: took.Seconds()}
	r.PerSecond = float64(r.Issued) / r.Seconds
	if t.first != nil {
		r.FirstError = t.first.Error()
	}
	r.Explanation = r.explain(s.key, t.expected, instances)
	return r
}

// sound reports whether every invoice has a number of its own, none was left out, and the
// total is right.
func (r *result) sound(expected int) bool {
	return r.clean() && r.FirstError == "" && r.Issued == expected
}

func (r *result) clean() bool {
	return r.Duplicates == 0 && r.Gaps == 0 && r.LostUpdates == 0 && r.Errors == 0
}

// explain says in one sentence why the numbers are what they are.
func (r *result) explain(key string, expected, instances int) string {
	switch {
	case key == withHoldfast && r.sound(expected):
		return "One request at a time in the whole cluster: every number once, none left out, the total right."
	case key == withHoldfast && (r.Duplicates > 0 || r.LostUpdates > 0):
		return "This must not happen: please report it, with the engine and its version."
	case r.Errors > 0 || r.FirstError != "":
		return "Requests failed, so the other numbers say little."
	case key == withHoldfast:
		return "Numbers are missing though no request failed: please report it."
	case r.clean() && key == "process" && instances == 1:
		return "One process needs no more than this. Try it with two."
	case r.clean():
		return "Nothing went wrong this time, by luck: nothing keeps requests apart."
	case key == "process":
		return "Each process lets one request at a time through, and knows nothing of the other processes."
	default:
		return "Between the read and the write of one request, others read the same number and the same total."
	}
}

func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return r.table(w)
}

func (r *report) table(w io.Writer) error {
	p := &printer{w: w}
	p.printf("\n%-16s %8s %11s %6s %13s %7s %8s %11s\n",
		"STRATEGY", "ISSUED", "DUPLICATES", "GAPS", "LOST UPDATES", "ERRORS", "TIME", "PER SECOND")
	for _, s := range r.Strategies {
		p.printf("%-16s %8d %11d %6d %13d %7d %7.2fs %11.0f\n",
			s.Strategy, s.Issued, s.Duplicates, s.Gaps, s.LostUpdates, s.Errors, s.Seconds, s.PerSecond)
	}
	p.printf("\n")
	for _, s := range r.Strategies {
		p.printf("%-16s %s\n", s.Strategy, s.Explanation)
		if s.FirstError != "" {
			p.printf("%-16s first error: %s\n", "", s.FirstError)
		}
	}
	p.printf(`
In your code, the read and the write go in here:

  err := hf.Mutex("invoice").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error { … })

In a script: holdfast run invoice -- ./issue-invoice. More: https://github.com/holdfast-go/holdfast
`)
	return p.err
}

// printer prints until something fails, and remembers that.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}
