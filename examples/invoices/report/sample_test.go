package report_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// sample is a report such as a run makes it, made up: the same at every call.
func sample() report.Report {
	r := report.Report{
		Taken:     time.Date(2026, 11, 23, 18, 4, 5, 0, time.UTC),
		Machine:   "2 cores, Linux 6.1, Go 1.26, Redis 7.0.15, PostgreSQL 15.14; made up for the tests",
		Command:   "go run ./examples/invoices/cluster --instances 8 --failover",
		Instances: 8,
		Invoices:  10_000,
	}
	r.Rows = append(r.Rows,
		run("none", "", 1100, time.Millisecond, false),
		run("local", "", 900, 2*time.Millisecond, false),
		run("sequence", "sentinel", 3200, 900*time.Microsecond, true),
		run("mutex", "sentinel", 410, 12*time.Millisecond, true),
		run("mutex", "redlock", 230, 30*time.Millisecond, true),
		run("mutex", "postgres", 190, 41*time.Millisecond, false),
	)
	r.Rows[0].Duplicates, r.Rows[0].DependsOn = 3121, "nothing"
	r.Rows[0].Note = "Every instance reads the highest number and adds one."
	r.Rows[1].Duplicates, r.Rows[1].Issued, r.Rows[1].DependsOn = 2204, 9_871, "nothing"
	r.Rows[2].Gaps, r.Rows[2].GapsAre = 1000, "a sequence leaves numbers out after a failover, on purpose"
	r.Rows[2].DependsOn = "Redis with Sentinel, PostgreSQL"
	r.Rows[3].Errors, r.Rows[3].DependsOn = 17, "Redis with Sentinel, PostgreSQL"
	r.Rows[4].Errors, r.Rows[4].DependsOn = 8, "three of five Redis servers, PostgreSQL"
	r.Rows[5].DependsOn = "PostgreSQL"
	return r
}

// run is a row with timelines in which instances take turns, and stop in the middle where they fail over.
func run(strategy, engine string, perSecond float64, p50 time.Duration, failsOver bool) report.Row {
	const failsAt, quiet = 10 * time.Second, 4200 * time.Millisecond
	rnd := rand.New(rand.NewPCG(1, uint64(perSecond)))
	row := report.Row{Strategy: strategy, Engine: engine, Issued: 10_000, Rate: perSecond, P50: p50, P99: 4 * p50}
	if failsOver {
		row.Failover = &report.Failover{What: "master killed", At: failsAt, Quiet: quiet}
	}
	fence := uint64(1_763_921_045_000_000)
	for at := 250 * time.Millisecond; at <= 24*time.Second; at += 250 * time.Millisecond {
		p := report.Point{At: at}
		if failsOver && at > failsAt && at <= failsAt+quiet {
			p.Errors = rnd.IntN(4)
			row.Timeline = append(row.Timeline, p)
			continue
		}
		p.Issued = int(perSecond / 4 * (0.8 + 0.4*rnd.Float64()))
		p.P50 = time.Duration(float64(p50) * (0.8 + 0.4*rnd.Float64()))
		p.P99 = time.Duration(float64(p50) * (2 + 4*rnd.Float64()))
		row.Timeline = append(row.Timeline, p)
		if engine == "" {
			continue
		}
		for from := at - 250*time.Millisecond; from < at; from += 25 * time.Millisecond {
			held := time.Duration((5 + 19*rnd.Float64()) * float64(time.Millisecond))
			row.Holds = append(row.Holds, report.Hold{Instance: rnd.IntN(8), From: from, To: from + held, Fence: fence})
			fence += 1 + rnd.Uint64N(9)
		}
	}
	return row
}

// rendered is what one of the renderings writes.
func rendered(t *testing.T, r report.Report, write func(report.Report, io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(r, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
