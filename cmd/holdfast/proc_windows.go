package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/windows"
)

// endingSignals end the wait for the lock; forwardedSignals go to the command.
var (
	endingSignals    = []os.Signal{os.Interrupt}
	forwardedSignals = endingSignals
)

func isContinue(os.Signal) bool  { return false }
func isStop(os.Signal) bool      { return true }
func isNoExec(err error) bool    { return errors.Is(err, windows.ERROR_BAD_EXE_FORMAT) }
func signalNumber(os.Signal) int { return 2 } // the only one there is

func notify(ch chan<- os.Signal, signals []os.Signal) { signal.Notify(ch, signals...) }

// surviveClosedStderr has nothing to do: writing to a closed pipe is an error, not a signal.
func surviveClosedStderr() {}

// process is a command in a job, the group that Windows can end as a whole.
type process struct {
	cmd     *exec.Cmd
	job     windows.Handle
	changes chan change
}

// change is what happened to the command: here it only ever ends.
type change struct{ ended bool }

func startProcess(path string, argv, env []string, s streams) (*process, error) {
	job, err := newJob()
	if err != nil {
		return nil, err
	}
	p := &process{job: job, changes: make(chan change)}
	p.cmd = &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: s.in, Stdout: s.out, Stderr: s.err}
	p.cmd.SysProcAttr = &windows.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
	if err := p.cmd.Start(); err != nil {
		windows.CloseHandle(job)
		return nil, err
	}
	if err := p.join(); err != nil {
		_ = p.cmd.Process.Kill() // it must not run out of our reach
		windows.CloseHandle(job)
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // the state says it all
		p.changes <- change{ended: true}
	}()
	return p, nil
}

// newJob returns a job that ends with us, because nobody else has a handle of it.
func newJob() (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, err
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return job, err
}

// join puts the command into the job.
func (p *process) join() error {
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(p.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h)
	return windows.AssignProcessToJobObject(p.job, h)
}

// signal passes Ctrl-C on as Ctrl-Break, the one that can be sent to a process group.
func (p *process) signal(os.Signal) {
	_ = windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.cmd.Process.Pid))
}

func (p *process) terminate() { p.signal(os.Interrupt) }
func (p *process) kill()      { _ = windows.TerminateJobObject(p.job, 1) }

func (p *process) reap() int { return p.cmd.ProcessState.ExitCode() }

// groupGone ends what is left in the job.
func (p *process) groupGone() bool {
	p.kill()
	return true
}

func (p *process) stopped(change) bool { return false }
func (p *process) resume()             {}
func (p *process) passUp()             {}
