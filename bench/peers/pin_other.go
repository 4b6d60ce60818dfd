//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

func dieWithParent(*exec.Cmd) {}

func startOn(cmd *exec.Cmd, processors []int) error {
	if len(processors) > 0 {
		return errors.New("processes cannot be pinned to processors on this system")
	}
	return cmd.Start()
}

func pin([]int, []int) error { return nil }

// processorTimeOf is not known here.
func processorTimeOf([]int) time.Duration { return 0 }

// allProcessors is empty where processes cannot be pinned.
func allProcessors() []int { return nil }
