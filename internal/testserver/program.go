package testserver

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Program is a process of any program, for one test, with what this package's servers have: it
// ends with the test, and on Linux with the process that started it. Its methods that cannot do
// what they say end the test.
type Program struct {
	t    testing.TB
	proc *process
}

// Run starts a program, with variables in its environment beside those of this process, and does
// not wait for anything. It is killed when the test ends.
func Run(t testing.TB, path string, args, env []string) *Program {
	t.Helper()
	folder := t.TempDir()
	p := &Program{t, &process{program: path, args: args, env: env, folder: folder, log: filepath.Join(folder, "log")}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(path), p.proc.tail(1500))
		}
		if err := p.proc.kill(); err != nil {
			t.Error(err)
		}
	})
	p.Start()
	return p
}

// Start starts the program again once it has ended.
func (p *Program) Start() {
	p.t.Helper()
	if err := p.proc.start(); err != nil {
		p.t.Fatal(err)
	}
}

// PID returns the process id of the last start.
func (p *Program) PID() int {
	proc, _ := p.proc.running()
	return proc.Pid
}

// Running reports whether the process is there.
func (p *Program) Running() bool { return !p.proc.down() }

// ExitCode returns with what the last start has ended: -1 while it has not, and where a signal
// ended it.
func (p *Program) ExitCode() int {
	p.proc.mu.Lock()
	defer p.proc.mu.Unlock()
	if !closed(p.proc.exited) {
		return -1
	}
	return p.proc.cmd.ProcessState.ExitCode()
}

// Output returns what the program has written, over all its starts, and where in it the output of
// the last one begins.
func (p *Program) Output() (text []byte, last int) {
	p.t.Helper()
	text, err := os.ReadFile(p.proc.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return text, bytes.LastIndex(text, []byte(startLine)) + len(startLine)
}

// Kill ends the process at once, as a crash does, frozen or not, and returns when it is gone.
func (p *Program) Kill() { p.t.Helper(); p.must(p.proc.kill()) }

// Stop asks the process to end and returns when it is gone.
func (p *Program) Stop() { p.t.Helper(); p.must(p.proc.stop()) }

// Pause freezes the process, and returns when it has come to a halt.
func (p *Program) Pause() {
	p.t.Helper()
	proc, exited := p.proc.running()
	p.must(freeze(proc))
	p.must(poll(exited, func() error {
		if !frozen(proc.Pid) {
			return errors.New("the process is not frozen yet")
		}
		return nil
	}))
}

// Resume ends a Pause.
func (p *Program) Resume() {
	p.t.Helper()
	proc, _ := p.proc.running()
	p.must(resume(proc))
}

func (p *Program) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", p.proc.program, err)
	}
}
