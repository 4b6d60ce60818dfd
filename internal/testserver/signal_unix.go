//go:build unix

package testserver

import (
	"os"
	"syscall"
)

// freeze stops a process where it is: it keeps its connections and answers nothing.
func freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// resume lets a frozen process go on.
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
