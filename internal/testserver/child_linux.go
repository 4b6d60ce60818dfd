package testserver

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// childAttributes: a server dies with the test binary, however that ends, and does not hear
// the Ctrl-C that is meant for it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// frozen says whether a process has come to a halt: the signal takes effect a moment after it
// is sent.
func frozen(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ") // after the program's name
	return strings.HasPrefix(state, "T")
}
