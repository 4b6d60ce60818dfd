package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what is printed of a run.
type report struct {
	Server     string
	Go, System string
	Processors int
	Rounds     int
	Tables     []table
	Targets    []verdict
}

type table struct {
	Pattern, Title string
	Base           string
	Skipped        string `json:",omitempty"`
	Columns        []string
	Rows           []row
	Control        *sighting `json:",omitempty"` // what the check saw without a lock
}

type sighting struct{ Overlaps, LostUpdates int64 }

type row struct {
	Adapter string
	Kind    kind
	About   string
	Figures []figure          `json:",omitempty"` // one a column
	Calls   map[string]called `json:",omitempty"` // of the server
	sighting
	Errors  int
	Failure string `json:",omitempty"`
}

func newReport(s *settings, outcomes []*outcome) *report {
	r := &report{Server: s.product.name, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Processors: runtime.NumCPU(), Rounds: s.rounds}
	for _, o := range outcomes {
		r.Tables = append(r.Tables, o.table())
	}
	r.Targets = judge(s.product.targets, outcomes)
	return r
}

func (o *outcome) table() table {
	t := table{Pattern: o.pattern.name, Title: o.pattern.title, Base: o.pattern.base, Skipped: o.skipped}
	for _, c := range o.pattern.columns {
		t.Columns = append(t.Columns, c.title)
	}
	if o.control != nil {
		t.Control = &sighting{o.control.Overlaps, o.control.LostUpdate}
	}
	for _, a := range o.adapters {
		t.Rows = append(t.Rows, o.row(a))
	}
	return t
}

func (o *outcome) row(a adapter) row {
	samples := o.samples[a.name]
	r := row{Adapter: a.name, Kind: a.kind, About: a.about, Failure: o.failures[a.name]}
	if len(valuesOf(rate, samples)) == 0 {
		return r
	}
	for _, c := range o.pattern.columns {
		f := figureOf(c.value, samples, o.samples[o.pattern.base])
		if !c.ratio {
			f.Ratio = 0
		}
		r.Figures = append(r.Figures, f)
	}
	r.Calls = callsOf(samples, o.pattern.hold)
	for _, s := range samples {
		if s == nil {
			continue
		}
		r.Overlaps += s.Overlaps
		r.LostUpdates += s.LostUpdate
		r.Errors += s.errors()
		for _, w := range s.Workers {
			r.Failure = cmp.Or(r.Failure, w.Example)
		}
	}
	return r
}

// called says how often a command was called, for each cycle or second, and the time of one
// call in the server.
type called struct{ Times, Micros float64 }

// callsOf is what the server was asked for, by command, scripts' own commands included.
func callsOf(samples []*sample, perSecond bool) map[string]called {
	times, spent, per := map[string]int64{}, map[string]time.Duration{}, 0.0
	for _, s := range samples {
		if s == nil {
			continue
		}
		for name, n := range s.Workers[0].Server.Calls {
			times[name] += n
			spent[name] += s.Workers[0].Server.Spent[name]
		}
		if perSecond {
			per += s.seconds()
		} else {
			per += s.cycles()
		}
	}
	calls := map[string]called{}
	for name, n := range times {
		calls[name] = called{float64(n) / max(per, 1), micros(spent[name]) / float64(n)}
	}
	return calls
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) text(w io.Writer) error {
	fmt.Fprintf(w, "%s; %s on %s, %d processors; %d rounds: median (min-max) xRatio to the adapter marked *\n",
		r.Server, r.Go, r.System, r.Processors, r.Rounds)
	for _, t := range r.Tables {
		if err := t.text(w); err != nil {
			return err
		}
	}
	return verdicts(w, r.Targets)
}

func (t *table) text(out io.Writer) error {
	fmt.Fprintf(out, "\n%s. %s\n", t.Pattern, t.Title)
	if t.Skipped != "" {
		fmt.Fprintln(out, "skipped:", t.Skipped)
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "adapter\t%s\tserver calls\n", strings.Join(t.Columns, "\t"))
	for _, r := range t.Rows {
		if len(r.Figures) == 0 {
			continue
		}
		name := r.Adapter
		if name == t.Base {
			name += " *"
		}
		fmt.Fprintf(w, "%s\t", name)
		for _, f := range r.Figures {
			fmt.Fprintf(w, "%s\t", f)
		}
		fmt.Fprintln(w, calls(r.Calls))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range t.Rows {
		r.notes(out, t.Control != nil)
	}
	if t.Control != nil {
		fmt.Fprintf(out, "the check without a lock saw %d overlaps, %d lost updates; with one:", t.Control.Overlaps, t.Control.LostUpdates)
		var seen sighting
		for _, r := range t.Rows {
			seen.Overlaps += r.Overlaps
			seen.LostUpdates += r.LostUpdates
		}
		fmt.Fprintf(out, " %d and %d\n", seen.Overlaps, seen.LostUpdates)
	}
	return nil
}

func (r *row) notes(out io.Writer, checked bool) {
	if r.Errors > 0 || r.Failure != "" {
		fmt.Fprintf(out, "%s: %d errors, e.g. %s\n", r.Adapter, r.Errors, cmp.Or(r.Failure, "leases lost"))
	}
	if checked && (r.Overlaps > 0 || r.LostUpdates != 0) {
		fmt.Fprintf(out, "%s DOES NOT EXCLUDE: %d overlaps, %d lost updates\n", r.Adapter, r.Overlaps, r.LostUpdates)
	}
}

func (f figure) String() string {
	text := short(f.Median)
	if f.Min != f.Max {
		text += fmt.Sprintf(" (%s-%s)", short(f.Min), short(f.Max))
	}
	if f.Ratio > 0 {
		text += fmt.Sprintf(" x%.2f", f.Ratio)
	}
	return text
}

func calls(all map[string]called) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if c := all[name]; c.Times >= 0.01 {
			parts = append(parts, fmt.Sprintf("%s %s at %s us", name, short(c.Times), short(c.Micros)))
		}
	}
	return strings.Join(parts, ", ")
}

// verdictOnSafety is an error when holdfast let two holders in: that is no benchmark result
// but a bug.
func (r *report) verdictOnSafety() error {
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			if row.Kind == ours && (row.Overlaps > 0 || row.LostUpdates != 0) {
				return fmt.Errorf("pattern %s: %s let two holders in: %d overlaps, %d lost updates", t.Pattern, row.Adapter, row.Overlaps, row.LostUpdates)
			}
		}
	}
	return nil
}
