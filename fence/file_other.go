//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package fence

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

const openFlags = 0

func tryLock(*os.File) (bool, error) {
	return false, fmt.Errorf("there is no flock on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func syncFolder(string) error { return nil }
