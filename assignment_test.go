package holdfast_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// group is the members of an assignment and what they work on.
type group struct {
	t          *testing.T
	store      *memlock.Store
	partitions int

	mu     sync.Mutex
	owner  map[int]string
	fences map[int]int64
	begun  int // works that began
}

func (g *group) work(name string) func(context.Context, *holdfast.Partition) error {
	return func(ctx context.Context, p *holdfast.Partition) error {
		g.mu.Lock()
		if was := g.owner[p.Number]; was != "" {
			g.t.Errorf("%s and %s own partition %d", was, name, p.Number)
		}
		if p.Fence() <= g.fences[p.Number] {
			g.t.Errorf("fence %d after %d", p.Fence(), g.fences[p.Number])
		}
		g.owner[p.Number], g.fences[p.Number] = name, p.Fence()
		g.begun++
		g.mu.Unlock()
		select {
		case <-p.Draining():
			time.Sleep(10 * time.Millisecond) // finishes what is under way
		case <-ctx.Done():
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.owner, p.Number)
		return nil
	}
}

// join runs a member on an engine of its own. kill ends it as a crash does: its engine does
// nothing any more.
func (g *group) join(name string, cfg holdfast.AssignmentConfig) (leave, kill func()) {
	c := clientOn(g.t, g.store.Engine(), holdfast.Config{Owner: name})
	cfg.Partitions, cfg.Member = g.partitions, name
	ctx, cancel := context.WithCancel(g.t.Context())
	over := make(chan error, 1)
	go func() { over <- c.Assignment("g", cfg).Run(ctx, g.work(name)) }()
	leave = func() {
		cancel()
		want(g.t, <-over, context.Canceled)
	}
	kill = func() {
		c.Close()
		if err := <-over; !errors.Is(err, holdfast.ErrClosed) {
			g.t.Errorf("Run after Close: %v", err)
		}
		cancel()
	}
	return leave, kill
}

func (g *group) loads() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	loads := map[string]int{}
	for _, name := range g.owner {
		loads[name]++
	}
	return loads
}

// even ends the test unless n members have everything, and nobody two more than another.
func (g *group) even(n int) {
	g.t.Helper()
	loads, sum, low, high := g.loads(), 0, g.partitions, 0
	for _, k := range loads {
		sum, low, high = sum+k, min(low, k), max(high, k)
	}
	if sum != g.partitions || len(loads) != n || high-low > 1 {
		g.t.Fatalf("%d members share %d partitions as %v", n, g.partitions, loads)
	}
}

func newGroup(t *testing.T, partitions int) *group {
	return &group{t: t, store: memlock.NewStore(memlock.Config{}), partitions: partitions, owner: map[int]string{}, fences: map[int]int64{}}
}

// TestAssignmentChurn has members join, leave and die at random. Whenever things are quiet
// everything is owned, evenly, and no more has moved than had to, plus a tenth.
func TestAssignmentChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		g := newGroup(t, 100)
		type handle struct{ leave, kill func() }
		members := map[string]handle{}
		cfg := holdfast.AssignmentConfig{TTL: time.Second}
		for step := range 12 {
			before, had := g.begun, g.loads()
			switch {
			case len(members) < 2 || len(members) < 6 && random.IntN(2) == 0:
				name := fmt.Sprint("m", step)
				leave, kill := g.join(name, cfg)
				members[name] = handle{leave, kill}
			default:
				for name, m := range members {
					if random.IntN(2) == 0 {
						m.leave()
					} else {
						m.kill()
					}
					delete(members, name)
					break
				}
			}
			time.Sleep(5 * time.Second)
			g.even(len(members))
			fewest := g.partitions
			for name, k := range g.loads() {
				fewest -= min(k, had[name])
			}
			if moved := g.begun - before; moved > fewest+g.partitions/10 {
				t.Errorf("step %d: %d moves, %d would do", step, moved, fewest)
			}
		}
		for _, m := range members {
			m.leave()
		}
		if len(g.owner) != 0 {
			t.Errorf("owned when all have left: %v", g.owner)
		}
	})
}

func TestAssignmentWeightsAndPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 30)
		leaveA, _ := g.join("a", holdfast.AssignmentConfig{})
		leaveB, killB := g.join("b", holdfast.AssignmentConfig{Weight: 2})
		leaveC, _ := g.join("standby", holdfast.AssignmentConfig{Priority: -1})
		time.Sleep(time.Minute)
		if loads := g.loads(); loads["a"] != 10 || loads["b"] != 20 {
			t.Errorf("loads are %v", loads)
		}
		leaveA()
		killB()
		time.Sleep(time.Minute)
		if loads := g.loads(); loads["standby"] != 30 {
			t.Errorf("loads are %v", loads)
		}
		leaveC()
		_ = leaveB
	})
}

// Work that does not stop when it is told to keeps its partition until it has returned: its
// context ends after Drain, and nobody else begins before.
func TestAssignmentDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 1)
		c := clientOn(t, g.store.Engine(), holdfast.Config{})
		cfg := holdfast.AssignmentConfig{Partitions: 1, Member: "stubborn", Drain: 3 * time.Second}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		var drained, ended time.Duration
		go func() {
			over <- c.Assignment("g", cfg).Run(ctx, func(ctx context.Context, p *holdfast.Partition) error {
				<-p.Draining()
				began := time.Now()
				<-ctx.Done()
				drained = time.Since(began)
				time.Sleep(time.Minute) // renewed all the while: nobody else may begin
				ended = time.Since(began)
				return nil
			})
		}()
		time.Sleep(time.Second)
		began := time.Now()
		cancel()
		leave, _ := g.join("next", holdfast.AssignmentConfig{})
		for len(g.loads()) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if waited := time.Since(began); drained != 3*time.Second || ended < time.Minute || waited < ended {
			t.Errorf("its context ended after %v, it returned after %v, the next began after %v", drained, ended, waited)
		}
		want(t, <-over, context.Canceled)
		leave()
	})
}

func TestAssignmentBadInput(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	for what, a := range map[string]*holdfast.Assignment{
		"no name":       c.Assignment("", holdfast.AssignmentConfig{Partitions: 1}),
		"long name":     c.Assignment(strings.Repeat("x", 500), holdfast.AssignmentConfig{Partitions: 1}),
		"no partitions": c.Assignment("x", holdfast.AssignmentConfig{}),
		"too many":      c.Assignment("x", holdfast.AssignmentConfig{Partitions: holdfast.MaxPartitions + 1}),
		"weight":        c.Assignment("x", holdfast.AssignmentConfig{Partitions: 1, Weight: -1}),
		"priority":      c.Assignment("x", holdfast.AssignmentConfig{Partitions: 1, Priority: 1001}),
		"member":        c.Assignment("x", holdfast.AssignmentConfig{Partitions: 1, Member: "a\nb"}),
		"ttl":           c.Assignment("x", holdfast.AssignmentConfig{Partitions: 1, TTL: time.Nanosecond}),
	} {
		if err := a.Run(t.Context(), nil); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Work that returns at once is begun again after a pause, whatever it returns.
func TestAssignmentWorkThatReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{nil, errors.New("failed"), holdfast.ErrClosed} {
			c := newClient(t, holdfast.Config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			begun := 0
			got := c.Assignment("g", holdfast.AssignmentConfig{Partitions: 1}).Run(ctx, func(context.Context, *holdfast.Partition) error {
				if begun++; begun > 100 {
					<-ctx.Done()
				}
				return err
			})
			cancel()
			want(t, got, context.DeadlineExceeded)
			if begun < 30 || begun > 61 {
				t.Errorf("work that returned %v was begun %d times in a minute", err, begun)
			}
		}
	})
}

// A member that starts while the engine does not answer joins when it does.
func TestAssignmentBeginsInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3)
		g.store.Inject(func(memlock.Call) memlock.Fault { return memlock.Fault{Refuse: errors.New("down")} })
		leave, _ := g.join("a", holdfast.AssignmentConfig{})
		time.Sleep(time.Minute)
		g.store.Inject(nil)
		time.Sleep(time.Minute)
		g.even(1)
		leave()
	})
}

// Members with different TTLs, as while a setting is changed one by one, do not take each
// other for dead.
func TestAssignmentDifferentTTLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 10)
		leaveA, _ := g.join("a", holdfast.AssignmentConfig{TTL: 30 * time.Second})
		leaveB, _ := g.join("b", holdfast.AssignmentConfig{TTL: time.Second})
		time.Sleep(time.Minute)
		g.even(2)
		begun := g.begun
		time.Sleep(5 * time.Minute)
		if g.even(2); g.begun != begun {
			t.Errorf("%d partitions moved in a group that did not change", g.begun-begun)
		}
		leaveB()
		time.Sleep(time.Minute)
		g.even(1)
		leaveA()
	})
}

// A member that died is replaced, though the engine's clock was set back since it was seen.
func TestAssignmentClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 10)
		leave, _ := g.join("a", holdfast.AssignmentConfig{TTL: time.Second})
		time.Sleep(10 * time.Second)
		e := g.store.Engine()
		defer e.Close()
		v, err := e.ReadValue(t.Context(), "assignment:g:members")
		if err != nil {
			t.Fatal(err)
		}
		var seats map[string]map[string]int64
		if err := json.Unmarshal(v.Data, &seats); err != nil {
			t.Fatal(err)
		}
		dead := maps.Clone(seats["a"])
		for key, n := range dead {
			if n > 100_000_000_000 { // a time
				dead[key] = n + (24 * time.Hour).Milliseconds()
			}
		}
		seats["dead"] = dead
		data, _ := json.Marshal(seats)
		if _, err := e.WriteValue(t.Context(), driver.Write{Name: "assignment:g:members", Data: data, If: v.Version}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		g.even(1)
		leave()
	})
}
