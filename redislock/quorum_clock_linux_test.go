package redislock_test

import (
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestQuorumClocksStep: the clocks of a minority step, forward so that leases run out there, and
// back. A lease that the others have as well lives on by them, nobody else gets in, and fences grow.
func TestQuorumClocksStep(t *testing.T) {
	t.Parallel()
	h := foundHouse(t, testserver.RedisOptions{OwnClock: true})
	a, _ := h.process()
	b, _ := h.process()
	held := h.lock(a, "held")
	h.allHave("holdfast:held", 1) // a majority is enough to hold it, and may be one without those that stay
	last := int64(0)              // of the other name: no two names have an order
	for _, ahead := range []time.Duration{2 * time.Hour, -2 * time.Hour, 0} {
		for _, s := range h.servers[1:3] {
			s.SetClock(ahead)
		}
		h.refused(b, "held")
		for i := range 6 {
			l := h.lock([]*holdfast.Client{a, b}[i%2], "other")
			if l.Fence() <= last {
				t.Errorf("clocks %v ahead: fence %d after %d", ahead, l.Fence(), last)
			}
			last = l.Fence()
			h.unlock(l)
		}
		h.outlives(held, h.ttl())
		h.refused(b, "held")
	}
	h.unlock(held)
	again := h.lock(b, "held")
	if again.Fence() <= held.Fence() {
		t.Errorf("fence %d after %d", again.Fence(), held.Fence())
	}
	h.unlock(again)
}
