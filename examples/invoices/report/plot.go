package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Plots are drawn in a box of this width, stretched to the width of the page: lines keep their
// strength, and text stands outside of the box, at percentages of its width.
const (
	boxWidth   = 1000
	boxHeight  = 120
	laneHeight = 14
	above      = 18 // of the box, for the failover
	below      = 22 // for the scale of time
	smallest   = 3  // height of a bar, so that a single error is seen among thousands of invoices
)

const (
	mostSteps = 160 // drawn: a page has to open on a phone, however long the run was
	mostParts = 400 // of a lane
	mostLanes = 32
	mostWords = 24 // characters of what failed, beside its line
)

// plot is a picture of a row's time, as the page's template wants it.
type plot struct {
	ID, Heading string
	Describe    string // what is to be seen, for those who do not see it
	Height      int    // of the box
	Legend      []key
	Levels      []label // at the left
	Lined       bool    // each level has a line
	Shapes      []shape
	Ticks       []label // below
	Failover    *label
	Caption     string   // what has to be known to read it
	Head        []string // of the table with the figures
	Figures     [][]string
}

// Outer is the height of the picture, with what is around the box.
func (p plot) Outer() int { return above + p.Height + below }

// Above is where the box begins.
func (p plot) Above() int { return above }

// key says what a line is.
type key struct{ Class, Text string }

// label is a text at a place.
type label struct {
	X      float64 // in percent of the width
	Y      float64 // from the top of the box
	Text   string
	Anchor string // SVG's text-anchor
}

// shape is an SVG path.
type shape struct {
	Class, Path string
	Title       string // shown by a pointer that rests on it
}

// span is the time that all plots of a row show.
func (r Row) span() time.Duration {
	var end time.Duration
	for _, p := range r.Timeline {
		end = max(end, p.At)
	}
	for _, h := range r.Holds {
		end = max(end, h.To)
	}
	if r.Failover != nil && end > 0 {
		end = max(end, r.Failover.At)
	}
	return end
}

// plots draws what there is to be drawn of row number n.
func (r Row) plots(n int) []plot {
	end := r.span()
	if end <= 0 {
		return nil
	}
	var all []plot
	if s := steps(r.Timeline, mostSteps); len(s) > 0 {
		all = append(all, throughput(s, end), latencies(s, end))
	}
	if l, instances := lanes(r.Holds, end, mostParts, mostLanes); len(l) > 0 {
		all = append(all, holding(l, instances, atOnce(r.Holds)))
	}
	for i := range all {
		p := &all[i]
		p.ID = fmt.Sprintf("plot-%d-%d", n, i)
		p.Ticks = timeTicks(end)
		if f := r.Failover; f != nil && f.At >= 0 {
			at := percent(f.At, end)
			p.Failover = &label{X: at, Text: shorten(f.what(), mostWords), Anchor: anchor(at, 35)}
			p.Describe += fmt.Sprintf(" %s at %s.", f.what(), duration(f.At))
		}
	}
	return all
}

// throughput plots invoices and errors a second.
func throughput(all []step, end time.Duration) plot {
	p := plot{
		Heading: "Throughput", Height: boxHeight, Lined: true, Legend: []key{{"issued", "invoices a second"}},
		Head: []string{"until", "invoices", "errors", "invoices a second"},
	}
	var highest, most float64
	var errors int
	for _, s := range all {
		most = max(most, s.rate(s.Issued))
		highest = max(highest, s.rate(s.Issued), s.rate(s.Errors))
		errors += s.Errors
		p.Figures = append(p.Figures, []string{duration(s.To), count(s.Issued), count(s.Errors), rate(s.rate(s.Issued))})
	}
	unit := niceStep(highest / 3)
	top := unit * max(1, math.Ceil(highest/unit))
	y := func(v float64) float64 { return boxHeight * (1 - v/top) }
	for v := 0.0; v <= top*1.001; v += unit {
		p.Levels = append(p.Levels, label{Y: tenth(y(v)), Text: rate(v)})
	}
	line := stairs(all, end, func(s step) (float64, bool) { return y(s.rate(s.Issued)), true })
	p.Shapes = []shape{
		{Class: "area", Path: fmt.Sprintf("%sV%dH0Z", line, boxHeight)},
		{Class: "line issued", Path: line},
	}
	p.Describe = fmt.Sprintf("Invoices a second over %s, at most %s.", duration(end), rate(most))
	if errors > 0 {
		var bars strings.Builder
		for _, s := range all {
			if s.Errors > 0 {
				fmt.Fprintf(&bars, "M%s %dV%sH%sV%dZ", coordinate(boxWidth*share(s.From, end)), boxHeight,
					coordinate(min(y(s.rate(s.Errors)), boxHeight-smallest)), coordinate(boxWidth*share(s.To, end)), boxHeight)
			}
		}
		p.Shapes = append(p.Shapes, shape{Class: "bars errors", Path: bars.String()})
		p.Legend = append(p.Legend, key{"errors", "errors a second"})
		p.Describe += fmt.Sprintf(" %s.", plural(errors, "error"))
	}
	return p
}

// latencies plots the time that answers took, each line of the scale ten times the one below.
func latencies(all []step, end time.Duration) plot {
	p := plot{
		Heading: "Latency", Height: boxHeight, Lined: true, Legend: []key{{"p50", "p50"}, {"p99", "p99"}},
		Head: []string{"until", "p50", "p99"},
	}
	lowest, highest := math.Inf(1), 0.0
	for _, s := range all {
		for _, d := range []time.Duration{s.P50, s.P99} {
			if d > 0 {
				lowest, highest = min(lowest, float64(d)), max(highest, float64(d))
			}
		}
		p.Figures = append(p.Figures, []string{duration(s.To), latency(s.P50), latency(s.P99)})
	}
	if highest == 0 {
		p.Describe = "No request was answered with an invoice."
		p.Legend = nil
		return p
	}
	low, high := math.Floor(math.Log10(lowest)), math.Ceil(math.Log10(highest))
	high = max(high, low+1)
	y := func(d time.Duration) float64 {
		return boxHeight * (high - math.Log10(max(1, float64(d)))) / (high - low)
	}
	for e := low; e <= high; e++ {
		d := time.Duration(math.Pow(10, e))
		p.Levels = append(p.Levels, label{Y: tenth(y(d)), Text: duration(d)})
	}
	for _, s := range []struct {
		class string
		of    func(step) time.Duration
	}{
		{"line p99", func(s step) time.Duration { return s.P99 }},
		{"line p50", func(s step) time.Duration { return s.P50 }},
	} {
		path := stairs(all, end, func(at step) (float64, bool) { return y(s.of(at)), s.of(at) > 0 })
		p.Shapes = append(p.Shapes, shape{Class: s.class, Path: path})
	}
	p.Describe = fmt.Sprintf("Time until an answer over %s, from %s to %s.", duration(end),
		duration(time.Duration(lowest)), duration(time.Duration(highest)))
	return p
}

// shades are how much of a part of the time an instance had the lock, from a quarter to all of it.
const shades = 4

// holding plots which instance had the lock, and when. There are as many as all says, drawn or not,
// and at most so many had it at once.
func holding(drawn []lane, all, atOnce int) plot {
	p := plot{
		Heading: "Who had the lock", Height: laneHeight * len(drawn),
		Describe: fmt.Sprintf("The times in which each of %s had the lock.", plural(all, "instance")),
		Caption:  "One line an instance. The stronger the colour, the larger the part of the time that it had the lock.",
		Head:     []string{"instance", "holds", "held", "longest", "fences"},
	}
	if atOnce > 1 {
		p.Caption += fmt.Sprintf(" By their own clocks, up to %d instances had it at the same time.", atOnce)
	} else {
		p.Caption += " By their own clocks, no two instances had it at the same time."
	}
	if all > len(drawn) {
		p.Caption += fmt.Sprintf(" These are %d of %s.", len(drawn), plural(all, "instance"))
	}
	for i, l := range drawn {
		fences := "–"
		if l.Last > 0 {
			fences = fmt.Sprintf("%d to %d", l.First, l.Last)
		}
		p.Figures = append(p.Figures, []string{strconv.Itoa(l.Instance), count(l.Holds), duration(l.Held), duration(l.Longest), fences})
		top := laneHeight * i
		p.Levels = append(p.Levels, label{Y: float64(top) + laneHeight/2, Text: strconv.Itoa(l.Instance)})
		title := fmt.Sprintf("instance %d: %s, %s in all, the longest %s", l.Instance, plural(l.Holds, "hold"), duration(l.Held), duration(l.Longest))
		for shade := 1; shade <= shades; shade++ {
			if path := l.path(shade, top+2); path != "" {
				p.Shapes = append(p.Shapes, shape{Class: fmt.Sprintf("hold shade-%d", shade), Path: path, Title: title})
			}
		}
	}
	return p
}

// path draws the parts of one shade as boxes.
func (l lane) path(shade, top int) string {
	of := func(covered float64) int { return int(math.Ceil(covered * shades)) }
	parts := len(l.covered)
	var b strings.Builder
	for i := 0; i < parts; i++ {
		from := i
		for i < parts && of(l.covered[i]) == shade {
			i++
		}
		if i > from {
			width := coordinate(float64(i-from) * boxWidth / float64(parts))
			fmt.Fprintf(&b, "M%s %dh%sv%dh-%sz", coordinate(float64(from)*boxWidth/float64(parts)), top, width, laneHeight-4, width)
		}
	}
	return b.String()
}

// stairs draws a level for each step that has one.
func stairs(all []step, end time.Duration, level func(step) (float64, bool)) string {
	var b strings.Builder
	down := true
	for _, s := range all {
		y, ok := level(s)
		if !ok {
			down = true
			continue
		}
		command := "L"
		if down {
			command = "M"
		}
		fmt.Fprintf(&b, "%s%s %sH%s", command, coordinate(boxWidth*share(s.From, end)), coordinate(y), coordinate(boxWidth*share(s.To, end)))
		down = false
	}
	return b.String()
}

// timeTicks are round times below the plots.
func timeTicks(end time.Duration) []label {
	seconds, unit, name := end.Seconds(), 1.0, ""
	if end > 2*time.Minute {
		unit, name = 60, " min"
	}
	step := niceStep(seconds / unit / 5)
	var all []label
	for i := 0; ; i++ {
		at := float64(i) * step * unit
		if at > seconds {
			return all
		}
		text := duration(time.Duration(at * float64(time.Second)))
		if name != "" {
			text = rate(float64(i)*step) + name
		}
		if i == 0 {
			text = "0"
		}
		x := tenth(100 * at / seconds)
		all = append(all, label{X: x, Text: text, Anchor: anchor(x, 8)})
	}
}

// niceStep is 1, 2 or 5 times a power of ten, at least v.
func niceStep(v float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v*0.999 {
			return m * power
		}
	}
	return 10 * power
}

func share(at, end time.Duration) float64   { return min(1, max(0, float64(at)/float64(end))) }
func percent(at, end time.Duration) float64 { return tenth(100 * share(at, end)) }
func tenth(v float64) float64               { return math.Round(v*10) / 10 }

// anchor keeps a text at x percent inside the plot; nearer than margin to an end it begins or ends there.
func anchor(x, margin float64) string {
	switch {
	case x < margin:
		return "start"
	case x > 100-margin:
		return "end"
	}
	return "middle"
}

// coordinate is a number in a path, as short as it may be.
func coordinate(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}
