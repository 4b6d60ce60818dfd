package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": count, "rate": rate, "latency": latency, "duration": duration,
	"verdict": Row.verdict, "whyGaps": Row.whyGaps, "sentence": (*Failover).sentence,
}).Parse(pageText))

// section is what the page says of one strategy.
type section struct {
	Row
	ID    string
	Asked string  // how many were issued, of how many
	Width float64 // of the bar below its rate, in percent of the fastest one's
	Plots []plot
}

// HTML writes the report as one page that needs nothing beside itself: no script, no font, no picture
// from elsewhere; its own policy forbids them. It is readable on a phone, in light and dark, and
// without seeing it: behind each plot is a table with its figures. Times are drawn with at most 160
// steps, and at most 32 instances: the page of any run opens quickly. Strings are escaped. The error is
// that of w.
func (r Report) HTML(w io.Writer) error {
	var fastest float64
	for _, row := range r.Rows {
		fastest = max(fastest, finite(row.Rate))
	}
	sections := make([]section, len(r.Rows))
	for i, row := range r.Rows {
		sections[i] = section{Row: row, ID: fmt.Sprintf("strategy-%d", i+1), Asked: r.issued(row), Plots: row.plots(i + 1)}
		if fastest > 0 {
			sections[i].Width = 100 * max(0, finite(row.Rate)) / fastest
		}
	}
	return page.Execute(w, struct {
		Report
		Style    template.CSS
		Lead     string
		Sections []section
	}{r, template.CSS(pageStyle), r.lead(), sections})
}

// lead is what the page says in one breath.
func (r Report) lead() string {
	if len(r.Rows) == 0 {
		return "No strategy was run."
	}
	sound := 0
	for _, row := range r.Rows {
		if row.Sound() {
			sound++
		}
	}
	return fmt.Sprintf("%s of one web service issued %s with each strategy, one strategy after the other. %s of %s gave no number twice and left none out that should be there.",
		plural(r.Instances, "instance"), plural(r.Invoices, "invoice"), count(sound), count(len(r.Rows)))
}
