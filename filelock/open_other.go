//go:build unix && !linux

package filelock

// quietly has no counterpart here.
const quietly = 0
