package redislock_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// have counts the nodes that have the key.
func (h *house) have(key string) (n int) {
	h.Helper()
	for _, s := range h.servers {
		if must(h.T, s, "EXISTS", key) == int64(1) {
			n++
		}
	}
	return n
}

// TestQuorumThrift: a lock that is held for longer than a moment is on all nodes, though a
// majority was asked first, and no node keeps anything when it was given back.
func TestQuorumThrift(t *testing.T) {
	t.Parallel()
	h := &house{T: t, servers: nodes(t, 5, testserver.RedisOptions{}), cfg: redislock.QuorumConfig{MaxTTL: labTTL}}
	found(t, addrsOf(h.servers), h.cfg)
	e := h.engine()
	defer e.Close()
	for i := range 200 { // which ends at every moment of completing it
		name := fmt.Sprint("n", i)
		c := h.take(e, ask(name, labTTL))
		for n := 0; n < i%100; n++ {
			h.have("holdfast:" + name)
		}
		h.giveBack(e, c)
	}
	for i := range 200 {
		h.allHave(fmt.Sprint("holdfast:n", i), 0)
	}
	c := h.take(e, ask("held", labTTL))
	h.allHave("holdfast:held", 1)
	h.giveBack(e, c)
	h.allHave("holdfast:held", 0)
}

// TestQuorumThriftMinorityHangs: a majority is enough wherever it is, for a lock that is free,
// and for one that others hold.
func TestQuorumThriftMinorityHangs(t *testing.T) {
	t.Parallel()
	h := &house{T: t, servers: nodes(t, 5, testserver.RedisOptions{}), cfg: redislock.QuorumConfig{MaxTTL: labTTL}}
	found(t, addrsOf(h.servers), h.cfg)
	e, other := h.engine(), h.engine()
	defer e.Close()
	defer other.Close()
	for i := range 5 { // whichever of them a name begins with
		name := fmt.Sprint("n", i)
		c := h.take(e, ask(name, labTTL))
		h.allHave("holdfast:"+name, 1)
		for k := range 2 {
			h.servers[(i+k)%5].Pause()
		}
		if _, err := other.Acquire(h.patience(), ask(name, labTTL)); !isKind(err, driver.Held) {
			t.Errorf("what others hold: %v", err)
		}
		h.giveBack(other, h.take(other, ask(name+" free", labTTL)))
		for k := range 2 {
			h.servers[(i+k)%5].Resume()
		}
		h.giveBack(e, c)
	}
}

// TestQuorumThriftLosesItsNodes: a lock whose first nodes end right away is renewed by the
// others, which are asked as well.
func TestQuorumThriftLosesItsNodes(t *testing.T) {
	for i := range 5 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h := newHouse(t)
			a, _ := h.process()
			h.unlock(h.lock(a, "warm"))
			l := h.lock(a, "name")
			h.servers[i].Kill()
			h.servers[(i+1)%5].Kill()
			h.outlives(l, 2*h.ttl())
			h.unlock(l)
		})
	}
}

// TestQuorumThriftFarNodes: a majority with a node that is far away is not asked first, as a nearer
// one would decide sooner. How far they are is known from their answers.
func TestQuorumThriftFarNodes(t *testing.T) {
	t.Parallel()
	const near, far = 300 * time.Microsecond, 30 * time.Millisecond
	q := quorumOn(t, []string{"h1:1", "h2:1", "h3:1", "h4:1", "h5:1"}, redislock.QuorumConfig{})
	defer q.Close()
	for _, test := range []struct {
		took     []time.Duration
		majority []int
		want     bool
	}{
		{[]time.Duration{0, 0, 0, 0, 0}, []int{0, 1, 2}, true},
		{[]time.Duration{near, near, near, near, near}, []int{4, 1, 2}, true},
		{[]time.Duration{near, 4 * near, near, near, near}, []int{1, 2, 3}, true},
		{[]time.Duration{near, near, near, far, far}, []int{0, 1, 2}, true},
		{[]time.Duration{near, near, near, far, far}, []int{0, 1, 3}, false},
		{[]time.Duration{near, near, near, far, far}, []int{4, 3, 0}, false},
		{[]time.Duration{near, near, far, far, far}, []int{4, 3, 0}, true}, // no majority is near
		{[]time.Duration{near, near, far, far, 3 * far}, []int{4, 3, 0}, false},
	} {
		if got := q.Near(test.majority, test.took...); got != test.want {
			t.Errorf("nodes take %v, majority %v: %v", test.took, test.majority, got)
		}
	}
}

// TestQuorumThriftDistance: how far away a node is shows in its answers.
func TestQuorumThriftDistance(t *testing.T) {
	h, proxies := threeNodes(t)
	e := h.behindProxies(proxies)
	proxies[2].Delay(20 * time.Millisecond)
	names := 0 // of which some have the far one in their majority
	comesTrue(t, "one is known to be far away", func() bool {
		names++
		h.giveBack(e, h.take(e, ask(fmt.Sprint("n", names), labTTL)))
		near := 0
		for _, two := range [][]int{{0, 1}, {0, 2}, {1, 2}} {
			if e.Near(two) {
				near++
			}
		}
		return near == 1
	})
}
