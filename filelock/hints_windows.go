package filelock

import (
	"errors"

	"golang.org/x/sys/windows"
)

// hintFor says what to do about an error of the system, as far as we know.
func hintFor(err error) string {
	switch {
	case errors.Is(err, windows.ERROR_WRITE_PROTECT):
		return "the disk is read-only: choose a folder that can be written"
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return "this user may not use it: fix its permissions, or choose another folder"
	case isFull(err):
		return "the disk or the quota is full: free some space"
	case errors.Is(err, windows.ERROR_TOO_MANY_OPEN_FILES):
		return "too many open files: close some"
	}
	return ""
}

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
