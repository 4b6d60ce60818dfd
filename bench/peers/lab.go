package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// lab has internal/testserver start servers for this program as it does for tests. What would
// fail a test is an error of start.
type lab struct {
	testing.TB // nil, for the method that it keeps to itself; testserver calls only what is below

	folder   string // everything that the servers write is below it
	folders  int
	cleanups []func()
	failure  error
}

// errMissing says that a program is not installed.
var errMissing = errors.New("cannot be started here")

// start starts the server of a product. The server's close ends it, and what it has written.
func start(p *product) (*server, error) {
	folder, err := os.MkdirTemp("", "peers-")
	if err != nil {
		return nil, err
	}
	l := &lab{folder: folder}
	var s *server
	l.run(func() { s = p.start(l) })
	if l.failure != nil {
		l.close()
		return nil, fmt.Errorf("%s: %w", p.name, l.failure)
	}
	s.lab = l
	return s, nil
}

// run calls f on a goroutine of its own, which Fatal ends.
func (l *lab) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (l *lab) close() {
	for _, f := range slices.Backward(l.cleanups) {
		l.run(f)
	}
	_ = os.RemoveAll(l.folder)
}

func (l *lab) Helper()          {}
func (l *lab) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }
func (l *lab) Failed() bool     { return l.failure != nil }

func (l *lab) TempDir() string {
	l.folders++
	folder := filepath.Join(l.folder, fmt.Sprint(l.folders))
	if err := os.Mkdir(folder, 0o700); err != nil {
		l.Fatal(err)
	}
	return folder
}

func (l *lab) Error(args ...any)                 { l.fail(errors.New(fmt.Sprint(args...))) }
func (l *lab) Errorf(format string, args ...any) { l.fail(fmt.Errorf(format, args...)) }
func (l *lab) Fatal(args ...any)                 { l.Error(args...); runtime.Goexit() }
func (l *lab) Fatalf(format string, args ...any) { l.Errorf(format, args...); runtime.Goexit() }
func (l *lab) Skipf(format string, args ...any) {
	l.fail(fmt.Errorf("%w: %w", errMissing, fmt.Errorf(format, args...)))
	runtime.Goexit()
}

// Logf is called for the logs of servers when something has failed.
func (l *lab) Logf(format string, args ...any) { l.fail(fmt.Errorf(format, args...)) }

func (l *lab) fail(err error) { l.failure = errors.Join(l.failure, err) }
