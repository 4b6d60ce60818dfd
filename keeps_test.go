package holdfast_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// twoFileClients returns two clients on one folder: an engine that keeps shares until they
// are released, whatever their TTL.
func twoFileClients(t *testing.T, cfg holdfast.Config) (a, b *holdfast.Client) {
	t.Helper()
	folder := t.TempDir()
	open := func() driver.Engine {
		e, err := filelock.Open(folder, filelock.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	return clientOn(t, open(), cfg), clientOn(t, open(), cfg)
}

// ended waits for a lease's context to end with ErrLost.
func ended(t *testing.T, l *holdfast.Lease) {
	t.Helper()
	select {
	case <-l.Context().Done():
		want(t, context.Cause(l.Context()), holdfast.ErrLost)
	case <-time.After(20 * time.Second):
		t.Fatal("the lease does not end")
	}
}

// TestLeasesEndOnEnginesThatKeepThem: where the engine does not end a lease that is over, the
// client gives it back.
func TestLeasesEndOnEnginesThatKeepThem(t *testing.T) {
	a, b := twoFileClients(t, holdfast.Config{TTL: 60 * time.Millisecond})
	for name, opt := range map[string]holdfast.Option{
		"ttl":     holdfast.WithoutRenewal(),
		"maxhold": holdfast.WithMaxHold(100 * time.Millisecond),
	} {
		l := mustLock(t, a.Mutex(name, opt))
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		other, err := b.Mutex(name).Lock(ctx)
		cancel()
		if err != nil {
			t.Fatalf("%s: the lock is still held: %v", name, err)
		}
		ended(t, l)
		want(t, l.Unlock(), holdfast.ErrLost)
		if other.Fence() <= l.Fence() {
			t.Errorf("%s: fence %d after %d", name, other.Fence(), l.Fence())
		}
		mustUnlock(t, other)
	}
	// With renewal a lease outlives any number of TTLs.
	l := mustLock(t, a.Mutex("kept"))
	time.Sleep(300 * time.Millisecond)
	if l.Context().Err() != nil {
		t.Error(context.Cause(l.Context()))
	}
	mustUnlock(t, l)
}

func TestABreakIsToldOnEnginesThatKeepLeases(t *testing.T) {
	a, b := twoFileClients(t, holdfast.Config{TTL: 60 * time.Millisecond})
	l := mustLock(t, a.Mutex("x"))
	if _, err := b.Break(context.Background(), "x", holdfast.Break{Fence: l.Fence(), Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	ended(t, l)
	mustUnlock(t, mustLock(t, b.Mutex("x")))
}

func TestGoroutinesExcludeEachOtherThroughFiles(t *testing.T) {
	a, b := twoFileClients(t, holdfast.Config{})
	// Atomic, for the race detector knows nothing of locks that are files.
	var (
		inside, highest atomic.Int64
		group           sync.WaitGroup
	)
	for i := range 8 {
		c := []*holdfast.Client{a, b}[i%2]
		group.Go(func() {
			for range 50 {
				l := mustLock(t, c.Mutex("x"))
				if n, last := inside.Add(1), highest.Swap(l.Fence()); n != 1 || l.Fence() <= last {
					t.Errorf("%d holders, fence %d after %d", n, l.Fence(), last)
				}
				inside.Add(-1)
				mustUnlock(t, l)
			}
		})
	}
	group.Wait()
}
