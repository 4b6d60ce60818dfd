// Package coordtest checks what the core builds beside locks (sequences, counters, limiters,
// conditions, elections, items, assignments) on an engine, with several clients that stand
// for several processes.
package coordtest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
)

// Harness describes an engine to [Run].
type Harness struct {
	// Open returns a client on the engine's store, as one more process would have. Required.
	Open func(t *testing.T) *holdfast.Client

	// TTL is the shortest lease that works well, for what has to run out. Default: 1 s.
	TTL time.Duration

	// Slack is how long to wait for what has to happen. Default: 20 s.
	Slack time.Duration
}

// cases are in files of their own, one for each type.
var cases = []struct {
	name string
	run  func(*env)
}{
	{"sequence", testSequence},
	{"sequence with source", testSequenceSource},
	{"sequence in blocks", testSequenceBlocks},
	{"counter", testCounter},
	{"limiter", testLimiter},
	{"limiter wait", testLimiterWait},
	{"once", testOnce},
	{"item versions", testItemVersions},
	{"item lock", testItemLock},
	{"item expiry", testItemExpiry},
	{"cond", testCond},
	{"cond broadcast", testCondBroadcast},
	{"cond cancelled", testCondCancelled},
	{"election", testElection},
	{"election observed", testElectionObserved},
	{"assignment", testAssignment},
}

// Run checks every type, in one subtest a case, all at once.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.TTL == 0 {
		h.TTL = time.Second
	}
	if h.Slack == 0 {
		h.Slack = 20 * time.Second
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), h.Slack)
			defer cancel()
			c.run(&env{T: t, Harness: h, ctx: ctx})
		})
	}
}

// env is what a case works with.
type env struct {
	*testing.T
	Harness
	ctx context.Context // ends when the case takes too long
}

func (x *env) clients(n int) []*holdfast.Client {
	var all []*holdfast.Client
	for range n {
		all = append(all, x.Open(x.T))
	}
	return all
}

// name returns a name that nobody has used.
func (x *env) name() string { return "coordtest-" + rand.Text() }

func (x *env) ok(err error, what string) {
	x.Helper()
	if err != nil {
		x.Fatalf("%s: %v", what, err)
	}
}

func (x *env) fails(err, target error, what string) {
	x.Helper()
	if !errors.Is(err, target) {
		x.Fatalf("%s: error is %v, want it to match %v", what, err, target)
	}
}

// eventually waits until done reports true.
func (x *env) eventually(done func() bool, what string) {
	x.Helper()
	for !done() {
		select {
		case <-x.ctx.Done():
			x.Fatalf("never happened: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// each calls f for every client, n times at once, and waits.
func each(clients []*holdfast.Client, n int, f func(*holdfast.Client)) {
	var all sync.WaitGroup
	for _, c := range clients {
		for range n {
			all.Go(func() { f(c) })
		}
	}
	all.Wait()
}

// bag collects numbers from many goroutines.
type bag struct {
	mu      sync.Mutex
	numbers []int64
}

func (b *bag) add(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.numbers = append(b.numbers, n)
}

func (b *bag) sorted() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(b.numbers))
}
