package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The child dies with the thread that starts it: start is called by one that lasts.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// startOn starts cmd on the processors. The calling goroutine is locked to its thread, from
// which the child inherits them.
func startOn(cmd *exec.Cmd, processors []int) error {
	if len(processors) == 0 {
		return cmd.Start()
	}
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	set := setOf(processors)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processors %v: %w", processors, err)
	}
	err := cmd.Start()
	if e := unix.SchedSetaffinity(0, &before); err == nil && e != nil {
		err = e
	}
	return err
}

// pin moves all threads of the processes, and of those that they have started, to the
// processors. Threads and processes that these start later inherit them.
func pin(pids, processors []int) error {
	for _, pid := range family(pids) {
		if err := pinOne(pid, processors); err != nil {
			return err
		}
	}
	return nil
}

func pinOne(pid int, processors []int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has ended meanwhile
	}
	if err != nil {
		return err
	}
	set := setOf(processors)
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("processors %v for thread %d: %w", processors, tid, err)
		}
	}
	return nil
}

// allProcessors are those that this process may run on.
func allProcessors() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var all []int
	for i := 0; len(all) < set.Count(); i++ {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all
}

func setOf(processors []int) unix.CPUSet {
	var set unix.CPUSet
	for _, p := range processors {
		set.Set(p)
	}
	return set
}

// family returns the processes and the children that they have.
func family(pids []int) []int {
	all := slices.Clone(pids)
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is good
		for _, path := range threads {
			data, err := os.ReadFile(path)
			if err != nil {
				continue // the thread has ended
			}
			for field := range strings.FieldsSeq(string(data)) {
				if child, err := strconv.Atoi(field); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// tick is the unit in which the system tells the time of processes.
const tick = time.Second / 100

// processorTimeOf is what the processes have used, and their children, those that ended
// included.
func processorTimeOf(pids []int) (sum time.Duration) {
	for i, pid := range family(pids) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // a child that has ended: its parent counts it from then on
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // after the program's name
		fields := strings.Fields(rest)
		if len(fields) < 15 {
			continue
		}
		used := fields[11:13] // user and system
		if i < len(pids) {
			used = fields[11:15] // and those of children that ended
		}
		for _, f := range used {
			n, _ := strconv.ParseInt(f, 10, 64)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}
