//go:build !linux

package testserver

import "syscall"

func childAttributes() *syscall.SysProcAttr { return nil }

// frozen: there is nowhere to look, and the signal takes effect soon.
func frozen(int) bool { return true }

// childrenOf: there is nowhere to look.
func childrenOf(int) []int { return nil }

// alive: there is nowhere to look.
func alive(int) bool { return false }
