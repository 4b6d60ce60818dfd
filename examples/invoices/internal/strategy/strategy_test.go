package strategy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	_ "github.com/holdfast-go/holdfast/filelock"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
)

// open returns so many instances of a strategy on one database.
func open(t *testing.T, name string, instances int) ([]strategy.Strategy, *store.Store) {
	t.Helper()
	kind, err := strategy.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	var all []strategy.Strategy
	var last *store.Store
	for n := range instances {
		s, err := store.Open(t.Context(), "sqlite://"+filepath.Join(folder, "invoices.db"), n)
		if err != nil {
			t.Fatal(err)
		}
		st, err := kind.Open(t.Context(), strategy.Settings{
			Store: s, Engine: "file://" + filepath.Join(folder, "locks"), Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(st.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		})
		all, last = append(all, st), s
	}
	return all, last
}

// issue has every instance issue invoices, several at a time, and returns how often each number
// was given.
func issue(t *testing.T, all []strategy.Strategy, s *store.Store, each int) map[int64]int {
	t.Helper()
	var clients sync.WaitGroup
	for n, st := range all {
		for c := range 4 {
			clients.Go(func() {
				for i := range each / 4 {
					r := store.Request{Key: fmt.Sprintf("%d-%d-%d", n, c, i), Customer: "somebody", Cents: 100}
					if _, err := st.Issue(t.Context(), r); err != nil {
						t.Errorf("instance %d: %v", n, err)
					}
				}
			})
		}
	}
	clients.Wait()
	list, err := s.List(t.Context(), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	given := map[int64]int{}
	for _, i := range list {
		given[i.Number]++
	}
	return given
}

const (
	instances = 3
	each      = 40
)

// Strategies that claim it give every number from 1 on once. SQLite lets transactions come one after the
// other, so that of those in one transaction nothing else was to be expected here: the tests of the
// cluster have them on PostgreSQL.
func TestGapless(t *testing.T) {
	for _, name := range []string{"mutex", "version", "sequence", "counter", "unfenced"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, s := open(t, name, instances)
			given := issue(t, all, s, each)
			for n := range int64(instances * each) {
				if given[n+1] != 1 {
					t.Errorf("number %d was given %d times", n+1, given[n+1])
				}
			}
		})
	}
}

// Without a lock, and with one that each instance has for itself, numbers are given twice.
func TestDuplicates(t *testing.T) {
	for _, name := range []string{"none", "local"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, s := open(t, name, instances)
			if given := issue(t, all, s, each); len(given) == instances*each {
				t.Error("every number was given once: the other tests prove nothing")
			}
		})
	}
}

// One key is one invoice, wherever and however often it is asked for.
func TestOneInvoiceForAKey(t *testing.T) {
	for _, k := range strategy.All {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			all, s := open(t, k.Name, instances)
			var issued, repeated sync.Map
			var clients sync.WaitGroup
			for n, st := range all {
				for c := range 4 {
					clients.Go(func() {
						_, err := st.Issue(t.Context(), store.Request{Key: "one", Customer: "somebody", Cents: 100})
						switch {
						case err == nil:
							issued.Store([2]int{n, c}, nil)
						case errors.Is(err, store.ErrIssued):
							repeated.Store([2]int{n, c}, nil)
						default:
							t.Error(err)
						}
					})
				}
			}
			clients.Wait()
			list, err := s.List(t.Context(), 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != 1 || size(&issued) != 1 || size(&repeated) != 4*instances-1 {
				t.Errorf("%d invoices, %d told of a new one, %d of one that is there", len(list), size(&issued), size(&repeated))
			}
		})
	}
}

func size(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// An attempt that failed after it had a number leaves no gap where the numbers are in the
// database, and the other strategies say that they leave one.
func TestGapAfterARepeatedKey(t *testing.T) {
	for _, k := range strategy.All {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			all, s := open(t, k.Name, 1)
			for _, key := range []string{"one", "one", "two"} {
				_, err := all[0].Issue(t.Context(), store.Request{Key: key, Customer: "somebody", Cents: 100})
				if err != nil && !errors.Is(err, store.ErrIssued) {
					t.Fatal(err)
				}
			}
			two, err := s.Find(t.Context(), "two")
			if err != nil {
				t.Fatal(err)
			}
			if gap := two.Number != 2; gap != (k.GapsAre != "") {
				t.Errorf("the second invoice has number %d, and gaps are: %q", two.Number, k.GapsAre)
			}
		})
	}
}

func TestAnEngineIsNeeded(t *testing.T) {
	for _, k := range strategy.All {
		_, err := k.Open(context.Background(), strategy.Settings{Log: slog.New(slog.DiscardHandler)})
		if k.NeedsEngine && err == nil {
			t.Errorf("%s opens without an engine", k.Name)
		}
	}
	if _, err := strategy.Named("luck"); err == nil {
		t.Error("a strategy that nobody knows")
	}
}
