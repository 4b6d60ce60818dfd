package report

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Title names the row: its strategy, and the engine where it has one.
func (r Row) Title() string {
	if r.Engine == "" {
		return r.Strategy
	}
	return r.Strategy + " on " + r.Engine
}

// Sound reports whether the strategy did what it is there for: it issued invoices, gave no number
// twice, and left none out, unless GapsAre says that leaving out is no fault. It says nothing about
// how many were issued, and a strategy may be sound by luck.
func (r Row) Sound() bool {
	return r.Issued > 0 && r.Duplicates == 0 && (r.Gaps == 0 || r.GapsAre != "")
}

// verdict is Sound in words.
func (r Row) verdict() string {
	var wrong []string
	if r.Duplicates != 0 {
		wrong = append(wrong, plural(r.Duplicates, "duplicate"))
	}
	if r.Gaps != 0 && r.whyGaps() == "" {
		wrong = append(wrong, plural(r.Gaps, "gap"))
	}
	switch {
	case r.Issued <= 0:
		return "no invoices"
	case len(wrong) > 0:
		return strings.Join(wrong, ", ")
	case r.Gaps != 0:
		return "no duplicates, gaps by design"
	default:
		return "every number once"
	}
}

// whyGaps says why gaps are no fault, where there are some.
func (r Row) whyGaps() string {
	if r.Gaps == 0 {
		return ""
	}
	return r.GapsAre
}

// what names the failure, also where nobody has.
func (f *Failover) what() string { return cmp.Or(plain(f.What), "failover") }

// sentence is the failover in words.
func (f *Failover) sentence() string {
	return fmt.Sprintf("at %s: %s; the longest time without an invoice after it was %s; %s and %s after it",
		duration(f.At), f.what(), duration(f.Quiet), plural(f.Duplicates, "duplicate"), plural(f.Gaps, "gap"))
}

// issued says how many of the invoices there are.
func (r Report) issued(row Row) string {
	if row.Issued == r.Invoices {
		return count(row.Issued)
	}
	return count(row.Issued) + " of " + count(r.Invoices)
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}

// count is a whole number with commas.
func count(n int) string {
	digits := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// rate is a number of things a second, to three digits.
func rate(perSecond float64) string {
	perSecond = finite(perSecond)
	if abs := math.Abs(perSecond); abs >= 99.95 && abs < math.MaxInt32 {
		return count(int(math.Round(perSecond)))
	}
	return digits(perSecond)
}

// duration is a time to about three digits, with its unit.
func duration(d time.Duration) string {
	switch abs := max(d, -d); {
	case abs >= time.Hour:
		return d.Round(time.Second).String()
	case abs >= time.Second:
		return digits(d.Seconds()) + " s"
	case abs >= time.Millisecond:
		return digits(float64(d)/float64(time.Millisecond)) + " ms"
	default:
		return digits(float64(d)/float64(time.Microsecond)) + " µs"
	}
}

// latency is a duration that was not measured where it is 0.
func latency(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return duration(d)
}

// digits is v to about three digits.
func digits(v float64) string {
	places := 2
	switch abs := math.Abs(v); {
	case abs >= math.MaxInt32:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case abs >= 99.95:
		places = 0
	case abs >= 9.995:
		places = 1
	}
	s := strconv.FormatFloat(v, 'f', places, 64)
	if places > 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// finite is v, or 0 where a division by nothing was reported.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// plain is s on one line, without characters that steer a terminal or turn the direction of text.
func plain(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Join(strings.Fields(s), " ")
}
