//go:build !linux && !darwin

package filelock

// bootID identifies the run of the kernel. Here no such number is known that stays the same
// when the clock is set; the witness of the ceiling stands in for it.
func bootID() string { return "" }
