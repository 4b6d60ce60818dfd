package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent has the kernel kill the command when we are killed: it must not go on without
// the lock. What it has started itself is out of reach.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = unix.SIGKILL }

// endedUncollected blocks until a process stops or ends, and reports whether it has ended.
func endedUncollected(pid int) bool {
	const stopped = 5 // CLD_STOPPED
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil && info.Code != stopped
		}
	}
}
