package filelock

import (
	"errors"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/windows"
)

const openFlags = os.O_RDWR

func openFile(path string, create bool, mode fs.FileMode) (*os.File, error) {
	flags := openFlags
	if create {
		flags |= os.O_CREATE
	}
	return os.OpenFile(path, flags, mode)
}

// hasGroups says that a file has a group, which may have access.
const hasGroups = false

func shareGroup(string, string) {}

// Locks of Windows are mandatory: others can neither read nor write the range. The range that
// stands for the file is therefore one that nobody writes to.
const lockAt = math.MaxInt32

func lockRange() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: lockAt} }

// tryLock locks f without waiting and reports whether it could.
func tryLock(f *os.File, exclusive bool) (bool, error) {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, lockRange())
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	}
	return false, err
}

// unlock unlocks f. On a handle that is open it cannot fail.
func unlock(f *os.File) { _ = windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, lockRange()) }

// identity is not needed here: a file that is open without FILE_SHARE_DELETE, as package os
// opens it, can be neither removed nor renamed.
type identity struct{}

func identify(f *os.File) (identity, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file: remove it")
	}
	return identity{}, err
}

// names reports whether path still leads to f.
func names(path string, f *os.File, _ identity) (bool, error) {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	here, err := f.Stat()
	return err == nil && os.SameFile(here, there), err
}

// linked reports whether f still has a name.
func linked(*os.File) bool { return true }

// syncDir has no counterpart here: NTFS journals the entries of folders.
func syncDir(string) error { return nil }
