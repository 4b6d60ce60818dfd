//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

func dieWithParent(*exec.Cmd) {}

func startOn(cmd *exec.Cmd, processors []int) error {
	if len(processors) > 0 {
		return errors.New("processes cannot be pinned to processors on this system")
	}
	return cmd.Start()
}

func pin(int, []int) error { return nil }

// allProcessors is empty where processes cannot be pinned.
func allProcessors() []int { return nil }
