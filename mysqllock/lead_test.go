package mysqllock

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// leadPatience bounds every wait. It is long because machines are busy.
const leadPatience = 30 * time.Second

// askedContext counts how often somebody waits for its end.
type askedContext struct {
	context.Context
	times atomic.Int32
}

func (c *askedContext) Done() <-chan struct{} {
	c.times.Add(1)
	return c.Context.Done()
}

// leadSession is a session at rest whose jobs ask nothing of its connection. The test calls end.
func leadSession(t *testing.T) (s *session, life *askedContext, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	life = &askedContext{Context: ctx}
	e := &Engine{clock: driver.BootClock(), life: life, closing: make(chan struct{})}
	s = e.newSession()
	s.conn, s.prompt = new(sql.Conn), true
	t.Cleanup(func() { cancel(); s.rouse(); e.calls.Wait() })
	return s, life, cancel
}

// blocked is a caller who has the turn, until finish is called. done is closed when it has left.
func blocked(t *testing.T, s *session) (finish func(), done <-chan struct{}) {
	t.Helper()
	begun, over, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		if !s.lead(context.Background(), &job{run: func() error { close(begun); <-over; return nil }, then: func(error) {}}) {
			t.Error("a caller who finds the session at rest does not take the turn")
		}
	}()
	leadSoon(t, "the caller has the turn", begun)
	finish = sync.OnceFunc(func() { close(over) })
	t.Cleanup(finish)
	return finish, left
}

func leadSoon(t *testing.T, what string, from <-chan struct{}) {
	t.Helper()
	select {
	case <-from:
	case <-time.After(leadPatience):
		t.Fatalf("never: %s", what)
	}
}

// waiting submits n jobs, and returns when the session's goroutine has looked at the last of them.
func waiting(t *testing.T, s *session, n int) <-chan struct{} {
	t.Helper()
	var left atomic.Int32
	left.Store(int32(n))
	done := make(chan struct{})
	for range n {
		s.submit(&job{run: func() error { return nil }, then: func(error) {
			if left.Add(-1) == 0 {
				close(done)
			}
		}})
	}
	for limit := time.Now().Add(leadPatience); len(s.wake) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the session's goroutine is not roused")
		}
	}
	return done
}

// TestLeadQueue: what is asked while a caller has the turn is done afterwards, though nobody asks for
// anything else.
func TestLeadQueue(t *testing.T) {
	s, _, _ := leadSession(t)
	finish, left := blocked(t, s)
	done := waiting(t, s, 2)
	select {
	case <-done:
		t.Error("a job is done in the turn of a caller")
	default:
	}
	finish()
	leadSoon(t, "the caller has left", left)
	leadSoon(t, "the others' jobs are done", done)
}

// TestLeadEnds: when the engine ends while a caller has the turn, and others wait for it, the session's
// goroutine sleeps until it is over, does what they have asked, and ends.
func TestLeadEnds(t *testing.T) {
	s, life, end := leadSession(t)
	finish, left := blocked(t, s)
	done := waiting(t, s, 2)
	before := life.times.Load()
	end()
	time.Sleep(20 * time.Millisecond) // in which one that does not sleep asks many times
	if asked := life.times.Load() - before; asked > 5 {
		t.Errorf("the session's goroutine has looked %d times for the end while a caller has the turn", asked)
	}
	finish()
	leadSoon(t, "the caller has left", left)
	leadSoon(t, "the others' jobs are done", done)
	ended := make(chan struct{})
	go func() { s.e.calls.Wait(); close(ended) }()
	leadSoon(t, "the session's goroutine ends", ended)
}
