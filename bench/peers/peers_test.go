package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
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
	spawner() // stays
	os.Exit(testserver.Main(m, 4))
}

// runCommand is the program with these flags.
func runCommand(t *testing.T, args ...string) *report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := command(ctx, append(args, "-o", "json"), &out, io.Discard); err != nil {
		fatal(t, err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// fatal ends a test, as skipped where a server is not installed and need not be.
func fatal(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, testserver.ErrMissing) {
		testserver.Missing(t, "%v", err)
	}
	t.Fatal(err)
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
	for _, p := range products {
		patterns := brief(p.patterns)
		step := len(patterns)
		if p == &onRedis {
			step = 1 // the most there is to do, and a server that starts at once
		}
		for some := range slices.Chunk(patterns, step) {
			t.Run(p.name+" from "+some[0].name, func(t *testing.T) {
				t.Parallel()
				everythingRuns(t, p, some)
			})
		}
	}
}

// brief leaves out adapters that another pattern has with more goroutines.
func brief(patterns []pattern) []pattern {
	all := slices.Clone(patterns)
	i := slices.IndexFunc(all, func(w pattern) bool { return w.name == "b" })
	for k, w := range all {
		if k == i || w.hold || w.oneKey {
			continue
		}
		all[k].adapters = slices.DeleteFunc(slices.Clone(w.adapters), func(name string) bool {
			return name != "holdfast" && slices.Contains(all[i].adapters, name)
		})
	}
	return all
}

func everythingRuns(t *testing.T, p *product, patterns []pattern) {
	srv := newTestServer(t, p)
	for _, w := range patterns {
		t.Run(w.name, func(t *testing.T) {
			tb := measureBriefly(t, srv, p, w, 60*time.Millisecond)
			if tb.Skipped != "" {
				t.Skip(tb.Skipped)
			}
			if len(tb.Rows) != len(w.adapters) {
				t.Errorf("%d rows, not %d", len(tb.Rows), len(w.adapters))
			}
			if w.oneKey && (tb.Control == nil || tb.Control.Overlaps == 0 || tb.Control.LostUpdates == 0) {
				t.Errorf("the check saw %+v without a lock", tb.Control)
			}
			for _, r := range tb.Rows {
				t.Run(r.Adapter, func(t *testing.T) { checkRow(t, srv, p, w, tb, r) })
			}
		})
	}
}

func measureBriefly(t *testing.T, srv *server, p *product, w pattern, d time.Duration) table {
	t.Helper()
	s := &settings{product: p, progress: io.Discard, parallel: 8, rounds: 1, holdRounds: 1, duration: d, hold: d, leases: 100}
	s.section = 300 * time.Microsecond // or two who have the lock might never meet
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	o, err := s.runPattern(ctx, srv, w)
	if err != nil {
		t.Fatal(err)
	}
	return o.table()
}

// checkRow gives an adapter that did nothing in its short time more of it: the machine may
// have been busy.
func checkRow(t *testing.T, srv *server, p *product, w pattern, tb table, r row) {
	for d := 250 * time.Millisecond; ; d *= 2 {
		if r.Overlaps != 0 || r.LostUpdates != 0 {
			// What other libraries let through is for the report to say.
			report := t.Fatalf
			if !strings.HasPrefix(r.Adapter, "holdfast") {
				report = t.Logf
			}
			report("%d overlaps, %d lost updates", r.Overlaps, r.LostUpdates)
		}
		wrong := worked(tb, r)
		if wrong == "" {
			return
		}
		if d > 16*time.Second || races(r.Failure) {
			t.Fatal(wrong)
		}
		t.Logf("again for %v: %s", d, wrong)
		w.adapters = []string{r.Adapter}
		r = measureBriefly(t, srv, p, w, d).Rows[0]
	}
}

// races says whether the race detector ended a worker. That of go-zookeeper is left out: when
// a connection is closed it may read the answer that still comes to a request, and nobody uses.
func races(failure string) bool {
	return strings.Contains(failure, "DATA RACE") && !strings.Contains(failure, "zk.(*Conn).recvLoop")
}

// TestCommand: the flags choose, and the report comes in both forms.
func TestCommand(t *testing.T) {
	args := []string{"-quick", "-duration", "60ms", "-patterns", "b", "-adapters", "holdfast"}
	r := runCommand(t, args...)
	if r.Server != "redis" || r.Rounds != 1 || len(r.Tables) != 1 || len(r.Tables[0].Rows) != 1 || r.Tables[0].Rows[0].Adapter != "holdfast" {
		t.Errorf("%+v", r)
	}
	var out strings.Builder
	if err := command(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "redis; ") || !strings.Contains(out.String(), "\nholdfast ") {
		t.Error(out.String())
	}
}

func TestQuickLeavesWhatIsGiven(t *testing.T) {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	s := &settings{}
	s.define(flags)
	if err := flags.Parse([]string{"-rounds", "7"}); err != nil {
		t.Fatal(err)
	}
	s.hurry(flags)
	if s.rounds != 7 || s.holdRounds != 1 || s.duration != 200*time.Millisecond || s.leases != 500 {
		t.Errorf("%+v", s)
	}
}

// newTestServer is a server for cells that are run one by one.
func newTestServer(t *testing.T, p *product) *server {
	t.Helper()
	srv, err := start(p)
	if err != nil {
		fatal(t, err)
	}
	t.Cleanup(srv.close)
	return srv
}

// TestBrokenLockIsSeen: a library that lets two in is reported, and the run fails if it is
// holdfast.
func TestBrokenLockIsSeen(t *testing.T) {
	srv := newTestServer(t, &onRedis)
	for _, name := range []string{"d", "e"} {
		t.Run(name, func(t *testing.T) {
			p, err := onRedis.pattern(name)
			if err != nil {
				t.Fatal(err)
			}
			s := &settings{product: &onRedis, duration: 100 * time.Millisecond, parallel: 8}
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
		{order{Server: "nothing"}, `there is no server "nothing"`},
		{order{Server: "redis", Adapter: "nobody"}, `there is no adapter "nobody"`},
		{order{Server: "redis", Adapter: "holdfast", Addr: "127.0.0.1:1"}, "127.0.0.1:1"},
		{order{Server: "redis", Adapter: "control", Register: filepath.Join(t.TempDir(), "none")}, "none"},
	} {
		_, err := employ(t.Context(), c.order, 2, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, without %q", c.order, err, c.want)
		}
	}
}

func TestServerThatDoesNotStart(t *testing.T) {
	for _, program := range []string{"no-such-program-here", "false"} {
		t.Setenv("HOLDFAST_REDIS_SERVER", program)
		if srv, err := start(&onRedis); err == nil {
			srv.close()
			t.Errorf("%s was started", program)
		}
	}
}

func TestFlagsThatAreWrong(t *testing.T) {
	for _, args := range []string{"-o yaml", "-rounds 0", "-duration -1s", "-section -1s", "-no-such-flag", "argument", "-patterns z", "-server nothing", "-server postgres -patterns f"} {
		if err := command(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%s was accepted", args)
		}
	}
}
