package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// shortTTL is the TTL of leases that have to be renewed within a test, and the MaxTTL of nodes
// that sit out within one, where the machine has little else to do.
const shortTTL = 1500 * time.Millisecond

// pace is shortTTL, or as many times that, up to four, as the machine is slow at present: leases
// are lost by who is late to renew them, and the tests that use it are not about that.
func pace(t *testing.T, servers []*testserver.RedisServer) time.Duration {
	t.Helper()
	slowest := time.Duration(0)
	for range 20 {
		began := time.Now()
		var all sync.WaitGroup
		for _, s := range servers {
			all.Go(func() {
				if _, err := s.Do("PING"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		slowest = max(slowest, time.Since(began))
	}
	ttl := min(max(shortTTL, 30*slowest), 4*shortTTL).Truncate(time.Millisecond)
	t.Logf("the slowest round trip takes %v, so leases are of %v", slowest, ttl)
	return ttl
}

// house is five servers, and clients of them that stand for processes.
type house struct {
	*testing.T
	servers []*testserver.RedisServer
	cfg     redislock.QuorumConfig
}

func newHouse(t *testing.T) *house {
	t.Helper()
	t.Parallel()
	return foundHouse(t, testserver.RedisOptions{})
}

func foundHouse(t *testing.T, options testserver.RedisOptions) *house {
	t.Helper()
	h := &house{T: t, servers: nodes(t, 5, options)}
	h.cfg.MaxTTL = pace(t, h.servers)
	found(t, addrsOf(h.servers), h.cfg)
	return h
}

// ttl is that of the leases of processes.
func (h *house) ttl() time.Duration { return h.cfg.MaxTTL }

func (h *house) engine() *redislock.Quorum {
	h.Helper()
	return quorumOn(h, addrsOf(h.servers), h.cfg)
}

// process returns a client of its own.
func (h *house) process() (*holdfast.Client, *redislock.Quorum) {
	h.Helper()
	e := h.engine()
	c, err := holdfast.New(e, holdfast.Config{TTL: h.ttl(), Owner: "house"})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c, e
}

func (h *house) patience() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), labPatience)
	h.Cleanup(cancel)
	return ctx
}

func (h *house) lock(c *holdfast.Client, name string) *holdfast.Lease {
	h.Helper()
	l, err := c.Mutex(name).Lock(h.patience())
	if err != nil {
		h.Fatalf("lock %q: %v", name, err)
	}
	return l
}

func (h *house) unlock(l *holdfast.Lease) {
	h.Helper()
	if err := l.Unlock(); err != nil {
		h.Fatalf("unlock %q: %v", l.Name(), err)
	}
}

// refused fails unless the lock is held by somebody.
func (h *house) refused(c *holdfast.Client, name string) {
	h.Helper()
	if l, err := c.Mutex(name).TryLock(h.patience()); !errors.Is(err, holdfast.ErrHeld) {
		h.Fatalf("try of a lock that is held: %v, %v", l, err)
	}
}

// outlives waits until the lease has been renewed several times over, and fails if it is lost.
func (h *house) outlives(l *holdfast.Lease, d time.Duration) {
	h.Helper()
	select {
	case <-l.Context().Done():
		h.Fatalf("lease lost: %v", context.Cause(l.Context()))
	case <-time.After(d):
	}
}

// serving waits until the engine knows that so many nodes take part.
func (h *house) serving(e *redislock.Quorum, n int) {
	h.Helper()
	comesTrue(h.T, fmt.Sprintf("%d nodes serve", n), func() bool {
		e.Look(h.patience())
		return e.Serving() == n
	})
}

// TestQuorumMinorityDown: with two of five nodes killed, frozen or paused, leases live on,
// locks come and go, and others are kept out.
func TestQuorumMinorityDown(t *testing.T) {
	for name, down := range map[string]func(*testserver.RedisServer){
		"killed": func(s *testserver.RedisServer) { s.Kill() },
		"frozen": func(s *testserver.RedisServer) { s.Pause() },
		"paused": func(s *testserver.RedisServer) {
			if _, err := s.Do("CLIENT", "PAUSE", "60000", "ALL"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			a, _ := h.process()
			b, _ := h.process()
			before := h.lock(a, "before")
			h.allHave("holdfast:before", 1)
			down(h.servers[1])
			down(h.servers[3])
			last := before.Fence()
			for i := range 20 {
				c := []*holdfast.Client{a, b}[i%2]
				l := h.lock(c, "after")
				if l.Fence() <= last && i > 0 {
					t.Errorf("fence %d after %d", l.Fence(), last)
				}
				last = l.Fence()
				h.refused(b, "before")
				h.unlock(l)
			}
			h.outlives(before, 3*h.ttl())
			h.refused(b, "before")
			h.unlock(before)
			h.unlock(h.lock(b, "before"))
		})
	}
}

// TestQuorumMajorityDown: without a majority nothing is granted, the error says so at once and
// what is wrong with each node, and leases end. It goes on when the nodes are back.
func TestQuorumMajorityDown(t *testing.T) {
	h := newHouse(t)
	a, _ := h.process()
	l := h.lock(a, "name")
	for _, s := range h.servers[:3] {
		s.Pause()
	}
	for _, s := range h.servers[:2] {
		s.Kill()
	}
	comesTrue(h.T, "the error names both nodes that are dead", func() bool {
		_, err := a.Mutex("other").Lock(h.patience())
		var q *redislock.QuorumError
		if !errors.Is(err, holdfast.ErrUnavailable) || !errors.As(err, &q) {
			t.Fatalf("lock without a majority: %v", err)
		}
		granted, dead := 0, 0
		for i, n := range q.Nodes {
			if n.Addr != h.servers[i].Addr() {
				t.Errorf("node %d is %q", i, n.Addr)
			}
			switch {
			case n.Status == redislock.NodeGranted && i > 2:
				granted++
			case n.Status == redislock.NodeFailed && n.Err != nil && i < 2:
				dead++
			case n.Status == redislock.NodeGranted:
				t.Errorf("node %d is down and granted", i)
			}
		}
		return granted == 2 && dead == 2 && q.Status == redislock.QuorumMissing // others may have been slow
	})
	select {
	case <-l.Context().Done():
	case <-time.After(labPatience):
		t.Fatal("the lease lives without a majority")
	}
	_ = l.Unlock()
	h.servers[2].Resume()
	h.unlock(h.lock(a, "name"))
}

// TestQuorumNodeForgets: a node that comes back empty grants nothing until leases that it has
// forgotten must have ended, then it takes part again, by itself.
func TestQuorumNodeForgets(t *testing.T) {
	h := newHouse(t)
	a, _ := h.process()
	b, eb := h.process()
	l := h.lock(a, "name")
	last := l.Fence()
	h.allHave("holdfast:name", 1)
	for _, i := range []int{0, 4} {
		h.servers[i].RestartEmpty()
	}
	h.refused(b, "name")
	h.outlives(l, 2*h.ttl())
	h.refused(b, "name")
	h.unlock(h.lock(b, "other"))
	h.serving(eb, 5)
	h.refused(b, "name")
	h.unlock(l)
	if l = h.lock(b, "name"); l.Fence() <= last {
		t.Errorf("fence %d after %d", l.Fence(), last)
	}
	h.unlock(l)
	// What was healed is as good as the others are.
	h.servers[1].Kill()
	h.servers[2].Kill()
	h.unlock(h.lock(b, "name"))
}

// TestQuorumForgetsAll: when all nodes come back empty nobody gets a lock before the last lease
// from before has ended. Nobody has to do anything.
func TestQuorumForgetsAll(t *testing.T) {
	h := newHouse(t)
	e := h.engine()
	defer e.Close()
	req := ask("name", h.ttl())
	g, err := e.Acquire(h.patience(), req)
	if err != nil {
		t.Fatal(err)
	}
	h.empty(h.servers)
	b, _ := h.process()
	for {
		l, err := b.Mutex("name").TryLock(h.patience())
		if err == nil {
			if now := e.Capabilities(); l.Fence() <= g.Fence {
				t.Errorf("fence %d after %d (%s)", l.Fence(), g.Fence, now.FenceSource)
			}
			break
		}
		if !errors.Is(err, holdfast.ErrUnavailable) {
			t.Fatalf("while nodes sit out: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if left := time.Duration(g.Sent.Add(h.ttl()).Sub(clockNow())); left > 0 {
		t.Errorf("granted again %v before the lease from before must have ended", left)
	}
}

// TestQuorumMajorityForgets: when too few nodes remember, nothing is granted until an operator
// says so. Fences go on growing.
func TestQuorumMajorityForgets(t *testing.T) {
	h := newHouse(t)
	a, e := h.process()
	l := h.lock(a, "name")
	h.unlock(l)
	h.empty(h.servers[:3])
	for range 3 {
		if _, err := a.Mutex("name").TryLock(h.patience()); !errors.Is(err, holdfast.ErrUnavailable) {
			t.Fatalf("three of five nodes have forgotten: %v", err)
		}
		time.Sleep(h.ttl())
	}
	if err := e.Init(h.patience()); !isInvalid(err) {
		t.Fatalf("Init of nodes that were used: %v", err)
	}
	if err := e.Heal(h.patience()); err != nil {
		t.Fatalf("Heal: %v", err)
	}
	again := h.lock2(a, "name")
	if again.Fence() <= l.Fence() {
		t.Errorf("fence %d after %d", again.Fence(), l.Fence())
	}
	h.unlock(again)
	h.serving(e, 5)
}

// TestQuorumLateGrant: what a slow node grants to who does not need it any more goes back at once,
// not at the end of its TTL.
func TestQuorumLateGrant(t *testing.T) {
	t.Parallel()
	h := &house{T: t, servers: nodes(t, 3, testserver.RedisOptions{}), cfg: redislock.QuorumConfig{MaxTTL: labTTL}}
	found(t, addrsOf(h.servers), h.cfg)
	e := h.engine()
	defer e.Close()
	slow := h.servers[2]
	nowhere := func(key string) {
		t.Helper()
		for _, s := range h.servers {
			comesTrue(t, key+" is free at every node", func() bool { return must(t, s, "EXISTS", key) == int64(0) })
		}
	}
	won := ask("won", labTTL)
	slow.Pause()
	g, err := e.Acquire(h.patience(), won)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Release(h.patience(), won.Claim(g)); err != nil {
		t.Fatal(err)
	}
	slow.Resume()
	nowhere("holdfast:won")

	must(t, h.servers[0], "SET", "holdfast:lost", "theirs")
	slow.Pause()
	if _, err := e.Acquire(h.patience(), ask("lost", labTTL)); err == nil {
		t.Fatal("granted by one of three")
	}
	slow.Resume()
	must(t, h.servers[0], "DEL", "holdfast:lost")
	nowhere("holdfast:lost")
}

// TestQuorumMembership: with the steps of docs/operations.md another set of nodes takes over, and
// fences go on growing. Whoever still uses the old set is refused.
func TestQuorumMembership(t *testing.T) {
	h := newHouse(t)
	old := h.engine()
	defer old.Close()
	req := ask("name", h.ttl())
	g, err := old.Acquire(h.patience(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Release(h.patience(), req.Claim(g)); err != nil {
		t.Fatal(err)
	}
	// Two of the five leave, two new ones come.
	h.servers = append(h.servers[2:], nodes(t, 2, testserver.RedisOptions{})...)
	for _, s := range h.servers {
		must(t, s, "DEL", "holdfast.node")
	}
	c, e := h.process()
	if err := e.Init(h.patience()); !isInvalid(err) {
		t.Errorf("Init of nodes that were used: %v", err)
	}
	l := h.lock2(c, "name")
	if l.Fence() <= g.Fence {
		t.Errorf("fence %d after %d", l.Fence(), g.Fence)
	}
	if _, err := old.Acquire(h.patience(), ask("name", h.ttl())); !isInvalid(err) {
		t.Errorf("a client of the old set: %v", err)
	}
	h.unlock(l)
	h.serving(e, 5)
}

// empty takes their data from servers, all of which are down at a time: none is healed before
// the others have forgotten.
func (h *house) empty(servers []*testserver.RedisServer) {
	for _, s := range servers {
		s.Kill()
	}
	for _, s := range servers {
		s.RestartEmpty()
	}
}

// lock2 is lock for nodes that sit out for a while.
func (h *house) lock2(c *holdfast.Client, name string) (l *holdfast.Lease) {
	h.Helper()
	comesTrue(h.T, "the lock is granted", func() (ok bool) {
		var err error
		l, err = c.Mutex(name).TryLock(h.patience())
		return err == nil
	})
	return l
}

func isInvalid(err error) bool {
	kind, _ := kindOf(err)
	return err != nil && kind == driver.Invalid
}

func clockNow() driver.Instant { return driver.BootClock().Now() }
