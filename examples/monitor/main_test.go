package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/cluster"
)

// flow notes what goes into the queue and comes out of it.
type flow struct {
	t  *testing.T
	in atomic.Int32

	mu    sync.Mutex
	taken map[string]int
}

func newFlow(t *testing.T) *flow {
	return &flow{t: t, taken: map[string]int{}}
}

// producer puts n things in, a pause after each.
func (f *flow) producer(m *cluster.Memory, id, n int, pause time.Duration) *cluster.Instance {
	return m.Start(func(ctx context.Context, hf *holdfast.Client) error {
		q := newQueue(hf, "q", 5)
		for i := range n {
			if err := q.put(ctx, fmt.Sprint(id, " ", i+1)); err != nil {
				return err
			}
			f.in.Add(1)
			time.Sleep(pause)
		}
		<-ctx.Done()
		return ctx.Err()
	})
}

// consumer takes things out, a pause after each.
func (f *flow) consumer(m *cluster.Memory, pause time.Duration) *cluster.Instance {
	return m.Start(func(ctx context.Context, hf *holdfast.Client) error {
		q := newQueue(hf, "q", 5)
		for {
			thing, err := q.take(ctx)
			if err != nil {
				return err
			}
			f.mu.Lock()
			f.taken[thing]++
			f.mu.Unlock()
			time.Sleep(pause)
		}
	})
}

// wait ends the test unless n things, each once, were taken out within a while.
func (f *flow) wait(n int) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Hour); time.Now().Before(deadline); time.Sleep(time.Second) {
		f.mu.Lock()
		done := len(f.taken) == n
		for thing, times := range f.taken {
			if times != 1 {
				f.t.Errorf("%s was taken %d times", thing, times)
			}
		}
		f.mu.Unlock()
		if done {
			return
		}
	}
	f.t.Fatalf("taken are %v, want %d", f.taken, n)
}

// Producers that are faster wait for room, and everything is taken once.
func TestFastProducers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := cluster.InMemory(t), newFlow(t)
		for id := range 3 {
			f.producer(m, id, 20, 0)
		}
		time.Sleep(time.Minute)
		if n := f.in.Load(); n != 5 {
			t.Errorf("%d things are in, with room for 5", n)
		}
		f.consumer(m, time.Second)
		f.consumer(m, 3*time.Second)
		f.wait(60)
	})
}

// Consumers that are faster wait for things.
func TestFastConsumers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := cluster.InMemory(t), newFlow(t)
		for range 3 {
			f.consumer(m, 0)
		}
		time.Sleep(time.Minute)
		f.producer(m, 1, 20, time.Second)
		f.producer(m, 2, 20, 3*time.Second)
		f.wait(40)
	})
}

// Things come out in the order in which they went in.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(cluster.InMemory(t).Client(), "q", 5)
		for n := range 12 {
			if err := q.put(t.Context(), fmt.Sprint(n)); err != nil {
				t.Fatal(err)
			}
			if n >= 4 {
				if thing, err := q.take(t.Context()); err != nil || thing != fmt.Sprint(n-4) {
					t.Errorf("taken is %q, %v, want %d", thing, err, n-4)
				}
			}
		}
	})
}

// Whoever waits is woken by what it waits for, and not because it looks by itself.
func TestWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		q, other := newQueue(m.Client(), "q", 1), newQueue(m.Client(), "q", 1)
		q.patience = 24 * time.Hour
		began, woken := time.Now(), make(chan error)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			_, err := q.take(t.Context()) // there is nothing
			woken <- err
		}()
		synctest.Wait()
		must(other.put(t.Context(), "a"))
		must(<-woken)
		must(other.put(t.Context(), "b"))
		go func() { woken <- q.put(t.Context(), "c") }() // there is no room
		synctest.Wait()
		_, err := other.take(t.Context())
		must(err)
		must(<-woken)
		if waited := time.Since(began); waited > time.Minute {
			t.Errorf("woken after %v", waited)
		}
	})
}

// A signal that is lost with a waiter that died does not keep the thing in the queue for ever.
func TestWaiterDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := cluster.InMemory(t), newFlow(t)
		first := f.consumer(m, 0)
		time.Sleep(4 * time.Second) // so that it is at the head of the list
		f.consumer(m, 0)
		synctest.Wait()
		first.Kill()
		f.producer(m, 1, 1, 0)
		began := time.Now()
		f.wait(1)
		if time.Since(began) > time.Minute {
			t.Errorf("taken after %v", time.Since(began))
		}
	})
}

// A wait that is given up leaves the queue as it was.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(cluster.InMemory(t).Client(), "q", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if thing, err := q.take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("taken is %q, %v", thing, err)
		}
		if err := q.put(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := q.put(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("put into a full queue: %v", err)
		}
		if thing, err := q.take(t.Context()); thing != "a" || err != nil {
			t.Errorf("taken is %q, %v", thing, err)
		}
	})
}

// One that was paused past its lease, and has not been told, does not change the queue any more.
func TestPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		late, other := newQueue(m.Client(), "q", 5), newQueue(m.Client(), "q", 5)
		never := func([]string) bool { return false }
		err := late.change(t.Context(), never, late.notFull, late.notEmpty, func(things []string) []string {
			if m.Lose("q") != 1 {
				t.Error("changed without the lock")
			}
			if err := other.put(t.Context(), "new"); err != nil {
				t.Error(err)
			}
			return append(things, "late")
		})
		if !errors.Is(err, holdfast.ErrStale) {
			t.Errorf("the late one changed the queue: %v", err)
		}
		if thing, err := other.take(t.Context()); thing != "new" || err != nil {
			t.Errorf("taken is %q, %v", thing, err)
		}
	})
}
