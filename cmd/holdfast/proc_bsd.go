//go:build unix && !linux

package main

import "syscall"

// dieWithParent does nothing: these systems cannot end a process along with its parent.
func dieWithParent(*syscall.SysProcAttr) {}

// endedUncollected leaves everything to the ordinary wait.
func endedUncollected(int) bool { return false }
