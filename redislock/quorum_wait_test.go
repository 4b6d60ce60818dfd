package redislock_test

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock"
)

// hears has the engine wait for a lock once, so that all nodes tell it of what becomes free.
func (h *house) hears(e *redislock.Quorum) {
	h.Helper()
	other := h.engine()
	defer other.Close()
	held := h.take(other, ask("ear", labTTL))
	req := ask("ear", labTTL)
	req.Wait = true
	ended := make(chan error, 1)
	go func() {
		g, err := e.Acquire(h.patience(), req)
		if err == nil {
			err = e.Release(h.patience(), req.Claim(g))
		}
		ended <- err
	}()
	for _, s := range h.servers {
		comesTrue(h.T, "somebody listens", func() bool {
			all, _ := must(h.T, s, "PUBSUB", "CHANNELS").([]any)
			return len(all) > 0
		})
	}
	h.giveBack(other, held)
	if err := <-ended; err != nil {
		h.Fatal(err)
	}
}

// TestQuorumWaitMajorityHangs: a call that would wait says so when a majority hangs, as long as
// it had nothing to wait for, also where the nodes were heard before.
func TestQuorumWaitMajorityHangs(t *testing.T) {
	h, _ := threeNodes(t)
	e := h.engine()
	defer e.Close()
	h.hears(e)
	h.servers[0].Pause()
	h.servers[1].Pause()
	req := ask("name", labTTL)
	req.Wait = true
	if _, err := e.Acquire(h.patience(), req); !isKind(err, driver.Unavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

// TestQuorumHalfDone: what the nodes have granted goes back also where they failed after that.
func TestQuorumHalfDone(t *testing.T) {
	h, _ := threeNodes(t)
	e := h.engine()
	defer e.Close()
	h.hears(e)
	for _, s := range h.servers {
		must(t, s, "SET", "holdfast.i:holdfast:name", "no line")
	}
	req := ask("name", labTTL)
	req.Wait = true
	if _, err := e.Acquire(h.patience(), req); !isKind(err, driver.Invalid) {
		t.Errorf("the error is %v", err)
	}
	h.allHave("holdfast:name", 0)
}
