package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// noExitDelay keeps the race detector from sleeping for a second at every exit.
const noExitDelay = "atexit_sleep_ms=0"

// TestMain makes the test binary the program: scripts and tests run it as users do, as a
// process of its own.
func TestMain(m *testing.M) {
	os.Setenv("GORACE", noExitDelay)
	testscript.Main(m, map[string]func(){
		"holdfast": main,
		"hold":     hold,
	})
}

// hold creates the file that its first argument names, and waits for the one that its second
// does.
func hold() {
	if err := os.WriteFile(os.Args[1], nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		if _, err := os.Stat(os.Args[2]); err == nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestScripts(t *testing.T) { runScripts(t, "script", nil) }

// runScripts runs the scripts of a folder with more variables in their environment.
func runScripts(t *testing.T, folder string, more map[string]string) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", folder),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOLDFAST_URL", fileURL(filepath.Join(env.WorkDir, "locks")))
			for k, v := range more {
				env.Setenv(k, v)
			}
			env.Setenv("USER", "alice")
			env.Setenv("GORACE", noExitDelay)
			env.Setenv("CONTROL", "a\nb")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"waitfor": waitFor,
		},
	})
}

func fileURL(folder string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(folder)}).String()
}

// exits CODE PROGRAM [ARG...] runs a program that must exit with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	if got := exitCode(err); got != want {
		ts.Fatalf("%s exited with %d, not %d: %v\nstderr: %s", args[1], got, want, err, ts.ReadFile("stderr"))
	}
}

// exitCode returns the exit code behind the error of a process that was run, 128+n for one
// that signal n ended, or -1.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if n := exit.ExitCode(); n >= 0 {
			return n
		}
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	}
	return -1
}

// waitfor FILE waits until another program has made a file.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor FILE")
	}
	file := ts.MkAbs(args[0])
	if !eventually(func() bool { _, err := os.Stat(file); return err == nil }) {
		ts.Fatalf("%s was never made", args[0])
	}
}

// eventually waits until ok holds, and reports whether it came to that.
func eventually(ok func() bool) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if ok() {
			return true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}
