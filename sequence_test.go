package holdfast_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// forget loses the counter of a sequence, or sets it back.
func forget(t *testing.T, store *memlock.Store, name string, data string) {
	t.Helper()
	e := store.Engine()
	defer e.Close()
	w := driver.Write{Name: "sequence:" + name, Data: []byte(data), Delete: data == "", If: driver.AnyVersion}
	if _, err := e.WriteValue(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, s *holdfast.Sequence) int64 {
	t.Helper()
	n, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSequenceRestored: a counter that was lost, or is behind what this process was given, goes
// on above everything that is known of it.
func TestSequenceRestored(t *testing.T) {
	for what, left := range map[string]string{"lost": "", "behind": "t 3"} {
		t.Run(what, func(t *testing.T) {
			store, a, b := twoClients(t, holdfast.Config{})
			var asked atomic.Int64
			used := int64(0)
			opts := []holdfast.SequenceOption{holdfast.WithGap(100), holdfast.WithSource(func(context.Context) (int64, error) {
				asked.Add(1)
				return used, nil
			})}
			s := a.Sequence("x", opts...)
			for want := int64(1); want <= 10; want++ {
				if n := next(t, s); n != want {
					t.Fatalf("number %d, want %d", n, want)
				}
			}
			used = 8 // 9 and 10 were handed out, and are not in the database yet
			forget(t, store, "x", left)
			n := next(t, s)
			if n != 111 {
				t.Errorf("after a loss the next number is %d: want one above 10 and the gap", n)
			}
			if m := next(t, b.Sequence("x", opts...)); m != n+1 {
				t.Errorf("another process is given %d after %d", m, n)
			}
			if asked.Load() != 2 {
				t.Errorf("the source was asked %d times: want once at the beginning and once for the loss", asked.Load())
			}
		})
	}
}

// TestSequenceRestoredByOthers: a process that was given nothing goes by the source, and its
// gap covers what the source does not know.
func TestSequenceRestoredByOthers(t *testing.T) {
	store, a, b := twoClients(t, holdfast.Config{})
	source := holdfast.WithSource(func(context.Context) (int64, error) { return 8, nil })
	first := a.Sequence("x", source, holdfast.WithGap(0))
	next(t, first) // 9
	next(t, first) // 10
	forget(t, store, "x", "")
	if _, err := first.Peek(t.Context()); !errors.Is(err, holdfast.ErrUnavailable) {
		t.Errorf("Peek at a lost counter: %v", err)
	}
	if n := next(t, b.Sequence("x", source, holdfast.WithGap(50))); n != 59 {
		t.Errorf("the next number is %d: want 59", n)
	}
	if n := next(t, first); n != 60 {
		t.Errorf("the next number is %d: want 60", n)
	}
}

func TestSequenceSourceFails(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	down := errors.New("the database is down")
	answer, err := int64(0), error(down)
	s := c.Sequence("x", holdfast.WithSource(func(context.Context) (int64, error) { return answer, err }))
	_, got := s.Next(t.Context())
	want(t, got, down)
	answer, err = -1, nil
	_, got = s.Next(t.Context())
	want(t, got, holdfast.ErrInvalid)
	answer = 41
	if n := next(t, s); n != 42+holdfast.DefaultSequenceGap {
		t.Errorf("the next number is %d", n)
	}
	want(t, c.Sequence("x").Resync(t.Context()), holdfast.ErrInvalid)
}

func TestSequenceBadInput(t *testing.T) {
	c := newClient(t, holdfast.Config{})
	for what, s := range map[string]*holdfast.Sequence{
		"no name":        c.Sequence(""),
		"long name":      c.Sequence(strings.Repeat("x", 504)),
		"no source":      c.Sequence("x", holdfast.WithSource(nil)),
		"negative gap":   c.Sequence("x", holdfast.WithGap(-1)),
		"huge gap":       c.Sequence("x", holdfast.WithGap(driver.MaxTotal)),
		"no block":       c.Sequence("x", holdfast.WithBlock(0)),
		"huge block":     c.Sequence("x", holdfast.WithBlock(holdfast.MaxReserve+1)),
		"block, no name": c.Sequence("", holdfast.WithBlock(5)),
	} {
		_, err := s.Next(t.Context())
		if !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		_, err = s.Peek(t.Context())
		if !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: Peek: %v", what, err)
		}
	}
	for _, n := range []int64{0, -1, holdfast.MaxReserve + 1} {
		_, err := c.Sequence("x").Reserve(t.Context(), n)
		want(t, err, holdfast.ErrInvalid)
	}
}

// TestNothingToCountWith: an engine that stores nothing says so.
func TestNothingToCountWith(t *testing.T) {
	c := clientOn(t, newSpy(), holdfast.Config{})
	_, err := c.Sequence("x").Next(t.Context())
	want(t, err, holdfast.ErrUnsupported)
	_, err = c.Item("x").Get(t.Context())
	want(t, err, holdfast.ErrUnsupported)
	_, err = c.Election("x").Campaign(t.Context(), nil)
	want(t, err, holdfast.ErrUnsupported)
	want(t, c.Mutex("x").Cond("x").Signal(t.Context()), holdfast.ErrUnsupported)
	a := c.Assignment("x", holdfast.AssignmentConfig{Partitions: 1})
	want(t, a.Run(t.Context(), nil), holdfast.ErrUnsupported)
}

// TestSequenceBehindByLess: one that asks for more numbers than the counter is behind by restores
// it as well: others may have been given more.
func TestSequenceBehindByLess(t *testing.T) {
	store, a, _ := twoClients(t, holdfast.Config{})
	used := int64(0)
	s := a.Sequence("x", holdfast.WithGap(10), holdfast.WithSource(func(context.Context) (int64, error) { return used, nil }))
	for range 10 {
		next(t, s)
	}
	used = 500 // by others
	forget(t, store, "x", "t 3")
	n, err := s.Reserve(t.Context(), 100)
	if err != nil || n.First != 511 {
		t.Errorf("reserved %+v, %v: want 511 and on", n, err)
	}
}

// TestResyncAfterALoss: a Resync that comes across a loss skips the gap, also where the loss
// comes while the source is asked, and more numbers were handed out before it.
func TestResyncAfterALoss(t *testing.T) {
	for what, late := range map[string]bool{"before": false, "meanwhile": true} {
		t.Run(what, func(t *testing.T) {
			store, a, b := twoClients(t, holdfast.Config{})
			var lose func()
			s := a.Sequence("x", holdfast.WithGap(100), holdfast.WithSource(func(context.Context) (int64, error) {
				if lose != nil {
					lose()
				}
				return 0, nil
			}))
			for range 10 {
				next(t, s)
			}
			last := int64(0)
			loss := func() {
				last = next(t, b.Sequence("x"))
				forget(t, store, "x", "")
				lose = nil
			}
			if lose = loss; !late {
				loss()
			}
			if err := s.Resync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := next(t, s); n <= last {
				t.Errorf("%d is handed out after %d", n, last)
			}
		})
	}
}

// TestSequenceLosesBlocks: what others hold in blocks and have not put to use is not handed
// out again after a loss, though the source does not know of it.
func TestSequenceLosesBlocks(t *testing.T) {
	store, a, b := twoClients(t, holdfast.Config{})
	used := int64(0)
	opts := []holdfast.SequenceOption{
		holdfast.WithSource(func(context.Context) (int64, error) { return used, nil }), holdfast.WithBlock(10_000),
	}
	mine := a.Sequence("x", opts...)
	used = next(t, mine)
	forget(t, store, "x", "")
	theirs, given := b.Sequence("x", opts...), map[int64]bool{}
	for range 9_999 {
		for _, s := range []*holdfast.Sequence{mine, theirs} {
			n := next(t, s)
			if given[n] {
				t.Fatalf("%d was handed out twice", n)
			}
			given[n] = true
		}
	}
}

// TestSequenceUsedUp: a restoration does not take the counter beyond the last number.
func TestSequenceUsedUp(t *testing.T) {
	store, a, _ := twoClients(t, holdfast.Config{})
	s := a.Sequence("x")
	next(t, s)
	forget(t, store, "x", fmt.Sprintf("t %d", int64(driver.MaxTotal-5)))
	next(t, s)
	forget(t, store, "x", "")
	for range 2 {
		_, err := s.Next(t.Context())
		want(t, err, holdfast.ErrInvalid)
		if !strings.Contains(err.Error(), "the total would exceed") {
			t.Error(err)
		}
	}
}
