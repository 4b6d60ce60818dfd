package pglock

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
)

// TestTurnLeft: who returns before the server has answered leaves its turn to that answer, from a
// request and from a release. Nobody else asks for the name before it is there, and what was granted
// late has been given back by then.
func TestTurnLeft(t *testing.T) {
	e, s, on := stubEngine(t)
	e.calls.Go(s.run)
	s.mu.Lock()
	s.lives++ // something else lives in the session, so that nobody ends it
	s.mu.Unlock()
	b := e.openBook(e.cfg.keysOf("name"))
	defer e.closeBook(b)

	req := stubRequest("name", 1)
	ask := func(ctx context.Context) error { _, err := e.Acquire(ctx, req); return err }
	for what, call := range map[string]struct {
		do     func(context.Context) error
		answer int64
		held   bool // before it, and so not to be given back after it
	}{
		"request": {ask, 10, false},
		"release": {func(ctx context.Context) error {
			return e.Release(ctx, req.Claim(driver.Grant{Fence: 9, FenceSpan: 1}))
		}, 1, true},
	} {
		if call.held {
			go on.answers([]int64{9})
			if err := ask(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- call.do(ctx) }()
		under := on.next()
		cancel()
		if err := soon(t, what+": the caller returns", first); !errors.Is(err, context.Canceled) {
			t.Errorf("%s without an answer: %v", what, err)
		}

		other := stubRequest("name", 2)
		var g driver.Grant
		go func() {
			var err error
			g, err = e.Acquire(context.WithoutCancel(t.Context()), other)
			second <- err
		}()
		inLine := func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(b.line) == 1 }
		eventually(t, what+": another has asked", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.queue) == 1 || len(second) == 1 || inLine()
		})
		if !inLine() {
			t.Fatalf("%s: another has its turn before the answer is there", what)
		}
		under.answer <- []int64{call.answer}
		if !call.held {
			back := on.next()
			if back.text != s.unlock {
				t.Errorf("%s: what was granted late is not given back: %s", what, back.text)
			}
			back.answer <- []int64{1}
		}
		on.answers([]int64{11})
		if err := soon(t, what+": the other is served", second); err != nil {
			t.Fatalf("%s: the other: %v", what, err)
		}
		go on.answers([]int64{1})
		if err := e.Release(t.Context(), other.Claim(g)); err != nil {
			t.Errorf("%s: the other's release: %v", what, err)
		}
	}
	if b.busy || len(b.shares) > 0 {
		t.Errorf("left behind are busy %t, %d shares", b.busy, len(b.shares))
	}
}

// TestChanged: who waits for its own process to give something back does not sleep over what was given
// back before it began to.
func TestChanged(t *testing.T) {
	e, s, on := stubEngine(t)
	e.calls.Go(s.run)
	a := &ask{e: e, book: e.openBook(e.cfg.keysOf("name"))}
	defer e.closeBook(a.book)
	cycle := func() {
		go on.answers([]int64{10}, []int64{1})
		req := stubRequest("name", 1)
		g, err := e.Acquire(t.Context(), req)
		if err == nil {
			err = e.Release(t.Context(), req.Claim(g))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := a.changes()
	cycle()
	if a.changed(seen) != nil {
		t.Error("what was given back is waited for")
	}
	changed := a.changed(a.changes())
	if changed == nil {
		t.Fatal("nothing is given back, and nobody waits for it")
	}
	cycle()
	soon(t, "what is given back wakes who waits", changed)
}
