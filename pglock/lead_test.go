package pglock

import (
	"context"
	"sync"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/leaver"
)

// TestLeadUntilResigned: from when a caller has its answer until it has resigned, nobody else uses its
// connection; and then what was asked meanwhile is somebody's to do.
func TestLeadUntilResigned(t *testing.T) {
	_, s, on := stubEngine(t)
	// Who is about to resign waits for leave: it is held up there.
	leaving, resign := make(chan struct{}), make(chan struct{})
	s.leavers = leaver.New(nil, 0, sync.OnceFunc(func() { close(leaving); <-resign }))
	letResign := sync.OnceFunc(func() { close(resign) })
	defer letResign()

	ctx, cancel := context.WithCancel(t.Context())
	first, led := newRequest(step{op: opPing}), make(chan bool, 1)
	go func() { led <- s.lead(ctx, first, 0) }()
	under := on.next()
	cancel()
	soon(t, "the caller is let go", leaving)
	under.answer <- []int64{1}
	soon(t, "it has its answer", first.done)

	other := make(chan bool, 1)
	second := newRequest(step{op: opPing})
	second.waits = true // the others wait for leave, as things are
	go func() { other <- s.lead(t.Context(), second, 0) }()
	select {
	case c := <-on.calls:
		t.Error("another caller uses the connection before the first has resigned")
		c.answer <- []int64{1}
	case is := <-other:
		if is {
			t.Error("another caller has used the connection before the first has resigned")
		}
	}
	behind := newRequest(step{op: opPing})
	s.submit(behind)
	soon(t, "the session's goroutine is roused", s.wake)
	if batch, over := s.take(); len(batch) > 0 || over {
		t.Errorf("the session's goroutine takes %d requests, over %t, before the caller has resigned", len(batch), over)
	}
	letResign()
	if !soon(t, "the caller returns", led) {
		t.Error("the caller has not carried out its request")
	}
	select {
	case <-s.wake:
	default:
		t.Error("nobody is roused for what was asked meanwhile")
	}
	if batch, _ := s.take(); len(batch) != 1 || batch[0] != behind {
		t.Errorf("%d requests are to be done, want the one that was asked meanwhile", len(batch))
	}
	behind.finish(nil)
}

// TestLeadQueue: what is asked while a caller is in its statement is done afterwards, together, though
// nobody asks for anything else.
func TestLeadQueue(t *testing.T) {
	e, s, on := stubEngine(t)
	e.calls.Go(s.run)
	results := make(chan error, 3)
	acquire := func(number byte) {
		go func() {
			_, err := e.Acquire(context.Background(), stubRequest(string('a'+rune(number)), number))
			results <- err
		}()
	}
	acquire(1)
	first := on.next()
	acquire(2)
	acquire(3)
	eventually(t, "the others have asked, and the session's goroutine has seen it", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) == 2 && len(s.wake) == 0
	})
	first.answer <- []int64{10}
	on.answers([]int64{11, 12})
	for range cap(results) {
		if err := soon(t, "the request is answered", results); err != nil {
			t.Error(err)
		}
	}
}

// lateContext calls f when it is asked for its error.
type lateContext struct {
	context.Context
	f func()
}

func (c lateContext) Err() error { c.f(); return c.Context.Err() }

// TestLeadAlone: a caller whose context may end carries out its statement only where nothing but its
// own lives in the session, and one whose context cannot end wherever the session is at rest.
func TestLeadAlone(t *testing.T) {
	_, s, on := stubEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lives := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lives = n
	}
	for what, c := range map[string]struct {
		ctx        context.Context
		lives, own int
		leads      bool
	}{
		"alone":                              {ctx, 0, 0, true},
		"beside another":                     {ctx, 1, 0, false},
		"beside its own":                     {ctx, 1, 1, true},
		"beside its own and another":         {ctx, 2, 1, false},
		"without end":                        {context.Background(), 2, 0, true},
		"another comes while it is looked":   {lateContext{ctx, func() { lives(1) }}, 0, 0, false},
		"what is its own comes at that time": {lateContext{ctx, func() { lives(1) }}, 0, 1, true},
	} {
		lives(c.lives)
		led := make(chan bool, 1)
		go func() { led <- s.lead(c.ctx, newRequest(step{op: opPing}), c.own) }()
		var leads bool
		select {
		case under := <-on.calls:
			under.answer <- []int64{1}
			leads = soon(t, "the caller returns", led)
		case leads = <-led:
		}
		if leads != c.leads {
			t.Errorf("%s: leads is %t", what, leads)
		}
	}
	lives(0)
}

// TestLeadPanics: a driver that panics under a caller ends the session, and the caller leaves its turn.
func TestLeadPanics(t *testing.T) {
	panicked := func(what string, on *stub, f func()) {
		t.Helper()
		recovered := make(chan any, 1)
		go func() {
			defer func() { recovered <- recover() }()
			f()
		}()
		on.next().answer <- planted
		if p := soon(t, "the call of "+what+" is over", recovered); p != planted {
			t.Errorf("%s: recovers %v", what, p)
		}
	}
	for what, run := range map[string]func(e *Engine, s *session, on *stub){
		"a try": func(e *Engine, _ *session, on *stub) {
			panicked("a try", on, func() { _, _ = e.Acquire(context.Background(), stubRequest("name", 1)) })
		},
		"a request that waits": func(e *Engine, _ *session, on *stub) {
			req := stubRequest("name", 1)
			req.Wait = true
			panicked("a request", on, func() { _, _ = e.Acquire(context.Background(), req) })
		},
		"a wait apart": func(e *Engine, _ *session, on *stub) {
			apart := stubSession(e, on)
			e.calls.Go(apart.run)
			e.spare(apart)
			e.waitedIn(apart, e.cfg.keysOf("name"))
			req := stubRequest("name", 1)
			req.Wait = true
			panicked("a wait", on, func() { _, _ = e.Acquire(context.Background(), req) })
			if apart.alive() {
				t.Error("the session of a wait outlives the panic")
			}
		},
		"a release": func(e *Engine, _ *session, on *stub) {
			req := stubRequest("name", 1)
			go on.answers([]int64{10})
			g, err := e.Acquire(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			panicked("a release", on, func() { _ = e.Release(context.Background(), req.Claim(g)) })
		},
	} {
		e, s, on := stubEngine(t)
		e.calls.Go(s.run)
		b := e.openBook(e.cfg.keysOf("name"))
		run(e, s, on)
		e.mu.Lock()
		if b.busy || b.waiter != nil || len(b.shares) > 0 || b.users != 1 {
			t.Errorf("%s: left behind are busy %t, waiter %v, %d shares, %d users", what, b.busy, b.waiter, len(b.shares), b.users)
		}
		e.mu.Unlock()
		if what != "a wait apart" && s.alive() {
			t.Errorf("%s: the session outlives the panic", what)
		}
		e.closeBook(b)
	}
}

// TestOverdueShare: what has run out refuses nobody, be it late with being given back, or just about to
// be. Who was late then does not give back what the same token holds anew.
func TestOverdueShare(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, s, on := stubEngine(t)
	e.calls.Go(s.run)
	clock := e.clock.(*lateClock)
	for round, next := range []driver.Request{stubRequest("name", 2), stubRequest("name", 1)} {
		old := stubRequest("name", 1)
		go on.answers([]int64{10})
		if _, err := e.Acquire(ctx, old); err != nil {
			t.Fatal(err)
		}
		e.mu.Lock()
		sh := e.shares[old.Token]
		sh.leaving = round == 1 // its end was noticed, and who gives it back has not had the turn yet
		e.mu.Unlock()
		if _, err := e.Acquire(ctx, stubRequest("name", 3)); !isHeldError(err) {
			t.Errorf("request before the end: %v", err)
		}
		clock.now.Add(int64(old.TTL))
		go on.answers([]int64{1}, []int64{11}) // given back, and taken
		g, err := e.Acquire(ctx, next)
		if err != nil {
			t.Fatalf("request after the end: %v", err)
		}
		e.giveBack(sh) // asks nothing: nobody would answer
		go on.answers([]int64{1})
		if err := e.Release(ctx, next.Claim(g)); err != nil {
			t.Errorf("release: %v", err)
		}
	}
}

func isHeldError(err error) bool {
	d, ok := err.(*driver.Error)
	return ok && d.Kind == driver.Held
}
