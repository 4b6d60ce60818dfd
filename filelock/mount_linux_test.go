package filelock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

func init() {
	helpers["read-only"] = readOnly
	helpers["full"] = full
	helpers["few-files"] = fewFiles
}

// inNamespace runs a helper in mounts of its own, which nobody else sees and which end with
// it.
func inNamespace(t *testing.T, name string) {
	t.Helper()
	cmd := helperCommand(name, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	switch {
	case errors.Is(err, os.ErrPermission) || strings.Contains(stderr.String(), noMounts):
		testserver.Missing(t, "needs root: this user may not mount anything")
	case err != nil:
		t.Errorf("%v: %s", err, stderr.String())
	}
}

const noMounts = "mounting is not permitted"

// mountSmall mounts a file system of size on folder, which has no room for more than that.
func mountSmall(folder, size string) error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", folder, "tmpfs", 0, "size="+size)
	}
	if errors.Is(err, unix.EPERM) {
		return errors.New(noMounts)
	}
	return err
}

// expect checks the kind and the words of an error.
func expect(err error, kind driver.Kind, words ...string) error {
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != kind || d.Outcome != driver.NotApplied {
		return fmt.Errorf("error %v, want one of kind %v that took no effect", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			return fmt.Errorf("%q is not in error %q", w, err)
		}
	}
	return nil
}

func TestReadOnly(t *testing.T) { inNamespace(t, "read-only") }

func readOnly(args []string) error {
	folder := args[0]
	if err := mountSmall(folder, "256k"); err != nil {
		return err
	}
	locks := filepath.Join(folder, "locks")
	e, err := filelock.Open(locks, filelock.Config{})
	if err != nil {
		return err
	}
	r := request("a")
	g, err := e.Acquire(context.Background(), r)
	if err != nil {
		return err
	}
	remount := func(flags uintptr) error {
		return unix.Mount("tmpfs", folder, "tmpfs", unix.MS_REMOUNT|flags, "")
	}
	// Files that are open for writing keep a file system from becoming read-only, so that
	// this can only be met by those who open it.
	if err := remount(unix.MS_RDONLY); !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remount: %v", err)
	}
	if err := e.Release(context.Background(), r.Claim(g)); err != nil {
		return err
	}
	e.Close()
	if err := remount(unix.MS_RDONLY); err != nil {
		return err
	}
	for _, path := range []string{locks, filepath.Join(folder, "new")} {
		_, err := filelock.Open(path, filelock.Config{})
		if err := expect(err, driver.Unavailable, folder, "read-only"); err != nil {
			return err
		}
	}
	if err := remount(0); err != nil {
		return err
	}
	e, err = filelock.Open(locks, filelock.Config{})
	if err != nil {
		return err
	}
	return e.Close()
}

func TestFullDisk(t *testing.T) { inNamespace(t, "full") }

func full(args []string) error {
	folder := args[0]
	if err := mountSmall(folder, "256k"); err != nil {
		return err
	}
	ctx := context.Background()
	e, err := filelock.Open(folder, filelock.Config{})
	if err != nil {
		return err
	}
	held, other := request("held"), request("other")
	g, err := e.Acquire(ctx, held)
	if err != nil {
		return err
	}
	filler, err := os.Create(filepath.Join(folder, "filler"))
	if err != nil {
		return err
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("filling: %w", err)
	}
	// A lock that nobody has used yet needs room.
	_, err = e.Acquire(ctx, other)
	if err := expect(err, driver.Unavailable, "other", "free some space"); err != nil {
		return err
	}
	// What is held can be checked, released, and taken again.
	if err := e.Renew(ctx, []driver.Claim{held.Claim(g)})[0]; err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	if err := e.Release(ctx, held.Claim(g)); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	again, err := e.Acquire(ctx, held)
	if err != nil || again.Fence <= g.Fence {
		return fmt.Errorf("fence %d after %d, %w", again.Fence, g.Fence, err)
	}
	if err := os.Truncate(filler.Name(), 0); err != nil {
		return err
	}
	if _, err = e.Acquire(ctx, other); err != nil {
		return fmt.Errorf("with space again: %w", err)
	}
	return e.Close()
}

func TestFewFiles(t *testing.T) {
	cmd := helperCommand("few-files", t.TempDir())
	cmd.Stderr = nil
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// fewFiles meets the limit of open files.
func fewFiles(args []string) error {
	ctx := context.Background()
	e, err := filelock.Open(args[0], filelock.Config{})
	if err != nil {
		return err
	}
	r := request("a")
	g, err := e.Acquire(ctx, r)
	if err != nil {
		return err
	}
	var files []*os.File
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		files = append(files, f)
	}
	_, err = e.Acquire(ctx, request("b"))
	if err := expect(err, driver.Unavailable, "ulimit"); err != nil {
		return err
	}
	_, err = filelock.Open(args[0], filelock.Config{})
	if err := expect(err, driver.Unavailable, "ulimit"); err != nil {
		return err
	}
	if err := e.Release(ctx, r.Claim(g)); err != nil { // its file is open
		return err
	}
	for _, f := range files {
		f.Close()
	}
	_, err = e.Acquire(ctx, request("b"))
	return err
}
