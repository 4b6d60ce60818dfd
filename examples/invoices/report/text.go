package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// columns is how wide Text gets.
const columns = 100

// Text writes the report for a terminal: one table, and below it a paragraph for each strategy. No
// line is wider than 100 characters, and none steers the terminal, whatever the strings hold. The
// error is that of w.
func (r Report) Text(w io.Writer) error {
	p := &printer{w: w}
	p.printf("%s, %s in each row", plural(r.Instances, "instance"), plural(r.Invoices, "invoice"))
	if !r.Taken.IsZero() {
		p.printf(", %s", r.Taken.UTC().Format("2006-01-02 15:04 UTC"))
	}
	p.printf("\n")
	p.paragraph("", r.Machine)
	p.printf("\n")
	p.table(r)
	for _, row := range r.Rows {
		p.printf("\n%s\n", shorten(plain(row.Title()), columns))
		p.paragraph("  ", row.verdict())
		p.paragraph("  depends on: ", row.DependsOn)
		if row.Failover != nil {
			p.paragraph("  failover: ", row.Failover.sentence())
		}
		p.paragraph("  gaps: ", row.whyGaps())
		p.paragraph("  note: ", row.Note)
	}
	if len(r.Rows) == 0 {
		p.printf("No strategy was run.\n")
	}
	if command := plain(r.Command); command != "" {
		p.printf("\nMake it again:\n")
		p.paragraph("  ", command)
	}
	return p.err
}

// headings are those of the table; the first two are text, the others figures.
var headings = []string{"STRATEGY", "ENGINE", "ISSUED", "DUPLICATES", "GAPS", "ERRORS", "PER SECOND", "P50", "P99", "QUIET"}

// widest bounds the cells of each column: at their widest, the first one still has eleven characters.
var widest = []int{18, 10, 10, 10, 8, 8, 10, 8, 8, 8}

// table prints the rows.
func (p *printer) table(r Report) {
	if len(r.Rows) == 0 {
		return
	}
	lines := [][]string{headings}
	for _, row := range r.Rows {
		quiet := "–"
		if row.Failover != nil {
			quiet = duration(row.Failover.Quiet)
		}
		lines = append(lines, []string{
			plain(row.Strategy), plain(row.Engine), count(row.Issued), count(row.Duplicates), count(row.Gaps),
			count(row.Errors), rate(row.Rate), latency(row.P50), latency(row.P99), quiet,
		})
	}
	widths := make([]int, len(headings))
	for _, line := range lines {
		for i := range line {
			line[i] = shorten(line[i], widest[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i]))
		}
	}
	gutter, total := 2, 2*(len(widths)-1)
	for _, width := range widths {
		total += width
	}
	if total > columns {
		gutter, total = 1, total-(len(widths)-1)
	}
	widths[0] -= max(0, total-columns)
	for _, line := range lines {
		p.line(line, widths, gutter)
	}
}

func (p *printer) line(cells []string, widths []int, gutter int) {
	var b strings.Builder
	for i, cell := range cells {
		cell = shorten(cell, widths[i])
		fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if i > 0 {
			b.WriteString(strings.Repeat(" ", gutter))
		}
		if i < 2 {
			b.WriteString(cell + fill)
		} else {
			b.WriteString(fill + cell)
		}
	}
	p.printf("%s\n", strings.TrimRight(b.String(), " "))
}

// shorten is s in at most so many characters.
func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
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

// paragraph prints text after label, broken into lines below each other; nothing where there is none.
func (p *printer) paragraph(label, text string) {
	words := strings.Fields(plain(text))
	if len(words) == 0 {
		return
	}
	indent := utf8.RuneCountInString(label)
	line := label
	for i, word := range words {
		if i > 0 {
			if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
				p.printf("%s\n", line)
				line = strings.Repeat(" ", indent)
			} else {
				line += " "
			}
		}
		line += shorten(word, columns-indent)
	}
	p.printf("%s\n", line)
}
