//go:build unix

package testserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// freeze stops a process where it is: it keeps its connections and answers nothing.
func freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// resume lets a frozen process go on.
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

func freezeID(pid int) error { return syscall.Kill(pid, syscall.SIGSTOP) }

func resumeID(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }

// childLeft returns an error where this process has children, dead or alive.
func childLeft() error {
	switch pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); {
	case errors.Is(err, syscall.ECHILD):
		return nil
	case err != nil:
		return err
	case pid > 0:
		return fmt.Errorf("nobody has asked how process %d ended", pid)
	}
	return errors.New("a process still runs")
}

// account returns the ids of a user, and false where this process is not root: it cannot be
// anybody else then, nor does it have to.
func account(name string) (uid, gid int, ok bool, err error) {
	if name == "" || os.Geteuid() != 0 {
		return 0, 0, false, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, false, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, true, errors.Join(err1, err2)
}

// runAs makes cmd run as that user.
func runAs(cmd *exec.Cmd, name string) error {
	uid, gid, ok, err := account(name)
	if err != nil || !ok {
		return err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// give makes that user the owner of a file.
func give(path, name string) error {
	uid, gid, ok, err := account(name)
	if err != nil || !ok {
		return err
	}
	return os.Chown(path, uid, gid)
}
