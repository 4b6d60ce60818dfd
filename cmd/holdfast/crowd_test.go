//go:build unix

package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// increment is what every process does under the lock: read, add one, write, and show when
// somebody else was there at the same time. The file is replaced as a whole: a process that is
// killed must not leave half of it.
const increment = `
echo "$HOLDFAST_FENCE" >> fences
echo "$$" > owner
read n < counter
echo "$((n + 1))" > "counter.$$"
mv "counter.$$" counter
read o < owner
[ "$o" = "$$" ] || echo overlap >> overlaps
echo "$$" >> commits
`

// crowdRounds is how often each of the 64 processes takes the lock: few times in a normal
// run, 200 times in `make verify`.
func crowdRounds(t *testing.T) int {
	if s := os.Getenv("HOLDFAST_CROWD"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 6
}

// crowd is a folder with a counter and the program to change it under a lock.
type crowd struct {
	t       *testing.T
	program string
	folder  string
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{t: t, folder: t.TempDir()}
	c.program = filepath.Join(c.folder, "holdfast")
	// Without the race detector: this is about processes, and there are thousands of them.
	if out, err := exec.Command("go", "build", "-o", c.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	c.write("counter", "0\n")
	return c
}

func (c *crowd) write(file, text string) {
	if err := os.WriteFile(filepath.Join(c.folder, file), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// numbers reads a file of numbers, one a line; a file that was never made has none.
func (c *crowd) numbers(file string) (ns []int64) {
	data, err := os.ReadFile(filepath.Join(c.folder, file))
	if err != nil && !os.IsNotExist(err) {
		c.t.Fatal(err)
	}
	for _, line := range strings.Fields(string(data)) {
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			c.t.Fatalf("%s: %v", file, err)
		}
		ns = append(ns, n)
	}
	return ns
}

func (c *crowd) command() *exec.Cmd {
	cmd := exec.Command(c.program, "run", "--wait", "4m", "counter", "--", "sh", "-c", increment)
	cmd.Dir = c.folder
	cmd.Env = append(os.Environ(), "HOLDFAST_URL="+fileURL(filepath.Join(c.folder, "locks")))
	return cmd
}

// checkFences fails unless every fence is larger than the one before, and nobody overlapped.
func (c *crowd) checkFences() {
	c.t.Helper()
	last := int64(0)
	for i, f := range c.numbers("fences") {
		if f <= last {
			c.t.Errorf("fence %d of holder %d after %d", f, i, last)
		}
		last = f
	}
	if data, err := os.ReadFile(filepath.Join(c.folder, "overlaps")); err == nil {
		c.t.Errorf("%d overlaps", strings.Count(string(data), "\n"))
	}
}

// TestCrowdOfProcesses: 64 processes increment a number in a file, each time under a lock of
// its own process.
func TestCrowdOfProcesses(t *testing.T) {
	c := newCrowd(t)
	rounds := crowdRounds(t)
	begin := time.Now()
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			for range rounds {
				if out, err := c.command().CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
					return
				}
			}
		})
	}
	group.Wait()
	if n := c.numbers("counter"); len(n) != 1 || n[0] != int64(64*rounds) {
		t.Errorf("the counter is at %v, want %d", n, 64*rounds)
	}
	c.checkFences()
	t.Logf("%d increments in %v", 64*rounds, time.Since(begin).Round(time.Millisecond))
}

// TestCrowdWithKills is the same while holders are killed at random: nobody is stuck, and
// every fence is larger than the one before.
func TestCrowdWithKills(t *testing.T) {
	c := newCrowd(t)
	rounds := crowdRounds(t)
	var group sync.WaitGroup
	var killed, ended atomic.Int64
	for range 64 {
		group.Go(func() {
			for range rounds {
				cmd := c.command()
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				kill := time.AfterFunc(time.Duration(rand.IntN(3000))*time.Millisecond, func() {
					if rand.IntN(2) == 0 && cmd.Process.Kill() == nil {
						killed.Add(1)
					}
				})
				err := cmd.Wait()
				kill.Stop()
				if err == nil {
					ended.Add(1)
				} else if cmd.ProcessState.ExitCode() >= 0 {
					t.Errorf("exited with %v", err)
				}
			}
		})
	}
	group.Wait()
	counted, committed := c.numbers("counter"), int64(len(c.numbers("commits")))
	if len(counted) != 1 || counted[0] < committed || counted[0] > committed+killed.Load() || committed < ended.Load() {
		t.Errorf("the counter is at %v after %d increments that ended and %d kills", counted, committed, killed.Load())
	}
	c.checkFences()
	t.Logf("%d processes ended by themselves, %d were killed", ended.Load(), killed.Load())
}
