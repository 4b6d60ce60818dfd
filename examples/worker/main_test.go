package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/cluster"
	"github.com/holdfast-go/holdfast/examples/internal/program"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestMain(m *testing.M) { cluster.Main(m, main) }

// instance starts a worker that counts how many work with it.
func instance(t *testing.T, m *cluster.Memory, path string, working *atomic.Int32) *cluster.Instance {
	return m.Start(func(ctx context.Context, hf *holdfast.Client) error {
		w, err := newWorker(hf, path, func(ctx context.Context, _ int) error {
			if n := working.Add(1); n > 1 {
				t.Errorf("%d work at once", n)
			}
			defer working.Add(-1)
			return program.Sleep(ctx, time.Second)
		})
		if err != nil {
			return err
		}
		return w.run(ctx)
	})
}

func number(t *testing.T, path string) int {
	t.Helper()
	n, err := (&worker{path: path}).read()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// One works at a time, and whoever follows a leader that left or died goes on from its number.
func TestSuccession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "count")
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		var working atomic.Int32
		first := instance(t, m, path, &working)
		synctest.Wait()
		second := instance(t, m, path, &working)
		synctest.Wait()
		third := instance(t, m, path, &working)
		time.Sleep(5*time.Second + time.Second/2)
		if n := number(t, path); n != 5 {
			t.Errorf("after 5 seconds the number is %d", n)
		}
		first.Stop()
		time.Sleep(5*time.Second + time.Second/4)
		if n := number(t, path); n != 10 {
			t.Errorf("5 seconds after the leader resigned the number is %d", n)
		}
		second.Kill()
		time.Sleep(15 * time.Second) // of which the dead leader's TTL takes 10 at most
		if n := number(t, path); n < 14 || n > 20 {
			t.Errorf("15 seconds after the leader died the number is %d", n)
		}
		third.Stop()
	})
}

// A leader that has not been told yet that another one leads can write nothing, and stands for
// election again.
func TestOvertaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "count")
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		attempts := 0
		m.Start(func(ctx context.Context, hf *holdfast.Client) error {
			w, err := newWorker(hf, path, func(ctx context.Context, n int) error {
				if attempts++; attempts > 1 {
					return program.Sleep(ctx, time.Second)
				}
				if m.Lose("election:worker") != 1 {
					t.Error("work without the lock")
				}
				time.Sleep(time.Second) // the other one leads, and has written
				if ctx.Err() != nil {
					t.Error("it was told already")
				}
				return nil
			})
			if err != nil {
				return err
			}
			return w.run(ctx)
		})
		synctest.Wait()
		other, err := newWorker(m.Client(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		term, err := other.election.Campaign(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(other.file.Open(t.Context(), term.Lease()), other.file.Write(t.Context(), term.Lease(), []byte("100\n"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := number(t, path); n != 100 || attempts != 1 {
			t.Errorf("the number is %d after %d attempts of the one that was overtaken", n, attempts)
		}
		if err := term.Resign(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := number(t, path); n < 150 {
			t.Errorf("a minute after the resignation the number is %d", n)
		}
	})
}

// Two processes on a server. The one that leads is frozen until the other one does, and goes on: each
// number is written once all the same. Then the one that leads is killed.
func TestFrozenLeader(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	path := filepath.Join(t.TempDir(), "fresh", "count")
	start := func() *cluster.Process {
		return cluster.Start(t, "-engine", "redis://"+server.Addr()+"?ttl=1s", "-file", path, "-takes", "300ms")
	}
	first := start()
	first.Await(1, "wrote")
	second := start()
	second.Await(1, "started")
	// Right after it wrote, and not while it does: the file's guard would wait for it.
	first.Await(count(first, "wrote")+1, "wrote")
	first.Pause()
	second.Await(2, "wrote")
	first.Resume()
	first.Await(1, "stopped")
	wrote := count(first, "wrote")
	second.Kill()
	first.Await(wrote+2, "wrote")
	first.Stop()
	checkWritten(t, number(t, path), first, second)
}

// checkWritten fails unless the numbers up to last were written once each.
func checkWritten(t *testing.T, last int, all ...*cluster.Process) {
	t.Helper()
	var wrote []int
	for _, p := range all {
		for _, line := range p.Lines() {
			if _, n, found := strings.Cut(line, "wrote "); found {
				k, err := strconv.Atoi(n)
				if err != nil {
					t.Fatal(err)
				}
				wrote = append(wrote, k)
			}
		}
	}
	slices.Sort(wrote)
	missing := 0
	for i := 1; i < len(wrote); i++ {
		if wrote[i] == wrote[i-1] {
			t.Errorf("%d was written twice", wrote[i])
		}
		missing += max(0, wrote[i]-wrote[i-1]-1)
	}
	// One may have been killed between writing and telling.
	if wrote[0] != 1 || missing > 1 || last-wrote[len(wrote)-1] > 1 || last < wrote[len(wrote)-1] {
		t.Errorf("written were %v, and %d is there", wrote, last)
	}
}

func count(p *cluster.Process, what string) (n int) {
	for _, line := range p.Lines() {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}
