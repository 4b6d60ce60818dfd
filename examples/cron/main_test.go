package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/cluster"
	"github.com/holdfast-go/holdfast/examples/internal/program"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/memlock"
)

func TestMain(m *testing.M) { cluster.Main(m, main) }

const every = 10 * time.Second

// jobs counts the runs of a job that takes two seconds, in all instances.
type jobs struct {
	mu    sync.Mutex
	runs  map[time.Time]int
	order []time.Time
	begun func(tick time.Time, run int) error // called as a job begins
}

// instance starts one whose clock is so far ahead.
func (j *jobs) instance(m *cluster.Memory, ahead time.Duration) *cluster.Instance {
	return m.Start(func(ctx context.Context, hf *holdfast.Client) error {
		c := newCron(hf, "job", every, j.run)
		c.now = func() time.Time { return time.Now().Add(ahead) }
		return c.run(ctx)
	})
}

func (j *jobs) run(ctx context.Context, tick time.Time) error {
	j.mu.Lock()
	if j.runs == nil {
		j.runs = map[time.Time]int{}
	}
	if j.runs[tick]++; j.runs[tick] == 1 {
		j.order = append(j.order, tick)
	}
	run, begun := j.runs[tick], j.begun
	j.mu.Unlock()
	if begun != nil {
		if err := begun(tick, run); err != nil {
			return err
		}
	}
	return program.Sleep(ctx, 2*time.Second)
}

// check fails unless there were n ticks, one after the other, each run once but for those of again.
func (j *jobs) check(t *testing.T, n int, again ...time.Time) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.order) != n {
		t.Errorf("%d ticks, want %d: %v", len(j.order), n, j.order)
	}
	for i, tick := range j.order {
		if i > 0 && tick.Sub(j.order[i-1]) != every {
			t.Errorf("tick %v after %v", tick, j.order[i-1])
		}
		want := 1
		for _, a := range again {
			if a.Equal(tick) {
				want++
			}
		}
		if j.runs[tick] != want {
			t.Errorf("tick %v was run %d times, want %d", tick, j.runs[tick], want)
		}
	}
}

// Each tick is run once, by clocks that differ by less than the job takes, and by more.
func TestOncePerTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, j := cluster.InMemory(t), &jobs{}
		var all []*cluster.Instance
		for _, ahead := range []time.Duration{-4 * time.Second, 0, 0, time.Second} {
			all = append(all, j.instance(m, ahead))
		}
		time.Sleep(10*every + every/2)
		for _, i := range all {
			i.Stop()
		}
		j.check(t, 11) // ten, and the one at the beginning that the clock behind had still to come to
	})
}

// A tick whose instance dies in the job is run again by another, and the ones after it go on.
func TestDiesInTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := make(chan time.Time, 1)
		m, j := cluster.InMemory(t), &jobs{begun: func(tick time.Time, _ int) error {
			select {
			case running <- tick:
			default:
			}
			return nil
		}}
		first := j.instance(m, time.Second) // so that it is first
		j.instance(m, 0)
		tick := <-running
		first.Kill()
		// The lock of the dead is free after its TTL of 10 s: the tick in between is left out.
		time.Sleep(5 * every)
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.runs[tick] != 2 {
			t.Errorf("tick %v was run %d times, want 2", tick, j.runs[tick])
		}
		if len(j.order) < 4 {
			t.Errorf("ticks %v", j.order)
		}
		for _, at := range j.order {
			if at != tick && j.runs[at] != 1 {
				t.Errorf("tick %v was run %d times", at, j.runs[at])
			}
		}
	})
}

// A job that fails, and an engine that is down, are tried again within the tick.
func TestTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, j := cluster.InMemory(t), &jobs{}
		down := func(memlock.Call) memlock.Fault { return memlock.Fault{Refuse: errors.New("down")} }
		m.Inject(down)
		time.AfterFunc(every+every/4, func() { m.Inject(nil) })
		var failed time.Time
		j.begun = func(tick time.Time, run int) error {
			if failed.IsZero() {
				failed = tick
				return errors.New("the job failed")
			}
			return nil
		}
		i := j.instance(m, 0)
		time.Sleep(2*every + every/2)
		i.Stop()
		j.check(t, 2, failed)
	})
}

// An instance that was paused past its lease, and has not been told, does not note a tick over
// what others have noted.
func TestPausedInTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		tick := time.Now().Truncate(every)
		other := newCron(m.Client(), "job", every, func(context.Context, time.Time) error { return nil })
		paused := newCron(m.Client(), "job", every, func(ctx context.Context, _ time.Time) error {
			if m.Lose("cron:job") != 1 {
				t.Error("the job runs without the lock")
			}
			return errors.Join(other.do(t.Context(), tick), other.do(t.Context(), tick.Add(every)), ctx.Err())
		})
		if err := paused.do(t.Context(), tick); !errors.Is(err, holdfast.ErrStale) {
			t.Errorf("it noted the tick: %v", err)
		}
		if v, err := other.last.Get(t.Context()); err != nil || string(v.Data) != stamp(tick.Add(every)) {
			t.Errorf("noted is %q, %v", v.Data, err)
		}
	})
}

// What was noted by a clock that is far ahead stops the others, and they say why.
func TestClockFarAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, j := cluster.InMemory(t), &jobs{}
		c := newCron(m.Client(), "job", every, j.run)
		if err := c.do(t.Context(), time.Now().AddDate(1, 0, 0).Truncate(every)); err != nil {
			t.Fatal(err)
		}
		if err := c.do(t.Context(), time.Now().Truncate(every)); err == nil || !strings.Contains(err.Error(), "set the clock") {
			t.Errorf("error is %v", err)
		}
		j.check(t, 1)
	})
}

// Three processes on a server, of which the one whose clock is ahead is killed in the job. It has a
// tick almost for itself until the others get there, so these may be slow.
func TestKilledInTheJob(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	start := func(ahead, takes string) *cluster.Process {
		return cluster.Start(t, "-engine", "redis://"+server.Addr()+"?ttl=1s", "-every", "3s", "-takes", takes, "-ahead", ahead)
	}
	others := []*cluster.Process{start("-1400ms", "100ms"), start("-1400ms", "100ms")}
	for _, p := range others {
		p.Await(1, "started")
	}
	victim := start("1400ms", "1h")
	tick := victim.Await(1, "running (.*)")[1]
	victim.Kill()

	noted := map[string]int{}
	for deadline := time.Now().Add(time.Minute); noted[tick] == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s was killed; noted are %v", tick, noted)
		}
		clear(noted)
		for _, p := range others {
			for _, line := range p.Lines() {
				if _, at, found := strings.Cut(line, "done "); found {
					noted[at]++
				}
			}
		}
	}
	for _, p := range others {
		p.Stop()
	}
	for at, n := range noted {
		if n != 1 {
			t.Errorf("tick %s was noted %d times", at, n)
		}
	}
}
