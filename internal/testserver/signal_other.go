//go:build !unix

package testserver

import (
	"errors"
	"os"
	"os/exec"
)

func freeze(*os.Process) error { return errors.ErrUnsupported }
func resume(*os.Process) error { return nil }

func freezeID(int) error { return errors.ErrUnsupported }
func resumeID(int) error { return nil }

func childLeft() error { return nil }

func runAs(*exec.Cmd, string) error { return nil }
func give(string, string) error     { return nil }
