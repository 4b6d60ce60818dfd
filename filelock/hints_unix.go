//go:build unix

package filelock

import (
	"errors"

	"golang.org/x/sys/unix"
)

// hintFor says what to do about an error of the system, as far as we know.
func hintFor(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return "the file system is read-only: choose a folder that can be written"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "this user may not use it: fix owner and permissions, or choose another folder"
	case isFull(err):
		return "the disk or the quota is full: free some space"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return "too many open files: raise the limit (ulimit -n)"
	case errors.Is(err, unix.ENOTDIR):
		return "part of the path is a file: choose another folder"
	case errors.Is(err, unix.ELOOP):
		return "a symbolic link stands where the lock's own file belongs: remove it"
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return "the file system has no file locks: choose a folder on a local disk"
	}
	return ""
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
