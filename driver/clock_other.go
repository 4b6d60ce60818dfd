//go:build !linux && !darwin

package driver

type bootClock struct{ monotonic }
