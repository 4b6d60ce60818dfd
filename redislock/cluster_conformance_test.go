package redislock_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// ask is a request for an exclusive share under a token of its own.
func ask(name string, ttl time.Duration) driver.Request {
	req := driver.Request{Name: name, Mode: driver.Exclusive, Owner: "test", TTL: ttl, Span: 1}
	rand.Read(req.Token[:])
	return req
}

// bounded returns a context for what has to happen.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// slotNames returns, for each slot, a name whose key lies in it.
var slotNames = sync.OnceValue(func() []string {
	names := make([]string, 16384)
	for i, left := 0, len(names); left > 0; i++ {
		tag := fmt.Sprintf("{%x}", i)
		if s := testserver.Slot(tag); names[s] == "" {
			names[s] = tag
			left--
		}
	}
	return names
})

// settle gives every slot an epoch that is as old as the nodes' terms, as slots have that
// were in use before: an engine knows the nodes for a grace, and takes something in each slot.
func (x *onCluster) settle(cfg redislock.Config) {
	x.Helper()
	e := x.engine(cfg)
	defer e.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	names := slotNames()
	var all sync.WaitGroup
	for _, slot := range []int{0, 6000, 16000} { // one on each node
		all.Go(func() {
			if err := takeAndGiveBack(ctx, e, ask(names[slot], 0)); err != nil {
				x.Error(err)
			}
		})
	}
	all.Wait()
	work := make(chan string)
	var failed sync.Once
	for range 256 {
		all.Go(func() {
			for name := range work {
				req := ask(name, cfg.MaxTTL)
				g, err := e.Acquire(ctx, req)
				if err == nil {
					err = e.Release(ctx, req.Claim(g))
				}
				if err != nil {
					failed.Do(func() { x.Errorf("in the slot of %s: %v", name, err) })
				}
			}
		})
	}
	for _, name := range names {
		work <- name
	}
	close(work)
	all.Wait()
	if x.Failed() {
		x.FailNow()
	}
}

// takeAndGiveBack takes a share, for which it waits until the grace of its slot is over.
func takeAndGiveBack(ctx context.Context, e *redislock.Engine, req driver.Request) error {
	req.TTL, req.Wait = time.Second, true
	g, err := e.Acquire(ctx, req)
	if err != nil {
		return err
	}
	return e.Release(ctx, req.Claim(g))
}

func TestClusterConformance(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	t.Run("SingleProcess", func(t *testing.T) {
		drivertest.Run(t, x.harness(redislock.Config{Safety: redislock.SingleProcess}))
	})
}

func TestClusterConformanceCrashSafe(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	cfg := redislock.Config{Safety: redislock.CrashSafe, MaxTTL: 5 * time.Second}
	x.settle(cfg)
	t.Run("CrashSafe", func(t *testing.T) { drivertest.Run(t, x.harness(cfg)) })
}

func (x *onCluster) harness(cfg redislock.Config) drivertest.Harness {
	return drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store {
			cfg := cfg
			cfg.Prefix = prefix()
			url := "redis+cluster://" + strings.Join(x.Addrs(), ",")
			return drivertest.Store{Open: func() driver.Engine {
				ctx, cancel := bounded()
				defer cancel()
				e, err := redislock.Open(ctx, url, cfg)
				if err != nil {
					t.Fatalf("Open: %v", err)
				}
				return e
			}}
		},
		TTL: 200 * time.Millisecond, Rounds: 50,
	}
}

// kindOf returns what an error of the engine says, for messages as well.
func kindOf(err error) (driver.Kind, driver.Outcome) {
	var d *driver.Error
	if errors.As(err, &d) {
		return d.Kind, d.Outcome
	}
	return driver.Unavailable, driver.Unknown
}

// TestClusterVirginSlots: a node that has been known for a grace grants at once in a slot that
// nobody has locked anything in, one that is new to the engine does not.
func TestClusterVirginSlots(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	cfg := redislock.Config{Safety: redislock.CrashSafe, MaxTTL: 2 * time.Second}
	e, names := x.engine(cfg), slotNames()
	ctx, cancel := bounded()
	defer cancel()
	try := func(e *redislock.Engine, slot int) error {
		req := ask(names[slot], time.Second)
		g, err := e.Acquire(ctx, req)
		if err != nil {
			return err
		}
		return e.Release(ctx, req.Claim(g))
	}
	err := try(e, 0)
	if kind, outcome := kindOf(err); kind != driver.Unavailable || outcome != driver.NotApplied || !strings.Contains(err.Error(), "nothing new is granted") {
		t.Errorf("in the first slot of an unknown node: %v", err)
	}
	if err := takeAndGiveBack(ctx, e, ask(names[0], 0)); err != nil {
		t.Fatal(err)
	}
	// The grace of slot 0 began with the first answer, so it is over for the node as well.
	for slot := 1; slot < 40; slot++ {
		if err := try(e, slot); err != nil {
			t.Errorf("in slot %d of a known node: %v", slot, err)
		}
	}
	if err := try(e, 16000); err == nil {
		t.Error("in the first slot of another node: granted")
	}
	other := x.engine(cfg)
	if err := try(other, 1); err != nil {
		t.Errorf("another engine in a slot that was opened: %v", err)
	}
	if err := try(other, 100); err == nil {
		t.Error("another engine, to which the node is new, in a virgin slot: granted")
	}
}
