package redislock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// A server that comes back without its data has lost the locks: their holders learn it, and the
// fences go on.
func TestFaultRestartEmpty(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c, other := l.clientWith(l.engineAt(l.server.Addr(), ""), 3*time.Second), l.process()
	lease := l.lock(c, "name")
	l.server.Restart()
	select {
	case <-lease.Context().Done():
	case <-time.After(labPatience):
		l.Fatal("the lease does not end")
	}
	if cause := context.Cause(lease.Context()); !errors.Is(cause, holdfast.ErrLost) {
		l.Errorf("the lease ended with %v", cause)
	}
	next := l.lock(other, "name")
	if next.Fence() <= lease.Fence() {
		l.Errorf("fence %d after %d", next.Fence(), lease.Fence())
	}
	l.failed(lease.Unlock(), holdfast.ErrLost, holdfast.NotApplied)
	l.unlock(next)
}

// With a log on disk holders and waiters outlive a crash of the server.
func TestFaultRestartWithLog(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{AppendOnly: true})
	c, other := l.process(), l.process()
	lease := l.lock(c, "name")
	w := l.waiter(other, "name")
	l.server.Restart()
	if err := lease.Extend(l.patience(), labTTL); err != nil {
		l.Errorf("extend after the restart: %v", err)
	}
	if _, err := other.Mutex("name").TryLock(l.patience()); !errors.Is(err, holdfast.ErrHeld) {
		l.Errorf("a try beside the waiter: %v", err)
	}
	w.stillWaits()
	l.unlock(lease)
	next := w.granted()
	if next.Fence() <= lease.Fence() {
		l.Errorf("fence %d after %d", next.Fence(), lease.Fence())
	}
	l.unlock(next)
}

// The server forgets its scripts: each of the next calls is sent once more, with its source.
func TestFaultScriptFlush(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.application(l.server.Addr())
	lease := l.lock(c, "name", holdfast.WithoutRenewal())
	calls := func() (evalsha, eval int) {
		info, err := l.server.Info()
		if err != nil {
			l.Fatal(err)
		}
		return statOf(info["cmdstat_evalsha"], "calls"), statOf(info["cmdstat_eval"], "calls")
	}
	for _, step := range []struct {
		name string
		f    func() error
	}{
		{"extend", func() error { return lease.Extend(l.patience(), labTTL) }},
		{"unlock", func() error { return lease.Unlock() }},
		{"trylock", func() (err error) { lease, err = c.Mutex("name").TryLock(l.patience()); return err }},
	} {
		l.do("SCRIPT", "FLUSH")
		sha, source := calls()
		if err := step.f(); err != nil {
			l.Errorf("%s: %v", step.name, err)
		}
		if sha2, source2 := calls(); sha2-sha != 1 || source2-source != 1 {
			l.Errorf("%s: %d EVALSHA and %d EVAL, want one each", step.name, sha2-sha, source2-source)
		}
	}
	l.do("SCRIPT", "FLUSH")
	if _, err := c.Inspect(l.patience(), "name"); err != nil {
		l.Error(err)
	}
	l.unlock(lease)
}
