//go:build !linux && !darwin

package filelock

// networkFileSystem returns the name of the network file system that path is on, or "". Here
// it cannot tell.
func networkFileSystem(string) (string, error) { return "", nil }
