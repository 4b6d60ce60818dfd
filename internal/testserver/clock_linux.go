package testserver

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// clock is by how much a server's wall clock is ahead of the machine's. The server has it in
// its memory as well.
type clock struct {
	ahead *atomic.Int64 // in nanoseconds
	env   []string      // with which the server begins
}

//go:embed preload/clock.c
var clockSource []byte

// newClock returns a clock that is not ahead. What it needs is put into a folder of the test.
func newClock(t testing.TB, folder string) *clock {
	t.Helper()
	compiler := Need(t, "gcc")
	source, library, file := filepath.Join(folder, "clock.c"), filepath.Join(folder, "clock.so"), filepath.Join(folder, "clock")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(compiler, "-O", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, out)
	}
	size := int(unsafe.Sizeof(atomic.Int64{}))
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	c := &clock{
		ahead: (*atomic.Int64)(unsafe.Pointer(unsafe.SliceData(memory))), // a page begins at a multiple of anything
		env:   []string{"LD_PRELOAD=" + library, "HOLDFAST_CLOCK=" + file},
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(memory); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *clock) set(ahead time.Duration) { c.ahead.Store(int64(ahead)) }
