//go:build unix

package filelock_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// BenchmarkUncontended is one Acquire and Release of a lock that nobody else wants.
func BenchmarkUncontended(b *testing.B) {
	e := open(b, b.TempDir())
	ctx := context.Background()
	r := request("invoice:2026")
	b.ReportAllocs()
	for b.Loop() {
		r.Token = newToken()
		g, err := e.Acquire(ctx, r)
		if err == nil {
			err = e.Release(ctx, r.Claim(g))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareSyscalls is what a lock in a file costs at least that says who holds it: open,
// lock, write a hundred bytes, unlock, close.
func BenchmarkBareSyscalls(b *testing.B) {
	path := filepath.Join(b.TempDir(), "lock")
	var buf [100]byte
	b.ReportAllocs()
	for b.Loop() {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err == nil {
			err = unix.Flock(fd, unix.LOCK_EX)
		}
		if err == nil {
			_, err = unix.Pwrite(fd, buf[:], 0)
		}
		if err == nil {
			err = unix.Flock(fd, unix.LOCK_UN)
		}
		if err == nil {
			err = unix.Close(fd)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkManyNames takes a new name every time: a file is made and synced for each.
func BenchmarkManyNames(b *testing.B) {
	e := open(b, b.TempDir())
	ctx := context.Background()
	for i := range b.N {
		r := request("order:" + itoa(i))
		g, err := e.Acquire(ctx, r)
		if err == nil {
			err = e.Release(ctx, r.Claim(g))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRenew checks one lock that is held.
func BenchmarkRenew(b *testing.B) {
	e := open(b, b.TempDir())
	ctx := context.Background()
	r := request("invoice:2026")
	g := acquire(b, e, r)
	claims := []driver.Claim{r.Claim(g)}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Renew(ctx, claims)[0]; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandOver passes one lock on between waiting engines: release to resume.
func BenchmarkHandOver(b *testing.B) {
	folder := b.TempDir()
	ctx := context.Background()
	const engines = 4
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, engines)
	all := make([]*filelock.Engine, engines)
	for i := range all {
		all[i] = open(b, folder)
	}
	b.ResetTimer()
	for _, e := range all {
		go func() {
			for left.Add(-1) >= 0 {
				r := request("shared")
				r.Wait = true
				g, err := e.Acquire(ctx, r)
				if err == nil {
					err = e.Release(ctx, r.Claim(g))
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range all {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
