package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestMain lets the test binary be the worker that the program starts.
func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		main()
		return
	}
	// The race detector lets a process sleep for a second at its end, and there are many.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// runCommand is the program with these flags.
func runCommand(t *testing.T, args ...string) *report {
	t.Helper()
	testserver.Need(t, "redis-server")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := command(ctx, append(args, "-o", "json"), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// worked says what is wrong with a row, "" for nothing.
func worked(tb table, r row) string {
	rates := []string{"cycles/s", "turns/s", "heap B/lease"}
	switch i := slices.IndexFunc(tb.Columns, func(c string) bool { return slices.Contains(rates, c) }); {
	case len(r.Figures) == 0 || r.Failure != "":
		return "failed: " + r.Failure
	case r.Errors > 0:
		return fmt.Sprint(r.Errors, " errors")
	case r.Figures[i].Median <= 0:
		return "no cycle was completed"
	}
	return ""
}

// TestEverythingRuns: every adapter works in every pattern, excludes where there is one lock,
// and what does not lock is seen.
func TestEverythingRuns(t *testing.T) {
	r := runCommand(t, "-quick", "-duration", "40ms", "-hold", "40ms", "-leases", "100", "-parallel", "8")
	if len(r.Tables) != len(patterns) {
		t.Fatalf("%d tables, not %d", len(r.Tables), len(patterns))
	}
	for _, tb := range r.Tables {
		if tb.Skipped != "" {
			t.Logf("%s: skipped: %s", tb.Pattern, tb.Skipped)
			continue
		}
		for _, row := range tb.Rows {
			a, err := adapterNamed(row.Adapter)
			if err != nil {
				t.Fatal(err)
			}
			if a.missing != "" {
				t.Logf("%s %s: %s", tb.Pattern, row.Adapter, a.missing)
				continue
			}
			t.Run(tb.Pattern+"/"+row.Adapter, func(t *testing.T) { checkRow(t, tb, row) })
		}
		if p := tb.Pattern; (p == "d" || p == "e") && (tb.Control == nil || tb.Control.Overlaps == 0 || tb.Control.LostUpdates == 0) {
			t.Errorf("%s: the check saw %+v without a lock", tb.Pattern, tb.Control)
		}
	}
}

// checkRow gives an adapter that did nothing in its short time more of it: the machine may
// have been busy.
func checkRow(t *testing.T, tb table, r row) {
	for d := time.Second; ; d *= 2 {
		if r.Overlaps != 0 || r.LostUpdates != 0 {
			t.Fatalf("%d overlaps, %d lost updates", r.Overlaps, r.LostUpdates)
		}
		wrong := worked(tb, r)
		if wrong == "" {
			return
		}
		if d > 16*time.Second {
			t.Fatal(wrong)
		}
		t.Logf("again for %v: %s", d, wrong)
		again := runCommand(t, "-quick", "-patterns", tb.Pattern, "-adapters", r.Adapter, "-duration", d.String(), "-leases", "100", "-parallel", "8")
		r = again.Tables[0].Rows[0]
	}
}

// newTestServer is a server for cells that are run one by one.
func newTestServer(t *testing.T) *server {
	t.Helper()
	srv, err := startServer(t.Context(), testserver.Need(t, "redis-server"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.close)
	return srv
}

func patternNamed(t *testing.T, name string) pattern {
	t.Helper()
	for _, p := range patterns {
		if p.name == name {
			return p
		}
	}
	t.Fatal("no pattern", name)
	return pattern{}
}

// TestBrokenLockIsSeen: a library that lets two in is reported, and the run fails if it is
// holdfast.
func TestBrokenLockIsSeen(t *testing.T) {
	srv := newTestServer(t)
	for _, name := range []string{"d", "e"} {
		t.Run(name, func(t *testing.T) {
			p := patternNamed(t, name)
			s := &settings{duration: 100 * time.Millisecond, parallel: 8}
			o := &outcome{pattern: p, samples: map[string][]*sample{}}
			if err := s.checkTheCheck(t.Context(), srv, o); err != nil {
				t.Fatal(err)
			}
			for _, k := range []kind{byDefault, ours} {
				culprit := controls[0]
				culprit.kind = k
				o.adapters = []adapter{culprit}
				o.samples[culprit.name] = []*sample{o.control}
				r := newReport(s, []*outcome{o})
				var text strings.Builder
				if err := r.text(&text); err != nil || !strings.Contains(text.String(), "control DOES NOT EXCLUDE") {
					t.Errorf("%v; the report does not say so:\n%s", err, text.String())
				}
				if err := r.verdictOnSafety(); (err != nil) != (k == ours) {
					t.Errorf("as %s: %v", k, err)
				}
			}
		})
	}
}

func TestWorkerSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		order order
		want  string
	}{
		{order{Adapter: "nobody"}, `there is no adapter "nobody"`},
		{order{Adapter: "holdfast", Addr: "127.0.0.1:1"}, "127.0.0.1:1"},
		{order{Adapter: "control", Register: filepath.Join(t.TempDir(), "none")}, "none"},
	} {
		_, err := employ(t.Context(), c.order, 2, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, without %q", c.order, err, c.want)
		}
	}
}

func TestServerThatDoesNotStart(t *testing.T) {
	for _, program := range []string{"no-such-program-here", "false"} {
		if _, err := exec.LookPath(program); err != nil && program == "false" {
			continue
		}
		if srv, err := startServer(t.Context(), program); err == nil {
			srv.close()
			t.Errorf("%s was started", program)
		}
	}
}

func TestFlagsThatAreWrong(t *testing.T) {
	for _, args := range []string{"-o yaml", "-rounds 0", "-duration -1s", "-no-such-flag", "argument", "-patterns z"} {
		if strings.Contains(args, "patterns") {
			testserver.Need(t, "redis-server")
		}
		if err := command(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%s was accepted", args)
		}
	}
}
