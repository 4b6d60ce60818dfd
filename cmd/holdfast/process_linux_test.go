package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Without holdfast nobody renews the lock: the command must not go on.
func TestRunKilledTakesTheCommandAlong(t *testing.T) {
	t.Parallel()
	p := startRun(t, nil, `echo $$ > pid; trap '' TERM HUP; echo > ready; while :; do sleep 0.01; done`)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.exits(137)
	p.gone("pid")
}

// A command that is stopped holds on to its lock, which is renewed all the while.
func TestRunStoppedCommandKeepsTheLock(t *testing.T) {
	t.Parallel()
	// No shell: one that is about to start a program is not shown as stopped.
	p := startRun(t, []string{"--ttl", "50ms"}, `echo $$ > pid; echo > ready; exec sleep 60`)
	pid := p.pid("pid")
	p.signal(syscall.SIGTSTP)
	if !eventually(func() bool { return isStopped(pid) }) {
		t.Fatal("TSTP did not reach the command")
	}
	p.signal(syscall.SIGCONT)
	if !eventually(func() bool { return !isStopped(pid) }) {
		t.Fatal("CONT did not reach the command")
	}
	p.signal(syscall.SIGUSR1)
	p.exits(128 + int(syscall.SIGUSR1))
}

func isStopped(pid int) bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return bytes.Contains(stat, []byte(") T "))
}
