//go:build unix

package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endingSignals end the wait for the lock; forwardedSignals go to the command.
var (
	endingSignals    = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}
	forwardedSignals = append([]os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGTSTP, unix.SIGWINCH}, endingSignals...)
)

func isContinue(s os.Signal) bool { return s == unix.SIGCONT }
func isStop(s os.Signal) bool     { return s == unix.SIGINT || s == unix.SIGTERM }
func isNoExec(err error) bool     { return errors.Is(err, unix.ENOEXEC) }

func signalNumber(s os.Signal) int { return int(s.(syscall.Signal)) }

// notify has signals sent to ch, but for those that holdfast was told to ignore, as by nohup:
// the command inherits that, unless we catch them.
func notify(ch chan<- os.Signal, signals []os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(ch, s)
		}
	}
}

// surviveClosedStderr keeps a message that nobody reads from killing us while the command
// runs. Ignoring SIGPIPE would do as well, but the command would inherit it.
func surviveClosedStderr() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
}

// process is a command in a process group of its own.
type process struct {
	pid      int
	changes  chan change // ends with one that has ended set
	terminal *terminal   // nil without job control
	status   unix.WaitStatus
	reaped   bool
	inFront  bool // when it ended
}

// change is what happened to the first process of the group.
type change struct {
	ended bool
	by    unix.Signal // what stopped it, unless it ended
}

// startProcess starts a command with the given files as its standard streams: no pipes, no
// copying. Other descriptors that we inherited, such as those of make's job server, it
// inherits too.
func startProcess(path string, argv, env []string, s streams) (*process, error) {
	p := &process{changes: make(chan change), terminal: openTerminal()}
	attr := &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{s.in.Fd(), s.out.Fd(), s.err.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if p.terminal.offered(s) {
		attr.Sys.Foreground, attr.Sys.Ctty = true, p.terminal.fd
	}
	dieWithParent(attr.Sys)
	started := make(chan error)
	go p.live(path, argv, attr, started)
	if err := <-started; err != nil {
		if attr.Sys.Foreground { // it may have come that far
			p.terminal.stayInBackground()
			p.terminal.set(p.terminal.group)
		}
		return nil, err
	}
	p.terminal.stayInBackground()
	return p, nil
}

// live starts the process and reports what becomes of it. It keeps its thread to itself, and
// alive: the kernel ties the process to the thread that started it.
func (p *process) live(path string, argv []string, attr *syscall.ProcAttr, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	p.pid, err = syscall.ForkExec(path, argv, attr)
	started <- err
	for c := (change{}); err == nil && !c.ended; {
		c = p.await()
		p.changes <- c
	}
}

// await returns when the process stops or ends. Where the system allows it, a process that
// ended is not collected yet: until that is done its number, and with it the group's, cannot
// be given to another.
func (p *process) await() change {
	if endedUncollected(p.pid) {
		return change{ended: true}
	}
	p.collect(unix.WUNTRACED)
	if p.status.Stopped() {
		return change{by: p.status.StopSignal()}
	}
	p.reaped = true
	return change{ended: true}
}

func (p *process) collect(options int) {
	for {
		if _, err := unix.Wait4(p.pid, &p.status, options, nil); err != unix.EINTR {
			return
		}
	}
}

// reap collects the process, which has ended, and returns its exit code. The terminal is
// ours again.
func (p *process) reap() int {
	if !p.reaped {
		p.collect(0)
		p.reaped = true
	}
	p.inFront = p.terminal.takeBack(p.pid)
	if p.status.Signaled() {
		return exitSignal + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// passUp lets the key that ended the command in the foreground end what waits for us as well,
// as it would have if the command had not been in a group of its own: a script's loop must not
// go on after Ctrl-C. A shell goes by our own end, which has to be by that signal.
func (p *process) passUp() {
	s := p.status.Signal()
	if !p.inFront || !p.status.Signaled() || s != unix.SIGINT && s != unix.SIGQUIT {
		return
	}
	_ = unix.Kill(0, s)
	if s == unix.SIGINT {
		signal.Reset(s)
		_ = unix.Kill(unix.Getpid(), s)
		time.Sleep(time.Second) // until it has come
	}
}

// signal sends s to the group. A group that is gone needs none.
func (p *process) signal(s os.Signal) { _ = unix.Kill(-p.pid, s.(syscall.Signal)) }

// terminate asks the group to end. A stopped process would not hear it without SIGCONT.
func (p *process) terminate() {
	p.signal(unix.SIGTERM)
	p.signal(unix.SIGCONT)
}

func (p *process) kill() { p.signal(unix.SIGKILL) }

// groupGone reports whether nothing is left of the group. The process itself is collected
// by then.
func (p *process) groupGone() bool { return unix.Kill(-p.pid, 0) == unix.ESRCH }

// stopped is called when the process was stopped, and reports whether we have stopped as well
// and are awake again. Without job control that is between it and whoever stopped it, and we
// keep the lock. With it, the shell expects its whole job to stop, and we stop renewing.
func (p *process) stopped(c change) (suspended bool) {
	t := p.terminal
	if t == nil || c.by == unix.SIGSTOP {
		return false
	}
	if (c.by == unix.SIGTTIN || c.by == unix.SIGTTOU) && t.give(p.pid) {
		p.signal(unix.SIGCONT)
		return false
	}
	t.takeBack(p.pid)
	// The terminal's own stop signal is caught, and Go does not give the default back. This
	// one stops us just as well, and like it does nothing when no shell could wake us.
	_ = unix.Kill(0, unix.SIGTTIN)
	return true
}

// resume continues the group, in the foreground if that is where we are.
func (p *process) resume() {
	p.terminal.give(p.pid)
	p.signal(unix.SIGCONT)
}
