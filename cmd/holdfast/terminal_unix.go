//go:build unix

package main

import (
	"os/signal"

	"golang.org/x/sys/unix"
)

// terminal is the terminal that controls us. Methods of a nil terminal do nothing.
type terminal struct {
	fd    int
	group int // ours
}

// openTerminal returns nil when no terminal controls us.
func openTerminal() *terminal {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return &terminal{fd: fd, group: unix.Getpgrp()}
}

// foreground returns the group that is in the foreground.
func (t *terminal) foreground() int {
	group, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// offered reports whether the command should begin in the foreground. In a pipeline the other
// end may be what reads the terminal, a pager for one: then the command has to ask for it, by
// being stopped.
func (t *terminal) offered(s streams) bool {
	return t != nil && t.foreground() == t.group && isTerminal(int(s.in.Fd())) && isTerminal(int(s.out.Fd()))
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil
}

// stayInBackground lets us write to the terminal, and set its foreground group, while the
// command has it. It is called after the command has started, which would inherit it.
func (t *terminal) stayInBackground() {
	if t != nil {
		signal.Ignore(unix.SIGTTOU)
	}
}

// give puts a group into the foreground if ours is there, and reports whether it did.
func (t *terminal) give(group int) bool {
	return t != nil && t.foreground() == t.group && t.set(group)
}

// takeBack puts our group into the foreground, unless a third one is there by now, and
// reports whether group was.
func (t *terminal) takeBack(group int) bool {
	return t != nil && t.foreground() == group && t.set(t.group)
}

func (t *terminal) set(group int) bool {
	return unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group) == nil
}
