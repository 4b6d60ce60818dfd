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
		ctx, cancel := context.WithCancel(context.Background())
		sub := filepath.Join(folder, itoa(n))
		e, err := filelock.Open(sub, filelock.Config{})
		if err != nil {
			return err
		}
		w, err := filelock.Open(sub, filelock.Config{})
		if err != nil {
			return err
		}
		held := request("n")
		g, err := e.Acquire(ctx, held)
		if err != nil {
			return err
		}
		for i := range n {
			r := waiting(inMode(request("n"), driver.Shared))
			r.Owner = "somebody@some-host/12345"
			go w.Acquire(ctx, r)
			for {
				info, err := e.Inspect(ctx, "n")
				if err != nil {
					return err
				}
				if info.Waiters == i+1 {
					break
				}
			}
		}
		filler, err := os.Create(filepath.Join(folder, "filler"))
		for err == nil {
			_, err = filler.Write(make([]byte, 512))
		}
		if !errors.Is(err, unix.ENOSPC) {
			return err
		}
		if err := e.Release(ctx, held.Claim(g)); err != nil {
			bad++
			fmt.Fprintf(os.Stderr, "%d readers wait: release: %v\n", n, err)
		}
		cancel()
		w.Close()
		e.Close()
		filler.Close()
		os.Remove(filler.Name())
		os.RemoveAll(sub)
	}
	if bad > 0 {
		return fmt.Errorf("%d releases failed", bad)
	}
	return nil
}
