package fence_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/memlock"
)

// wantStale checks a refusal and its numbers.
func wantStale(t *testing.T, err error, shown, stored int64) {
	t.Helper()
	var stale *fence.StaleError
	if !errors.Is(err, holdfast.ErrStale) || !errors.As(err, &stale) {
		t.Fatalf("error %v, want ErrStale", err)
	}
	if stale.Fence != shown || stale.Stored != stored {
		t.Fatalf("refused with %+v, want %d shown and %d stored", *stale, shown, stored)
	}
}

func wantInvalid(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, holdfast.ErrInvalid) {
		t.Fatalf("error %v, want ErrInvalid", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stores are those that need no server, each new and empty.
func stores(t *testing.T) map[string]fence.Store {
	file, err := fence.NewFile(filepath.Join(t.TempDir(), "store"), fence.FileConfig{})
	must(t, err)
	return map[string]fence.Store{"Memory": new(fence.Memory), "File": file}
}

func TestStores(t *testing.T) {
	for kind, s := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			wantStale(t, s.Check(ctx, fence.Of("n", 33)), 33, 0)
			must(t, s.Open(ctx, fence.Of("n", 33)))
			must(t, s.Open(ctx, fence.Of("n", 33)))
			must(t, s.Check(ctx, fence.Of("n", 33)))
			wantStale(t, s.Check(ctx, fence.Of("n", 34)), 34, 33)
			wantStale(t, s.Check(ctx, fence.Of("n", 32)), 32, 33)
			must(t, s.Open(ctx, fence.Of("n", fence.MaxFence)))
			wantStale(t, s.Check(ctx, fence.Of("n", 33)), 33, fence.MaxFence)
			wantStale(t, s.Open(ctx, fence.Of("n", fence.MaxFence-1)), fence.MaxFence-1, fence.MaxFence)
			must(t, s.Check(ctx, fence.Of("n", fence.MaxFence)))
			for _, other := range []string{"N", "n ", "n\u0301", "ñ"} {
				must(t, s.Open(ctx, fence.Of(other, 1)))
			}
		})
	}
}

// A context that has ended, as that of Mutex.Do does when the lock is lost, keeps calls from
// beginning.
func TestEndedContext(t *testing.T) {
	for kind, s := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for _, err := range []error{s.Open(ctx, fence.Of("n", 1)), s.Check(ctx, fence.Of("n", 1))} {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error %v, want context.Canceled", err)
				}
			}
			wantStale(t, s.Check(t.Context(), fence.Of("n", 1)), 1, 0)
		})
	}
}

func TestLeasesThatNoEngineGrants(t *testing.T) {
	bad := map[string]fence.Lease{
		"nil":    nil,
		"fence":  fence.Of("n", 0),
		"2^53":   fence.Of("n", fence.MaxFence+1),
		"-9":     fence.Of("n", -9),
		"empty":  fence.Of("", 1),
		"513":    fence.Of(strings.Repeat("x", 513), 1),
		"U+0000": fence.Of("a\x00b", 1),
	}
	for kind, s := range stores(t) {
		for word, l := range bad {
			wantInvalid(t, s.Open(t.Context(), l), kind+" open", word)
			wantInvalid(t, s.Check(t.Context(), l), kind+" check", word)
		}
	}
	err := new(fence.Memory).Open(t.Context(), fence.Of("", 0))
	wantInvalid(t, err, "name is empty", "fence is 0") // every violation at once
}

func TestStaleErrorSaysWhatToDo(t *testing.T) {
	m := new(fence.Memory)
	must(t, m.Open(t.Context(), fence.Of("invoice", 34)))
	for l, words := range map[fence.Lease][]string{
		fence.Of("invoice", 33): {`"invoice"`, "stale", "33", "34", "take the lock again"},
		fence.Of("invoice", 35): {`"invoice"`, "stale", "35", "34", "call Open"},
		fence.Of("other", 7):    {`"other"`, "stale", "7", "none", "call Open"},
	} {
		err := m.Check(t.Context(), l)
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
		var e *holdfast.Error
		var s *fence.StaleError
		if !errors.As(err, &e) || e.Outcome != holdfast.NotApplied || !errors.As(err, &s) || s.Overtaken() != (l.Fence() == 33) {
			t.Errorf("error %#v", err)
		}
	}
}

// A lease is asked for its fence by every call. After an upgrade the new one counts, and has to
// be registered.
func TestLeaseAfterUpgrade(t *testing.T) {
	hf, err := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{TTL: time.Minute})
	must(t, err)
	defer hf.Close()
	l, err := hf.RWMutex("n").LockUpgradeable(t.Context())
	must(t, err)
	m, before := new(fence.Memory), l.Fence()
	must(t, m.Open(t.Context(), l))
	must(t, l.Upgrade(t.Context()))
	wantStale(t, m.Check(t.Context(), l), l.Fence(), before)
	must(t, m.Open(t.Context(), l))
	must(t, m.Check(t.Context(), l))
	wantStale(t, m.Check(t.Context(), fence.Of("n", before)), before, l.Fence())
}

// The same between goroutines of one process, which pass a lock on without asking the engine:
// each has a fence of its own.
func TestHandedOverLeases(t *testing.T) {
	hf, err := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{TTL: time.Minute})
	must(t, err)
	defer hf.Close()
	first, err := hf.Mutex("n").Lock(t.Context())
	must(t, err)
	m := new(fence.Memory)
	must(t, m.Open(t.Context(), first))
	must(t, first.Unlock())
	second, err := hf.Mutex("n").Lock(t.Context())
	must(t, err)
	must(t, m.Open(t.Context(), second))
	wantStale(t, m.Check(t.Context(), first), first.Fence(), second.Fence())
}

func TestContextCarriesALease(t *testing.T) {
	if l, ok := fence.FromContext(t.Context()); ok {
		t.Errorf("found %v in an empty context", l)
	}
	l, ok := fence.FromContext(fence.NewContext(t.Context(), fence.Of("n", 7)))
	if !ok || l.Name() != "n" || l.Fence() != 7 {
		t.Errorf("found %v, %v", l, ok)
	}
}
