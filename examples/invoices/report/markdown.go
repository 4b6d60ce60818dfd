package report

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Markdown writes the table for a page in Markdown. Below it stand what has to be known to judge single
// rows, where all of it was measured, and the command that measures it again. Strings are escaped: none
// of them becomes markup. The error is that of w.
func (r Report) Markdown(w io.Writer) error {
	p := &printer{w: w}
	p.rows(r)
	p.printf("\n%s\n", r.source())
	return p.err
}

// rows prints the table, and what has to be known of its rows.
func (p *printer) rows(r Report) {
	p.printf("| strategy | duplicates | gaps | errors | a second | p50 | p99 | failover | depends on |\n")
	p.printf("|---|---:|---:|---:|---:|---:|---:|---|---|\n")
	var notes []string
	note := func(row Row, about, text string) {
		line := fmt.Sprintf("- %s: %s%s", mark(row.Title()), about, mark(text))
		if text != "" && !slices.Contains(notes, line) { // rows that only differ in what failed say the same
			notes = append(notes, line)
		}
	}
	for _, row := range r.Rows {
		failover := "–"
		if f := row.Failover; f != nil {
			failover = fmt.Sprintf("%s: %s without an invoice, %s and %s after it", mark(f.what()), duration(f.Quiet),
				plural(f.Duplicates, "duplicate"), plural(f.Gaps, "gap"))
		}
		gaps := strong(row.Gaps)
		if row.whyGaps() != "" {
			gaps = count(row.Gaps)
		}
		p.printf("| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", mark(row.Title()), strong(row.Duplicates), gaps,
			count(row.Errors), rate(row.Rate), latency(row.P50), latency(row.P99), failover, mark(row.DependsOn))
		if row.Issued != r.Invoices {
			note(row, "issued ", r.issued(row))
		}
		note(row, "gaps are ", row.whyGaps())
		note(row, "", row.Note)
	}
	if len(notes) > 0 {
		p.printf("\n%s\n", strings.Join(notes, "\n"))
	}
}

// source says in Markdown where the figures come from.
func (r Report) source() string {
	s := fmt.Sprintf("%s, %s in each row", plural(r.Instances, "instance"), plural(r.Invoices, "invoice"))
	if !r.Taken.IsZero() {
		s += r.Taken.UTC().Format(", 2 January 2006")
	}
	if machine := mark(r.Machine); machine != "" {
		s += "; " + machine
	}
	if command := plain(r.Command); command != "" {
		s += ". Again with " + code(command)
	}
	return s + "."
}

// A place for figures is between two marks, of which the first may say which rows go there.
var places = regexp.MustCompile(`(?s)<!-- measured((?: [\w-]+(?:/[\w-]+)?)*) -->\n(.*?)<!-- end of measured -->`)

// Fill returns page, a text in Markdown, with the report's figures in the places for them:
//
//	<!-- measured unfenced/redis mutex/redis sequence -->
//	<!-- end of measured -->
//
// What was between the two lines is replaced by the table of the rows that the first one names: those of a
// strategy on an engine, or of a strategy wherever it ran. Without names it is what Markdown writes: all rows,
// and where they come from. A place for which the report has no row keeps what it has, as a run may
// measure a part. A page without a place, or where one is not as above, is an error.
func (r Report) Fill(page string) (string, error) {
	begins := strings.Count(page, "<!-- measured")
	if begins == 0 {
		return "", errors.New("report: the page has no place for figures: no line <!-- measured -->")
	}
	if found := len(places.FindAllString(page, -1)); found != begins || strings.Count(page, "<!-- end of measured -->") != found {
		return "", fmt.Errorf("report: of %d places for figures in the page, %d are from <!-- measured … --> to <!-- end of measured -->", begins, found)
	}
	return places.ReplaceAllStringFunc(page, func(place string) string {
		first, _, _ := strings.Cut(place, "\n")
		names := strings.Fields(places.FindStringSubmatch(place)[1])
		part := r
		part.Rows = slices.DeleteFunc(slices.Clone(r.Rows), func(row Row) bool {
			return len(names) > 0 && !slices.Contains(names, row.Strategy) && !slices.Contains(names, row.Strategy+"/"+row.Engine)
		})
		if len(part.Rows) == 0 {
			return place
		}
		var b strings.Builder
		p := &printer{w: &b}
		p.rows(part)
		if len(names) == 0 {
			p.printf("\n%s\n", r.source())
		}
		return first + "\n" + b.String() + "<!-- end of measured -->"
	}), nil
}

// strong is a number that should be 0.
func strong(n int) string {
	if n == 0 {
		return "0"
	}
	return "**" + count(n) + "**"
}

var punctuation = regexp.MustCompile("[][\\\\`*_<>&|~#$]")

// mark is s as text in a cell of Markdown.
func mark(s string) string {
	return punctuation.ReplaceAllStringFunc(plain(s), func(c string) string {
		switch c {
		case "<":
			return "&lt;"
		case ">":
			return "&gt;"
		case "&":
			return "&amp;"
		}
		return `\` + c
	})
}

// code is s as code, between more backticks than it has in a row.
func code(s string) string {
	ticks := "`"
	for strings.Contains(s, ticks) {
		ticks += "`"
	}
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	return ticks + s + ticks
}
