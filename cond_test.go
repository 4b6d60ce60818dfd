package holdfast_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// condWait takes m and waits for a pulse; the answer is nil once it was woken.
func condWait(ctx context.Context, t *testing.T, m *holdfast.Mutex) <-chan error {
	t.Helper()
	l := mustLock(t, m)
	over := make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // a pulse that was lost ends the test
	t.Cleanup(cancel)
	go func() {
		l, err := m.Cond("c").Wait(ctx, l)
		if err == nil {
			err = l.Unlock()
		}
		over <- err
	}()
	return over
}

// A pulse of whoever gets the lock right after the waiter gave it back arrives, though every write
// for the condition takes its time.
func TestCondPulseBetweenReleaseAndSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		store.Inject(func(call memlock.Call) (f memlock.Fault) {
			if call.Op == memlock.OpWrite && strings.HasPrefix(call.Name, "cond:") {
				f.Delay = time.Second
			}
			return f
		})
		woken := condWait(t.Context(), t, a.Mutex("x"))
		m := b.Mutex("x")
		l := mustLock(t, m)
		if err := m.Cond("c").Signal(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, l)
		if err := <-woken; err != nil {
			t.Error(err)
		}
	})
}

// A waiter that leaves and is pulsed before it is off the list passes the pulse on.
func TestCondCancelledWhilePulsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		leaves := condWait(ctx, t, a.Mutex("x"))
		synctest.Wait()
		stays := condWait(t.Context(), t, b.Mutex("x"))
		synctest.Wait()
		writes := 0
		store.Inject(func(call memlock.Call) (f memlock.Fault) {
			if call.Op == memlock.OpWrite {
				if writes++; writes == 1 { // of the one who leaves
					f.Delay = time.Second
				}
			}
			return f
		})
		cancel()
		synctest.Wait()
		if err := b.Mutex("x").Cond("c").Signal(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, <-leaves, context.Canceled, holdfast.ErrHeld)
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}

// A waiter that is pulsed and cannot have the lock before its context ends passes the pulse on.
func TestCondPulsedWithoutLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		leaves := condWait(ctx, t, a.Mutex("x"))
		synctest.Wait()
		stays := condWait(t.Context(), t, b.Mutex("x"))
		synctest.Wait()
		m := b.Mutex("x")
		l := mustLock(t, m)
		if err := m.Cond("c").Signal(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it waits for the lock now
		cancel()
		want(t, <-leaves, context.Canceled)
		mustUnlock(t, l)
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}

// A waiter that waits for long is still there, and one that died is not.
func TestCondPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		died := condWait(t.Context(), t, a.Mutex("x"))
		synctest.Wait()
		store.Inject(func(call memlock.Call) (f memlock.Fault) { // the first one cannot say that it lives
			if call.Op == memlock.OpWrite || call.Op == memlock.OpRead {
				f.Refuse = context.DeadlineExceeded
			}
			return f
		})
		time.Sleep(15 * time.Second)
		want(t, <-died, holdfast.ErrUnavailable)
		store.Inject(nil)
		stays := condWait(t.Context(), t, b.Mutex("x"))
		time.Sleep(5 * time.Minute)
		if len(stays) > 0 {
			t.Fatalf("a waiter was woken without a pulse: %v", <-stays)
		}
		m := b.Mutex("x")
		l := mustLock(t, m)
		if err := m.Cond("c").Signal(t.Context()); err != nil { // to the second: the first is dead
			t.Fatal(err)
		}
		mustUnlock(t, l)
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}

func TestCondWrongLease(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	m, other := c.Mutex("x"), mustLock(t, c.Mutex("y"))
	_, err := m.Cond("c").Wait(t.Context(), other)
	want(t, err, holdfast.ErrInvalid)
	_, err = m.Cond("c").Wait(t.Context(), nil)
	want(t, err, holdfast.ErrInvalid)
	mustUnlock(t, other)
	l := mustLock(t, m)
	mustUnlock(t, l)
	_, err = m.Cond("c").Wait(t.Context(), l)
	want(t, err, holdfast.ErrNotHeld)
	want(t, m.Cond("").Signal(t.Context()), holdfast.ErrInvalid)
	want(t, m.Cond(strings.Repeat("x", 510)).Broadcast(t.Context()), holdfast.ErrInvalid)
}

// A wait that fails before anybody could be told of it has given the lock back all the same:
// the loop that it is called in has no lease left to unlock. Nor does it leave a waiter behind
// that nobody is, for whom the next pulse would be lost.
func TestCondWaitFailsAtOnce(t *testing.T) {
	for what, fault := range map[string]memlock.Fault{
		"engine down": {Refuse: errors.New("down")},
		"reply lost":  {DropReply: true},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, a, b := twoClients(t, holdfast.Config{})
				l := mustLock(t, a.Mutex("x"))
				failed := false
				store.Inject(func(call memlock.Call) memlock.Fault {
					if call.Op == memlock.OpWrite && !failed {
						failed = true
						return fault
					}
					return memlock.Fault{}
				})
				_, err := a.Mutex("x").Cond("c").Wait(t.Context(), l)
				want(t, err, holdfast.ErrUnavailable)
				checkCondFree(t, b)
			})
		})
	}
	t.Run("context over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, a, b := twoClients(t, holdfast.Config{})
			l := mustLock(t, a.Mutex("x"))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := a.Mutex("x").Cond("c").Wait(ctx, l)
			want(t, err, context.Canceled)
			checkCondFree(t, b)
		})
	})
}

// checkCondFree fails unless the lock is free, and the next pulse reaches the only one who waits.
func checkCondFree(t *testing.T, c *holdfast.Client) {
	t.Helper()
	if l, err := c.Mutex("x").TryLock(t.Context()); err != nil {
		t.Fatalf("the lock was not given back: %v", err)
	} else {
		mustUnlock(t, l)
	}
	woken := condWait(t.Context(), t, c.Mutex("x"))
	synctest.Wait()
	if err := c.Mutex("x").Cond("c").Signal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Error(err)
	}
}

// Whoever waits says so in time, however often the list changes meanwhile.
func TestCondPatienceBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		stays := condWait(t.Context(), t, a.Mutex("x"))
		synctest.Wait()
		for range 60 {
			ctx, cancel := context.WithCancel(t.Context())
			leaves := condWait(ctx, t, b.Mutex("x"))
			time.Sleep(5 * time.Second)
			cancel()
			want(t, <-leaves, context.Canceled)
		}
		if len(stays) > 0 {
			t.Fatalf("a waiter was woken without a pulse: %v", <-stays)
		}
		if err := a.Mutex("x").Cond("c").Signal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}

// A waiter that died does not swallow pulses for as long as the engine's clock was set back.
func TestCondClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := twoClients(t, holdfast.Config{})
		dead := fmt.Appendf(nil, "DEAD %d\n", time.Now().Add(24*time.Hour).UnixMilli())
		e := store.Engine()
		if _, err := e.WriteValue(t.Context(), driver.Write{Name: "cond:c", Data: dead, If: driver.AnyVersion}); err != nil {
			t.Fatal(err)
		}
		e.Close()
		stays := condWait(t.Context(), t, a.Mutex("x"))
		time.Sleep(time.Minute)
		if err := a.Mutex("x").Cond("c").Signal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}
