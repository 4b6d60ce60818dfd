package filelock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

func init() { helpers["full-crowd"] = fullCrowd }

func TestCrowdOnAFullDisk(t *testing.T) { inNamespace(t, "full-crowd") }

// The holder of a lock that a crowd waits for must be able to release it on a full disk.
func fullCrowd(args []string) error {
	folder := args[0]
	if err := mountSmall(folder, "512k"); err != nil {
		return err
	}
	bad := 0
	for n := 12; n < 60; n++ {
		released, err := releaseOnAFullDisk(filepath.Join(folder, itoa(n)), n)
		if err != nil {
			return err
		}
		if released != nil {
			bad++
			fmt.Fprintf(os.Stderr, "%d readers wait: release: %v\n", n, released)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d releases failed", bad)
	}
	return nil
}

// releaseOnAFullDisk has n readers wait for a lock in folder, fills the disk, and returns what
// became of the release.
func releaseOnAFullDisk(folder string, n int) (released, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e, err := filelock.Open(folder, filelock.Config{})
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	defer e.Close()
	w, err := filelock.Open(folder, filelock.Config{})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	held := request("n")
	g, err := e.Acquire(ctx, held)
	if err != nil {
		return nil, err
	}
	for i := range n {
		r := waiting(inMode(request("n"), driver.Shared))
		r.Owner = "somebody@some-host/12345"
		go w.Acquire(ctx, r)
		for joined := false; !joined; {
			info, err := e.Inspect(ctx, "n")
			if err != nil {
				return nil, err
			}
			joined = info.Waiters == i+1
		}
	}
	filler := filepath.Join(filepath.Dir(folder), "filler")
	defer os.Remove(filler)
	if err := fill(filler); err != nil {
		return nil, err
	}
	return e.Release(ctx, held.Claim(g)), nil
}

// fill writes to a file until the disk is full.
func fill(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil
}
