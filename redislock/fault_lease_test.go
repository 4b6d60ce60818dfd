package redislock_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// A lease is given back twice, by several at once, and after its name has found a new holder:
// the new holder does not notice.
func TestFaultUnlockTwice(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	a, b := l.process(), l.process()
	first := l.lock(a, "name")
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		all.Go(func() { errs <- first.Unlock() })
	}
	all.Wait()
	done := 0
	for range cap(errs) {
		if err := <-errs; err == nil {
			done++
		} else {
			l.failed(err, holdfast.ErrNotHeld, holdfast.NotApplied)
		}
	}
	if done != 1 {
		l.Errorf("%d of them gave it back", done)
	}
	second := l.lock(b, "name")
	l.failed(first.Unlock(), holdfast.ErrNotHeld, holdfast.NotApplied)
	l.failed(first.Extend(l.patience(), labTTL), holdfast.ErrNotHeld, holdfast.NotApplied)
	l.undisturbed(second)
	l.unlock(second)
}

// The lock ran out and is somebody else's by now: what its former holder does fails and does
// not touch it.
func TestFaultAfterTheEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	a, b := l.clientWith(l.engineAt(l.server.Addr(), ""), 300*time.Millisecond), l.process()
	for _, next := range []func(*holdfast.Lease) error{
		func(lease *holdfast.Lease) error { return lease.Extend(l.patience(), labTTL) },
		(*holdfast.Lease).Unlock,
	} {
		first := l.lock(a, "name", holdfast.WithoutRenewal())
		second := l.lock(b, "name")
		if first.Remaining() != 0 {
			l.Errorf("%v remain of a lock that somebody else has", first.Remaining())
		}
		l.failed(next(first), holdfast.ErrLost, holdfast.NotApplied)
		l.undisturbed(second)
		l.unlock(second)
		if !l.free("name") {
			l.Errorf("the key is %q again", l.key("name"))
		}
	}
}

// Extensions and renewals race the release: whoever wins, nothing is left behind.
func TestFaultExtendRacesUnlock(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.process()
	const lanes = 20
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(lane), 1))
			for range scale(1000) / lanes {
				name := fmt.Sprintf("lane %d", lane)
				lease, err := c.Mutex(name).TryLock(l.patience())
				if err != nil {
					l.Errorf("lock: %v", err)
					return
				}
				extended := make(chan error, 1)
				go func() { extended <- lease.Extend(l.patience(), labTTL) }()
				pause(rng, 500*time.Microsecond)
				if err := lease.Unlock(); err != nil {
					l.Errorf("unlock: %v", err)
				}
				if err := <-extended; err != nil && !errors.Is(err, holdfast.ErrNotHeld) {
					l.Errorf("extend: %v", err)
				}
			}
		})
	}
	all.Wait()
	if keys := l.list("KEYS", "holdfast:*"); len(keys) > 0 {
		l.Errorf("%q are left", keys)
	}
}
