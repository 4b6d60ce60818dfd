package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

const ms = time.Millisecond

func TestAudit(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name       string
		numbers    []int64 // one a second
		all, later findings
	}{
		{"nothing", nil, findings{}, findings{}},
		{"as it should be", []int64{1, 2, 3, 4, 5, 6}, findings{}, findings{}},
		{"stored out of order", []int64{2, 1, 4, 3, 6, 5}, findings{}, findings{}},
		{"from another number on", []int64{7, 8}, findings{}, findings{}},
		{"before", []int64{1, 1, 3, 4, 5, 6}, findings{1, 1}, findings{}},
		{"after", []int64{1, 2, 3, 3, 3, 1003}, findings{2, 999}, findings{2, 999}},
		{"the second of a pair after", []int64{1, 2, 3, 1, 4}, findings{1, 0}, findings{1, 0}},
		{"a gap that is filled after", []int64{1, 2, 4, 3}, findings{}, findings{}},
	} {
		var invoices []store.Invoice
		for n, number := range c.numbers {
			invoices = append(invoices, store.Invoice{Number: number, Issued: begin.Add(time.Duration(n) * time.Second)})
		}
		all, later := audit(invoices, begin.Add(3*time.Second))
		if all != c.all || later != c.later {
			t.Errorf("%s: %v and later %v, want %v and %v", c.name, all, later, c.all, c.later)
		}
	}
}

func TestCompare(t *testing.T) {
	stored := []store.Invoice{{Key: "a", Number: 1}, {Key: "b", Number: 2}}
	if err := compare(stored, map[string]int64{"a": 1, "b": 2}); err != nil {
		t.Error(err)
	}
	for _, told := range []map[string]int64{{"a": 1}, {"a": 1, "b": 3}, {"a": 1, "c": 2}} {
		if compare(stored, told) == nil {
			t.Errorf("clients were told %v", told)
		}
	}
}

func TestTimeline(t *testing.T) {
	all := []answered{{100 * ms, 10 * ms, true}, {200 * ms, 30 * ms, true}, {240 * ms, 5 * ms, false}, {600 * ms, 300 * ms, true}}
	want := []report.Point{
		{At: 250 * ms, Issued: 2, Errors: 1, P50: 30 * ms, P99: 30 * ms},
		{At: 500 * ms},
		{At: 750 * ms, Issued: 1, P50: 300 * ms, P99: 300 * ms},
	}
	if got := timeline(all); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	for after, want := range map[time.Duration]time.Duration{0: 400 * ms, 150 * ms: 400 * ms, 500 * ms: 100 * ms, 700 * ms: 0} {
		if got := quiet(all, after); got != want {
			t.Errorf("after %v: %v", after, got)
		}
	}
}

func TestHolds(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	at := func(from, to int, fence uint64) line {
		return line{From: began.Add(time.Duration(from) * ms), To: began.Add(time.Duration(to) * ms), Fence: fence}
	}
	got := holds(began, [][]line{
		{at(0, 5, 1), at(6, 9, 2), at(20, 22, 4), at(100, 101, 5)},
		{at(10, 15, 3)},
	})
	want := []report.Hold{
		{Instance: 0, From: 0, To: 9 * ms, Fence: 2},
		{Instance: 1, From: 10 * ms, To: 15 * ms, Fence: 3},
		{Instance: 0, From: 20 * ms, To: 22 * ms, Fence: 4},
		{Instance: 0, From: 100 * ms, To: 101 * ms, Fence: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestPromises(t *testing.T) {
	for _, c := range []struct {
		row  report.Row
		kept bool
	}{
		{report.Row{Strategy: "mutex"}, true},
		{report.Row{Strategy: "mutex", Duplicates: 1}, false},
		{report.Row{Strategy: "mutex", Gaps: 1}, false},
		{report.Row{Strategy: "sequence", Gaps: 1000}, true},
		{report.Row{Strategy: "sequence", Duplicates: 1}, false},
		{report.Row{Strategy: "none", Duplicates: 100}, true},
	} {
		if err := promises(report.Report{Rows: []report.Row{c.row}}); (err == nil) != c.kept {
			t.Errorf("%+v: %v", c.row, err)
		}
	}
}

// Every strategy is shown, and names of engines and strategies are good.
func TestScenarios(t *testing.T) {
	shown := map[string]bool{}
	for _, s := range scenarios {
		shown[s.strategy] = true
		kind, err := strategy.Named(s.strategy)
		if err != nil {
			t.Error(err)
		}
		if kind.NeedsEngine == (s.engine == noEngine) {
			t.Errorf("%s on %s", s.strategy, s.engine.name)
		}
	}
	for _, k := range strategy.All {
		if !shown[k.Name] {
			t.Errorf("no scenario has the strategy %s", k.Name)
		}
	}
}

func TestFlags(t *testing.T) {
	for args, count := range map[string]int{
		"--engine all --failover": len(scenarios), "--engine redis": 2, "--engine sentinel": 4, "--engine sentinel --failover": 6,
		"--engine redis,etcd,none --strategy mutex": 2,
	} {
		if o, err := parse(strings.Fields(args), t.Output()); err != nil || len(o.scenarios) != count {
			t.Errorf("%s: %v, %d scenarios", args, err, len(o.scenarios))
		}
	}
	for args, word := range map[string]string{
		"--engine luck": "--engine", "--strategy mutex,luck": "--strategy", "--instances 0": "--instances", "--invoices 0": "--invoices",
		"--clients 65": "--clients", "surplus": "surplus", "--engine etcd --strategy none": "no strategy none",
	} {
		if _, err := parse(strings.Fields(args), t.Output()); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestWriteOutAgain: a report that was saved is filled into a page, and nothing is run for it.
func TestWriteOutAgain(t *testing.T) {
	folder := t.TempDir()
	saved, page := filepath.Join(folder, "report.json"), filepath.Join(folder, "page.md")
	r := report.Report{Rows: []report.Row{{Strategy: "mutex", Engine: "etcd", Issued: 4711}}}
	if err := toFile(saved, r.JSON); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("<!-- measured mutex/etcd -->\n<!-- end of measured -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(folder, "table.md")
	if code := command(t.Context(), []string{"--from", saved, "--text", "", "--fill", page, "--markdown", table}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, path := range []string{page, table} {
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "4,711") {
			t.Errorf("%s: %v\n%s", path, err, text)
		}
	}
	if code := command(t.Context(), []string{"--from", page}); code != 1 {
		t.Errorf("a report that is none: exit code %d", code)
	}
}
