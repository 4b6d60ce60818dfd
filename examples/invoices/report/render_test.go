package report_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

var update = flag.Bool("update", false, "write testdata anew: look at what has changed")

// renderings are all ways to write a report.
var renderings = []struct {
	file  string
	write func(report.Report, io.Writer) error
}{
	{"report.txt", report.Report.Text},
	{"report.md", report.Report.Markdown},
	{"report.json", report.Report.JSON},
	{"report.html", report.Report.HTML},
}

// TestGolden: what people and programs read does not change unnoticed.
func TestGolden(t *testing.T) {
	r := sample()
	for i := range r.Rows { // a few of each, for files that can be read
		r.Rows[i].Timeline = r.Rows[i].Timeline[36:44]
		r.Rows[i].Holds = r.Rows[i].Holds[:min(3, len(r.Rows[i].Holds))]
	}
	for _, rendering := range renderings {
		t.Run(rendering.file, func(t *testing.T) {
			got := rendered(t, r, rendering.write)
			golden := filepath.Join("testdata", rendering.file)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				lines := strings.Split(string(want), "\n")
				for i, line := range strings.Split(got, "\n") {
					if i >= len(lines) || line != lines[i] {
						t.Fatalf("%s:%d is not what is written, see go test -update:\n%s", golden, i+1, line)
					}
				}
				t.Errorf("%s goes on after what is written", golden)
			}
		})
	}
}

func TestReadBack(t *testing.T) {
	want := sample()
	got, err := report.Read(strings.NewReader(rendered(t, want, report.Report.JSON)))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, wrote %+v", got, want)
	}
	for _, bad := range []string{"", "{", `{"instances": "8"}`, `{"engines": []}`, `[]`} {
		if _, err := report.Read(strings.NewReader(bad)); err == nil {
			t.Errorf("read %q without an error", bad)
		}
	}
}

// TestNothingToShow: a run that failed early has a report all the same.
func TestNothingToShow(t *testing.T) {
	reports := map[string]report.Report{
		"nothing": {},
		"a row":   {Rows: []report.Row{{}}},
		"no invoice": {Invoices: 10, Rows: []report.Row{{
			Strategy: "mutex", Rate: math.NaN(), Errors: 3,
			Failover: &report.Failover{What: "master killed"},
			Timeline: []report.Point{{At: time.Second, Errors: 3}, {At: 2 * time.Second}},
			Holds:    []report.Hold{{}, {From: 2, To: 1}},
		}}},
		"no time": {Rows: []report.Row{{
			Rate: math.Inf(1), Timeline: []report.Point{{Issued: 4}, {At: -1, Issued: 3}}, Holds: []report.Hold{{From: -3, To: -1}},
		}}},
	}
	for name, r := range reports {
		for _, rendering := range renderings {
			got := rendered(t, r, rendering.write)
			if word := regexp.MustCompile(`NaN|Inf|%!`).FindString(got); word != "" || got == "" {
				t.Errorf("%s: %s has %q in\n%s", name, rendering.file, word, got)
			}
		}
	}
}

type brokenWriter struct{ left int }

var errBroken = errors.New("broken")

func (b *brokenWriter) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	for _, rendering := range renderings {
		for _, left := range []int{0, 200} {
			if err := rendering.write(sample(), &brokenWriter{left}); !errors.Is(err, errBroken) {
				t.Errorf("%s: %v after %d bytes", rendering.file, err, left)
			}
		}
	}
}

// hostile are strings that would become something else than text if they were let.
var hostile = []string{
	"<script>document.title='broken in'</script>", "</style></title></svg><img src=x onerror=document.title=1>",
	`" onload="document.title=1`, "javascript:document.title=1", "{{.Rows}}", "a|b|c", "`", "```", "[x](http://127.0.0.1:1)", "**", "\\|",
	"\x1b[2J\x1b]0;title\x07", "line\none\r\ntwo\u2028three", "\u202egnp.exe", "bad \xff\xfe utf-8", "\x00",
	"<!-- end of measured -->", "]]>", "&lt;", strings.Repeat("long", 100), strings.Repeat("many words ", 50), "日本語", "%s%d", "",
}

// arbitrary is any report at all: no field is what it should be.
func arbitrary(rnd *rand.Rand) report.Report {
	text := func() string { return hostile[rnd.IntN(len(hostile))] }
	number := func() int {
		return []int{0, 1, -1, rnd.IntN(100), rnd.IntN(10_000_000), math.MaxInt, math.MinInt}[rnd.IntN(7)]
	}
	lasts := func() time.Duration {
		return []time.Duration{0, -1, 1, time.Duration(rnd.IntN(1e10)), time.Duration(rnd.IntN(1e10)), math.MaxInt64, math.MinInt64}[rnd.IntN(7)]
	}
	r := report.Report{Machine: text(), Command: text(), Instances: number(), Invoices: number()}
	for range rnd.IntN(4) {
		row := report.Row{
			Strategy: text(), Engine: text(), DependsOn: text(), Issued: number(), Duplicates: number(), Gaps: number(),
			Errors: number(), Rate: []float64{0, math.NaN(), math.Inf(-1), math.MaxFloat64, 1e-300, rnd.Float64() * 1000}[rnd.IntN(6)],
			P50: lasts(), P99: lasts(), GapsAre: text(), Note: text(),
		}
		if rnd.IntN(2) == 0 {
			row.Failover = &report.Failover{What: text(), At: lasts(), Quiet: lasts(), Duplicates: number(), Gaps: number()}
		}
		for range rnd.IntN(200) {
			row.Timeline = append(row.Timeline, report.Point{At: lasts(), Issued: number(), Errors: number(), P50: lasts(), P99: lasts()})
			row.Holds = append(row.Holds, report.Hold{Instance: number(), From: lasts(), To: lasts(), Fence: rnd.Uint64()})
		}
		r.Rows = append(r.Rows, row)
	}
	return r
}

// TestAnything: whatever a report holds, it is written, and its strings remain text.
func TestAnything(t *testing.T) {
	for seed := range uint64(40) {
		r := arbitrary(rand.New(rand.NewPCG(seed, 0)))
		var wrong error
		for _, rendering := range renderings {
			got := rendered(t, r, rendering.write)
			switch rendering.file {
			case "report.txt":
				wrong = checkText(got)
			case "report.md":
				wrong = checkMarkdown(got, len(r.Rows))
			case "report.html":
				wrong = checkHTML(got)
			}
			if wrong != nil {
				t.Fatalf("seed %d, %s: %v", seed, rendering.file, wrong)
			}
		}
	}
}

func checkText(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 100 {
			return fmt.Errorf("%d characters in %q", n, line)
		}
		if strings.ContainsFunc(line, func(c rune) bool { return !unicode.IsPrint(c) || c == utf8.RuneError && !strings.Contains(line, "bad") }) {
			return fmt.Errorf("not to be printed: %q", line)
		}
	}
	return nil
}

var separator = regexp.MustCompile(`[^\\](\\\\)*\|`)

func checkMarkdown(text string, rows int) error {
	lines := strings.Split(text, "\n")
	for i, line := range lines[:rows+2] {
		if n := len(separator.FindAllString(" "+line, -1)); n != 10 {
			return fmt.Errorf("%d bars in line %d: %s", n, i, line)
		}
	}
	text, _, _ = strings.Cut(text, "Again with") // what follows is code
	if strings.ContainsAny(text, "<>") {
		return fmt.Errorf("markup in\n%s", text)
	}
	return nil
}

// elements are all that the page is made of.
var elements = regexp.MustCompile(`^(!doctype|html|head|meta|link|title|style|body|header|h1|h2|h3|p|main|div|table|thead|tbody|tr|th|td|a|i|b|small|` +
	`section|dl|dt|dd|figure|figcaption|span|svg|desc|g|text|line|path|details|summary|footer|code|time)$`)

var (
	tags    = regexp.MustCompile(`</?([a-zA-Z!][^\s/>]*)([^>]*)>`)
	handler = regexp.MustCompile(`\bon\w+=`)
	places  = regexp.MustCompile(` (d|x|y|x1|x2|y1|y2|height|viewBox)="([^"]*)"`)
	numbers = regexp.MustCompile(`^[-+MLHVZhvz0-9.,% ]*$`)
)

func checkHTML(text string) error {
	_, body, _ := strings.Cut(text, "</style>") // what is before is ours
	for _, tag := range tags.FindAllStringSubmatch(body, -1) {
		if !elements.MatchString(tag[1]) || handler.MatchString(tag[2]) {
			return fmt.Errorf("element %s", tag[0])
		}
	}
	for _, place := range places.FindAllStringSubmatch(body, -1) {
		if !numbers.MatchString(place[2]) {
			return fmt.Errorf("%s is %q", place[1], place[2])
		}
	}
	if i := strings.Index(body, "ZgotmplZ"); i >= 0 {
		return fmt.Errorf("refused by the template: %s", body[max(0, i-200):i])
	}
	return nil
}

// TestHuge: an hour with 36,000 points and 200,000 holds makes a page that opens on a phone.
func TestHuge(t *testing.T) {
	r := sample()
	row := &r.Rows[3]
	row.Timeline, row.Holds = nil, nil
	for at := 100 * time.Millisecond; at <= time.Hour; at += 100 * time.Millisecond {
		row.Timeline = append(row.Timeline, report.Point{At: at, Issued: 4, P50: time.Millisecond, P99: 2 * time.Millisecond})
	}
	const peak = 1234 * time.Millisecond
	row.Timeline[20_000].P99 = peak
	for i := range 200_000 {
		from := time.Duration(i) * 18 * time.Millisecond
		row.Holds = append(row.Holds, report.Hold{Instance: i % 100, From: from, To: from + 3*time.Millisecond, Fence: uint64(i)})
	}
	page := rendered(t, r, report.Report.HTML)
	without := sample()
	without.Rows[3].Timeline, without.Rows[3].Holds = nil, nil
	if more := len(page) - len(rendered(t, without, report.Report.HTML)); more > 200<<10 {
		t.Errorf("the page has %d bytes more for one strategy", more)
	}
	if !strings.Contains(page, "<td>1.23 s</td>") {
		t.Error("the peak of 1.23 s is lost")
	}
	if !strings.Contains(page, "These are 32 of 100 instances.") {
		t.Error("the page does not say that it leaves out instances")
	}
}
