package filelock

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast-go/holdfast/driver"
)

var (
	errClosed = driver.Fail(driver.Closed, nil)

	// errQueued says that the request is in the book and waits. It never leaves the package.
	errQueued = errors.New("queued")

	// errAbsent says that nobody has ever used the name. It never leaves the package.
	errAbsent = errors.New("absent")

	// errBusy says that another process is in the critical section. It is the raw error
	// beside that of a context that ended meanwhile.
	errBusy = errors.New("another process is changing the lock's file and does not go on: it may be frozen in the middle (SIGSTOP); resume or kill it")
)

// unavailable classifies what a system call on path failed with, before anything took effect.
func unavailable(doing, path string, err error) *driver.Error {
	var classified *driver.Error
	if errors.As(err, &classified) {
		return classified
	}
	if hint := hintFor(err); hint != "" {
		return driver.Failf(driver.Unavailable, "%s %s: %w: %s", doing, path, bare(err), hint)
	}
	return driver.Failf(driver.Unavailable, "%s %s: %w", doing, path, bare(err))
}

// bare takes the path that package os puts into its errors out again.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// corrupt says that what stands in path cannot be relied on.
func corrupt(path, format string, args ...any) error {
	return driver.Failf(driver.Unavailable, "file %s: %s: stop everything that uses its folder, then delete the file; it loses the fence counter of its name",
		path, fmt.Sprintf(format, args...))
}

// foreign says that the file of one name holds the state of another.
func foreign(path, name string) error { return corrupt(path, "it belongs to the name %.80q", name) }
