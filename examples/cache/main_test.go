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
	"github.com/holdfast-go/holdfast/examples/internal/program"
)

const keep = 10 * time.Second

// builder makes values that tell how many were begun before, in all instances, and takes two
// seconds for each.
type builder struct {
	begun atomic.Int32
	now   atomic.Int32 // how many are being made
}

func (b *builder) build(ctx context.Context) (string, error) {
	n := b.begun.Add(1)
	b.now.Add(1)
	defer b.now.Add(-1)
	return fmt.Sprint("value ", n), program.Sleep(ctx, 2*time.Second)
}

// callers has so many ask at once and returns what they got.
func callers(ctx context.Context, n int, all ...*holdfast.Once[string]) map[string]int {
	var wait sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for _, c := range all {
		for range n {
			wait.Go(func() {
				value, err := c.Get(ctx)
				if err != nil {
					value = err.Error()
				}
				mu.Lock()
				defer mu.Unlock()
				got[value]++
			})
		}
	}
	wait.Wait()
	return got
}

// However many callers come at once, in however many instances, it is made once, and again when
// it has run out.
func TestStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, b := cluster.InMemory(t), &builder{}
		var all []*holdfast.Once[string]
		for range 3 {
			all = append(all, newCache(m.Client(), "x", keep, b.build))
		}
		for _, want := range []string{"value 1", "value 1", "value 2"} {
			if got := callers(t.Context(), 100, all...); got[want] != 300 {
				t.Errorf("300 callers want %q and got %v", want, got)
			}
			time.Sleep(keep - 3*time.Second)
		}
		if n := b.begun.Load(); n != 2 {
			t.Errorf("made %d times", n)
		}
	})
}

// When the instance dies that makes it, another one does, and whoever waits there gets it.
func TestBuilderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, b := cluster.InMemory(t), &builder{}
		first := m.Start(func(ctx context.Context, hf *holdfast.Client) error {
			callers(ctx, 100, newCache(hf, "x", keep, b.build))
			return ctx.Err()
		})
		synctest.Wait()
		second := newCache(m.Client(), "x", keep, b.build)
		got := make(chan map[string]int)
		go func() { got <- callers(t.Context(), 100, second) }()
		synctest.Wait()
		first.Kill()
		if got := <-got; got["value 2"] != 100 {
			t.Errorf("100 callers got %v", got)
		}
	})
}

// One that cannot be made fails those who share the attempt, or is tried again for them, and the next
// one makes it.
func TestBuildFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure, failures := errors.New("failed"), 3
		c := newCache(cluster.InMemory(t).Client(), "x", keep, func(context.Context) (string, error) {
			if failures--; failures >= 0 {
				return "", failure
			}
			return "value", nil
		})
		if got := callers(t.Context(), 10, c); got[failure.Error()] != 3 || got["value"] != 7 {
			t.Errorf("10 callers got %v", got)
		}
	})
}

// One that was paused past its lease while it made the value, and has not been told, does not write
// over what was made meanwhile, and returns that.
func TestLateBuilder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		other := newCache(m.Client(), "x", keep, func(context.Context) (string, error) { return "new", nil })
		late := newCache(m.Client(), "x", keep, func(ctx context.Context) (string, error) {
			if m.Lose("cache:x") != 1 {
				t.Error("it is made without the lock")
			}
			if v, err := other.Get(t.Context()); v != "new" || err != nil {
				t.Errorf("the other made %q, %v", v, err)
			}
			return "old", ctx.Err()
		})
		v, err := late.Get(t.Context())
		if v != "new" || err != nil && !errors.Is(err, holdfast.ErrLost) {
			t.Errorf("the late one got %q, %v", v, err)
		}
		if v, err := other.Get(t.Context()); v != "new" || err != nil {
			t.Errorf("there is %q, %v", v, err)
		}
	})
}
