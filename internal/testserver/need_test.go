package testserver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// lacking is a test on a machine where a program is missing.
type lacking struct {
	testing.TB
	skipped, failed bool
}

func (l *lacking) Skipf(string, ...any)  { l.skipped = true }
func (l *lacking) Fatalf(string, ...any) { l.failed = true }

func TestNeed(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "redis-server")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder)
	l := &lacking{TB: t}
	if got := testserver.Need(l, "redis-server"); got != program || l.skipped || l.failed {
		t.Errorf("there: %q, %+v", got, l)
	}
	t.Setenv("HOLDFAST_REQUIRE", "")
	if testserver.Need(l, "no-such-program"); !l.skipped || l.failed {
		t.Errorf("not there: skipped %t, failed %t", l.skipped, l.failed)
	}
	t.Setenv("HOLDFAST_REQUIRE", "all")
	l = &lacking{TB: t}
	if testserver.Need(l, "no-such-program"); l.skipped || !l.failed {
		t.Errorf("not there, and required: skipped %t, failed %t", l.skipped, l.failed)
	}
}

// TestInstallScript: what a test says is missing is what the script installs.
func TestInstallScript(t *testing.T) {
	script, err := os.ReadFile("../../scripts/install")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, begin := range []string{"needs=(", "jars=("} {
		_, list, _ := strings.Cut(string(script), begin)
		list, _, _ = strings.Cut(list, ")")
		for _, entry := range strings.Fields(list) {
			listed[entry] = true
		}
	}
	for program, pkg := range testserver.Packages {
		if !listed[program+":"+pkg] {
			t.Errorf("scripts/install does not have %s:%s", program, pkg)
		}
	}
}
