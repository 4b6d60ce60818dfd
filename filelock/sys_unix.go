//go:build unix

package filelock

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Locks are those of flock(2): they belong to the open file description, not to the process,
// so that two engines of one process exclude each other too, and closing some other
// descriptor of the file does not drop them, as it does with those of fcntl(2).

// openFlags keep a link that somebody planted from leading out of the folder, and a planted
// pipe from blocking the open. Package os adds O_CLOEXEC to every open: a child that outlives
// this process must not keep its locks.
const openFlags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK

func openFile(path string, create bool, mode fs.FileMode) (*os.File, error) {
	flags := openFlags
	if create {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(path, flags|quietly, mode)
	if quietly != 0 && errors.Is(err, unix.EPERM) {
		return os.OpenFile(path, flags, mode)
	}
	return file, err
}

// hasGroups says that a file has a group, which may have access.
const hasGroups = true

// shareGroup gives path the group of the folder model, as far as we may.
func shareGroup(path, model string) {
	var st unix.Stat_t
	if model != "" && unix.Stat(model, &st) == nil {
		_ = unix.Lchown(path, -1, int(st.Gid))
	}
}

// tryLock locks f without waiting and reports whether it could.
func tryLock(f *os.File, exclusive bool) (bool, error) {
	how := unix.LOCK_SH | unix.LOCK_NB
	if exclusive {
		how = unix.LOCK_EX | unix.LOCK_NB
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// unlock unlocks f. On a descriptor that is open it cannot fail.
func unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// identity tells a file apart from all others that exist at the same time. While a file is
// open its identity is not given to another.
type identity struct{ dev, ino uint64 }

func identityOf(st *unix.Stat_t) identity { return identity{uint64(st.Dev), st.Ino} }

// identify returns the identity of f, which must be a regular file.
func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return identity{}, errors.New("it is not a regular file: remove it")
	}
	return identityOf(&st), nil
}

// names reports whether path still leads to the file with identity id, which f is.
func names(path string, _ *os.File, id identity) (bool, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case err == nil:
		return identityOf(&st) == id, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	default:
		return false, err
	}
}

// linked reports whether f still has a name.
func linked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}

// syncDir makes the entries of a folder durable. Where folders cannot be synced, the file
// system has to take care of them by itself.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
