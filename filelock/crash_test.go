//go:build unix

package filelock_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/filelock"
)

// The counter of the storm is a file of records, each one more than the one before. Its
// single append is what commits an increment.
const recordSize = 16

// count increments the counter under the lock until it has reached the target.
func count(args []string) error {
	folder, counter := args[0], args[1]
	target, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	e, err := filelock.Open(folder, filelock.Config{})
	if err != nil {
		return err
	}
	defer e.Close()
	for {
		r := waiting(request("counter"))
		ctx, cancel := context.WithTimeout(context.Background(), liveness)
		if rand.N(10) == 0 { // some give up early
			cancel()
			ctx, cancel = context.WithTimeout(context.Background(), rand.N(time.Millisecond))
		}
		g, err := e.Acquire(ctx, r)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		dieSometimes()
		value, err := increment(counter, g.Fence)
		if err != nil {
			return err
		}
		dieSometimes()
		if err := e.Release(context.Background(), r.Claim(g)); err != nil {
			return err
		}
		if value >= target {
			return nil
		}
	}
}

// dieSometimes kills the process while it holds the lock.
func dieSometimes() {
	if rand.N(60) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func increment(path string, fence int64) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return 0, err
	}
	var rec [recordSize]byte
	if size > 0 {
		if _, err := f.ReadAt(rec[:], size-recordSize); err != nil {
			return 0, err
		}
	}
	value := int64(binary.LittleEndian.Uint64(rec[:])) + 1
	if rand.N(4) == 0 {
		time.Sleep(rand.N(200 * time.Microsecond)) // another's turn, if there is one
	}
	binary.LittleEndian.PutUint64(rec[:], uint64(value))
	binary.LittleEndian.PutUint64(rec[8:], uint64(fence))
	_, err = f.Write(rec[:])
	return value, err
}

// Many processes increment a counter while they are killed at random. Every increment that
// was committed counts once, fences grow, and nobody waits for the dead.
func TestStorm(t *testing.T) {
	processes, target := 64, 3000
	if testing.Short() {
		processes, target = 16, 500
	}
	folder, counter := t.TempDir(), filepath.Join(t.TempDir(), "counter")
	type end struct {
		cmd    *exec.Cmd
		err    error
		killed bool
	}
	ended := make(chan end)
	running := make(map[*exec.Cmd]bool)
	launch := func() {
		cmd := helperCommand("count", folder, counter, itoa(target))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running[cmd] = true
		go func() {
			err := cmd.Wait()
			ended <- end{cmd, err, cmd.ProcessState.ExitCode() < 0}
		}()
	}
	for range processes {
		launch()
	}
	defer func() {
		for cmd := range running {
			_ = cmd.Process.Kill()
		}
	}()
	deadline := time.After(3 * time.Minute)
	kill := time.NewTicker(100 * time.Millisecond)
	defer kill.Stop()
	killed := 0
	for len(running) > 0 {
		select {
		case end := <-ended:
			delete(running, end.cmd)
			switch {
			case end.killed:
				killed++
				launch()
			case end.err != nil:
				t.Fatal(end.err)
			}
		case <-kill.C:
			info, err := os.Stat(counter)
			if err != nil || info.Size()/recordSize >= int64(target) {
				continue
			}
			for cmd := range running { // the order of a map is random enough
				_ = cmd.Process.Kill()
				break
			}
		case <-deadline:
			info, _ := os.Stat(counter)
			t.Fatalf("%d processes are stuck, the counter is at %v of %d", len(running), info.Size()/recordSize, target)
		}
	}
	checkCounter(t, counter, target)
	t.Logf("%d processes were killed", killed)
	checkEmpty(t, folder)
}

// checkEmpty checks that those who are gone left nothing behind.
func checkEmpty(t *testing.T, folder string) {
	t.Helper()
	e := open(t, folder)
	if files, _ := os.ReadDir(filepath.Join(folder, "members")); len(files) != 1 {
		t.Errorf("%d files are left in members, want one", len(files))
	}
	if info, err := e.Inspect(patient(t), "counter"); err != nil || len(info.Holders) != 0 || info.Waiters != 0 {
		t.Errorf("left in the book: %+v, %v", info, err)
	}
}

func checkCounter(t *testing.T, path string, target int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b)%recordSize != 0 || len(b)/recordSize < target {
		t.Fatalf("the counter has %d bytes", len(b))
	}
	last := int64(0)
	for i := 0; i < len(b); i += recordSize {
		value := int64(binary.LittleEndian.Uint64(b[i:]))
		fence := int64(binary.LittleEndian.Uint64(b[i+8:]))
		if want := int64(i/recordSize + 1); value != want {
			t.Fatalf("increment %d has the value %d: two held the lock", want, value)
		}
		if fence <= last {
			t.Fatalf("increment %d has fence %d after %d", value, fence, last)
		}
		last = fence
	}
}
