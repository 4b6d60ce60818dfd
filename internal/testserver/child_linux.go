package testserver

import "syscall"

// childAttributes: a server dies with the test binary, however that ends, and does not hear
// the Ctrl-C that is meant for it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
