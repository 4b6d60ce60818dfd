package pglock

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/leaver"
)

// patience bounds every wait. It is long because machines are busy.
const patience = 30 * time.Second

// stub is a connection whose server is the test: every statement waits for what the test answers.
type stub struct {
	t     *testing.T
	calls chan asked
	users atomic.Int32 // statements under way
}

// asked is a statement under way.
type asked struct {
	text   string
	answer chan<- any
}

// planted is the answer to a call that panics.
const planted = "planted"

func (s *stub) PrepareContext(_ context.Context, text string) (sqldriver.Stmt, error) {
	return &stubStatement{stub: s, text: text}, nil
}
func (s *stub) Prepare(string) (sqldriver.Stmt, error) { return nil, errors.ErrUnsupported }
func (s *stub) Begin() (sqldriver.Tx, error)           { return nil, errors.ErrUnsupported }
func (s *stub) Close() error                           { return nil }

// next is the next statement that is asked.
func (s *stub) next() asked {
	s.t.Helper()
	select {
	case c := <-s.calls:
		return c
	case <-time.After(patience):
		s.t.Fatal("nothing is asked")
		return asked{}
	}
}

// answers answers the next statements, each with rows of one number.
func (s *stub) answers(all ...[]int64) {
	s.t.Helper()
	for _, rows := range all {
		s.next().answer <- rows
	}
}

type stubStatement struct {
	*stub
	text string
}

func (s *stubStatement) NumInput() int { return -1 }
func (s *stubStatement) Exec([]sqldriver.Value) (sqldriver.Result, error) {
	return nil, errors.ErrUnsupported
}
func (s *stubStatement) Query([]sqldriver.Value) (sqldriver.Rows, error) {
	return nil, errors.ErrUnsupported
}
func (s *stubStatement) QueryContext(ctx context.Context, _ []sqldriver.NamedValue) (sqldriver.Rows, error) {
	if s.users.Add(1) != 1 {
		s.t.Error("two use one connection")
	}
	defer s.users.Add(-1)
	answer := make(chan any, 1)
	select {
	case s.calls <- asked{s.text, answer}:
	case <-ctx.Done():
		return nil, sqldriver.ErrBadConn
	}
	var got any
	select {
	case got = <-answer:
	case <-ctx.Done():
		return nil, sqldriver.ErrBadConn
	}
	if got == planted {
		panic(got)
	}
	return &stubRows{got.([]int64)}, nil
}

type stubRows struct{ left []int64 }

func (*stubRows) Columns() []string { return []string{"n"} }
func (*stubRows) Close() error      { return nil }
func (r *stubRows) Next(row []sqldriver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	row[0], r.left = r.left[0], r.left[1:]
	return nil
}

// lateClock is a clock that the test sets, whose timers never fire.
type lateClock struct{ now atomic.Int64 }

func (c *lateClock) Now() driver.Instant                          { return driver.Instant(c.now.Load()) }
func (c *lateClock) AfterFunc(time.Duration, func()) driver.Timer { return lateTimer{} }

type lateTimer struct{}

func (lateTimer) Stop() bool               { return true }
func (lateTimer) Reset(time.Duration) bool { return true }

// stubEngine is an engine with one session, on a stub. Nobody runs the session yet.
func stubEngine(t *testing.T) (*Engine, *session, *stub) {
	e := &Engine{
		cfg: Config{Connections: 1}.withDefaults(), clock: new(lateClock), texts: newTexts("holdfast"),
		books: make(map[key]*book), shares: make(map[driver.Token]*share), waiting: make(map[driver.Token]*ask),
		closing: make(chan struct{}), kick: make(chan struct{}, 1), reaps: never,
	}
	e.server.span = 1
	e.life, e.end = context.WithCancel(context.Background())
	on := &stub{t: t, calls: make(chan asked)}
	s := stubSession(e, on)
	e.pool.main.session = s
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, s, on
}

// stubSession is another session of the engine.
func stubSession(e *Engine, on *stub) *session {
	s := &session{e: e, wake: make(chan struct{}, 1)}
	s.learn(1)
	s.life, s.end = context.WithCancel(e.life)
	s.leavers = leaver.New(e.closing, withdrawal, func() { s.finish(errLeft) })
	s.w = &wire{conn: on, life: s.life, prompt: true, prepared: make(map[string]sqldriver.StmtQueryContext)}
	e.mu.Lock()
	e.pool.all = append(e.pool.all, s)
	e.pool.count++
	e.mu.Unlock()
	return s
}

func stubRequest(name string, number byte) driver.Request {
	return driver.Request{Name: name, Mode: driver.Exclusive, TTL: time.Second, Span: 1, Token: driver.Token{number}}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

// soon is what comes from a channel within patience.
func soon[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
	}
	return v
}
