//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// The test binary is also the instances of the service. All of them, the servers and the goroutines are
// gone in the end.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == serve {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := command(ctx, os.Args[1:])
		stop()
		os.Exit(code)
	}
	os.Exit(testserver.Main(m, 1))
}

// progress prints what the cluster does to the log of a test.
type progress struct{ t *testing.T }

func (p progress) Write(text []byte) (int, error) {
	p.t.Log(strings.TrimSpace(string(text)))
	return len(text), nil
}

// rows runs a small cluster of three real processes.
func rows(t *testing.T, invoices int, scenarios ...scenario) []report.Row {
	t.Helper()
	o := options{instances: 3, invoices: invoices, clients: 4, failover: true, scenarios: scenarios, command: "go test"}
	r, err := runAll(t.Context(), o, progress{t})
	if errors.Is(err, testserver.ErrMissing) {
		testserver.Missing(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := promises(r); err != nil {
		t.Error(err)
	}
	for n, row := range r.Rows {
		if row.Issued != invoices || row.Rate <= 0 || row.P50 <= 0 || row.P99 < row.P50 || len(row.Timeline) == 0 ||
			row.Failover == nil || row.Failover.At <= 0 || row.Failover.Quiet <= 0 {
			t.Errorf("%s: %+v", scenarios[n].title(), row)
		}
	}
	return r.Rows
}

// The master is killed in the middle, with locks on it that no replica has heard of: no number is given
// twice, and none is left out.
func TestFailover(t *testing.T) {
	t.Parallel()
	row := rows(t, 450, scenario{strategy: "mutex", engine: onSentinel})[0]
	if row.Duplicates != 0 || row.Gaps != 0 {
		t.Errorf("%d duplicates, %d gaps", row.Duplicates, row.Gaps)
	}
	holders := map[int]bool{}
	for _, h := range row.Holds {
		holders[h.Instance] = true
	}
	if len(holders) < 2 {
		t.Errorf("instances that held the lock: %v", holders)
	}
}

// The same load without a lock, and with one that nothing asks for at the database: both show here, so
// that a zero in the other test says something. With the fence neither two holders at once nor one that
// stood still for longer than its lease do any harm.
func TestWhatGoesWrong(t *testing.T) {
	t.Parallel()
	got := rows(t, 450,
		scenario{strategy: "none", engine: noEngine, fault: killInstance},
		scenario{strategy: "unfenced", engine: onRedis, fault: breakEngineAtWork},
		scenario{strategy: "mutex", engine: onRedis, fault: breakEngineAtWork},
		scenario{strategy: "mutex", engine: onRedlock, fault: freezeHolder})
	for n, wrong := range []bool{true, true, false, false} {
		if row := got[n]; row.Duplicates > 0 != wrong || row.Gaps > 0 {
			t.Errorf("%s on %s, %s: %d duplicates, %d gaps", row.Strategy, row.Engine, row.Failover.What, row.Duplicates, row.Gaps)
		}
	}
}

// Other strategies through the failure of what they depend on.
func TestOtherFailures(t *testing.T) {
	t.Parallel()
	got := rows(t, 300,
		scenario{strategy: "version", engine: noEngine, fault: killInstance},
		scenario{strategy: "mutex", engine: onPostgres})
	for n, what := range []string{"an instance killed", "the sessions of all locks"} {
		if !strings.HasPrefix(got[n].Failover.What, what) {
			t.Errorf("what was broken: %s", got[n].Failover.What)
		}
	}
}

// With HOLDFAST_CLUSTER all scenarios run, with so many invoices each.
func TestAllScenarios(t *testing.T) {
	var invoices int
	if _, err := fmt.Sscan(os.Getenv("HOLDFAST_CLUSTER"), &invoices); err != nil {
		t.Skip("HOLDFAST_CLUSTER=10000 runs every strategy with that many invoices")
	}
	for _, s := range scenarios {
		t.Run(strings.ReplaceAll(s.title(), " ", "-"), func(t *testing.T) {
			row := rows(t, invoices, s)[0]
			t.Logf("%d duplicates, %d gaps, %d errors, %.0f a second; %+v", row.Duplicates, row.Gaps, row.Errors, row.Rate, *row.Failover)
		})
	}
}

// The command renders the report in all its forms.
func TestCommand(t *testing.T) {
	t.Parallel()
	if code := command(t.Context(), []string{"--engine", "luck"}); code != 2 {
		t.Errorf("exit code %d of wrong flags", code)
	}
	file := func(name string) string { return filepath.Join(t.TempDir(), name) }
	text, json, html := file("report.txt"), file("report.json"), file("report.html")
	o, err := parse([]string{"--engine", "none", "--strategy", "version", "--instances", "1", "--invoices", "40", "--text", text, "--json", json, "--html", html}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	r, err := runAll(t.Context(), o, progress{t})
	if errors.Is(err, testserver.ErrMissing) {
		testserver.Missing(t, "%v", err)
	}
	if err := errors.Join(err, o.write(r, t.Output())); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, json, html} {
		data, err := os.ReadFile(path)
		words := strings.Join(strings.Fields(string(data)), " ") // lines are broken in some
		if err != nil || !strings.Contains(words, "version") || !strings.Contains(words, "--strategy version --instances 1") {
			t.Errorf("%s: %v, %.200s", path, err, data)
		}
	}
}
