package testserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// Lab stands in for a test in programs that are none: it is what they pass to the functions of
// this package. What would fail a test is an error of [Lab.Do], so everything that starts,
// breaks or asks a server is called in there, by one goroutine at a time.
type Lab struct {
	testing.TB // nil, for the method that it keeps to itself; this package calls only what is below

	folder   string // everything that the servers write is below it
	folders  int
	cleanups []func()
	failure  error
}

// ErrMissing says that a program that is to be started is not installed.
var ErrMissing = errors.New("cannot be started here")

// NewLab returns a lab with a folder in the system's place for temporary ones.
func NewLab() (*Lab, error) {
	folder, err := os.MkdirTemp("", "holdfast-lab-")
	if err != nil {
		return nil, err
	}
	return &Lab{folder: folder}, nil
}

// Do calls f on a goroutine of its own, which Fatal ends, and returns what has failed in the lab
// so far. That matches ErrMissing where a program was not there.
func (l *Lab) Do(f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	return l.failure
}

// Close ends the servers and removes the folder. It returns what has failed in the lab, then with
// the ends of the servers' logs.
func (l *Lab) Close() error {
	for _, f := range slices.Backward(l.cleanups) {
		_ = l.Do(f)
	}
	l.cleanups = nil
	return errors.Join(l.failure, os.RemoveAll(l.folder))
}

// Folder returns the folder of the lab, for files that are to go with the servers.
func (l *Lab) Folder() string { return l.folder }

// Helper does nothing.
func (l *Lab) Helper() {}

// Cleanup has Close call f.
func (l *Lab) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }

// Failed reports whether something has failed.
func (l *Lab) Failed() bool { return l.failure != nil }

// TempDir returns a new folder below that of the lab.
func (l *Lab) TempDir() string {
	l.folders++
	folder := filepath.Join(l.folder, fmt.Sprint(l.folders))
	if err := os.Mkdir(folder, 0o700); err != nil {
		l.Fatal(err)
	}
	return folder
}

// Error notes a failure.
func (l *Lab) Error(args ...any) { l.fail(errors.New(fmt.Sprint(args...))) }

// Errorf notes a failure.
func (l *Lab) Errorf(format string, args ...any) { l.fail(fmt.Errorf(format, args...)) }

// Fatal notes a failure and ends the call of Do.
func (l *Lab) Fatal(args ...any) { l.Error(args...); runtime.Goexit() }

// Fatalf notes a failure and ends the call of Do.
func (l *Lab) Fatalf(format string, args ...any) { l.Errorf(format, args...); runtime.Goexit() }

// Skipf notes that something is missing and ends the call of Do.
func (l *Lab) Skipf(format string, args ...any) {
	l.fail(fmt.Errorf("%w: %w", ErrMissing, fmt.Errorf(format, args...)))
	runtime.Goexit()
}

// Logf is called for the logs of servers when something has failed.
func (l *Lab) Logf(format string, args ...any) { l.fail(fmt.Errorf(format, args...)) }

func (l *Lab) fail(err error) { l.failure = errors.Join(l.failure, err) }
