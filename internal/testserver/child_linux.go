package testserver

import (
	"fmt"
	"os"
	"strconv"
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
func frozen(pid int) bool { return stateOf(pid) == "T" }

// alive says whether a process runs, or could: what is dead keeps its id until its parent has
// asked how it ended.
func alive(pid int) bool { return !strings.Contains("ZX", stateOf(pid)) }

// stateOf returns the letter for the state of a process, "" when there is none.
func stateOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, state, _ := strings.Cut(string(stat), ") ") // after the program's name
	return state[:min(1, len(state))]
}

// childrenOf returns the processes that pid has started and that live.
func childrenOf(pid int) []int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var children []int
	for field := range strings.FieldsSeq(string(data)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}
