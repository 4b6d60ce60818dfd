package mysqllock

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// granting is a connection to a server that has every lock to give, and counts those it has given.
type granting struct {
	t     *testing.T
	given atomic.Int32
}

func (g *granting) Connect(context.Context) (sqldriver.Conn, error) { return g, nil }
func (g *granting) Driver() sqldriver.Driver                        { return nil }
func (g *granting) Prepare(string) (sqldriver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (g *granting) Begin() (sqldriver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (g *granting) Close() error                                    { return nil }
func (g *granting) PrepareContext(_ context.Context, text string) (sqldriver.Stmt, error) {
	return &grantingStatement{g, text}, nil
}

type grantingStatement struct {
	*granting
	text string
}

func (s *grantingStatement) NumInput() int { return -1 }
func (s *grantingStatement) Exec([]sqldriver.Value) (sqldriver.Result, error) {
	return nil, errors.ErrUnsupported
}
func (s *grantingStatement) Query([]sqldriver.Value) (sqldriver.Rows, error) {
	return nil, errors.ErrUnsupported
}
func (s *grantingStatement) QueryContext(context.Context, []sqldriver.NamedValue) (sqldriver.Rows, error) {
	switch {
	case s.text == releaseOneText:
		s.given.Add(-1)
		return &oneRow{columns: []sqldriver.Value{int64(1)}}, nil
	case strings.Contains(s.text, "GET_LOCK(?,0)"):
		if n := s.given.Add(1); n != 1 {
			s.t.Errorf("%d locks at once", n)
		}
		return &oneRow{columns: []sqldriver.Value{int64(1), int64(0)}}, nil
	}
	s.t.Errorf("asked: %s", s.text)
	return nil, errors.ErrUnsupported
}

type oneRow struct {
	columns []sqldriver.Value
	read    bool
}

func (r *oneRow) Columns() []string { return make([]string, len(r.columns)) }
func (r *oneRow) Close() error      { return nil }
func (r *oneRow) Next(row []sqldriver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	copy(row, r.columns)
	return nil
}

// lateClock is a clock that the test sets, whose timers never fire.
type lateClock struct{ now atomic.Int64 }

func (c *lateClock) Now() driver.Instant                          { return driver.Instant(c.now.Load()) }
func (c *lateClock) AfterFunc(time.Duration, func()) driver.Timer { return lateTimer{} }

type lateTimer struct{}

func (lateTimer) Stop() bool               { return true }
func (lateTimer) Reset(time.Duration) bool { return true }

// TestOverdueShare: what has run out refuses nobody of its own process, though the timer that gives it
// back is late. Before its end it does.
func TestOverdueShare(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), leadPatience)
	defer cancel()
	s, _, _ := leadSession(t)
	on, clock := &granting{t: t}, new(lateClock)
	db := sql.OpenDB(on)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e := s.e
	e.main, e.clock, s.conn, s.lease, s.registered = s, clock, conn, 1, true
	e.names, e.spent, e.cfg = make(map[string]*name), make(map[string]int64), Config{}.withDefaults()
	prefix := ""
	e.prefix.Store(&prefix)
	s.fences.ceiling = 1 << 20

	request := func(token byte) driver.Request {
		return driver.Request{Name: "name", Mode: driver.Exclusive, TTL: time.Second, Span: 1, Token: driver.Token{token}}
	}
	for what, next := range map[string]driver.Request{"another token": request(2), "its own token": request(1)} {
		first := request(1)
		if _, err := e.Acquire(ctx, first); err != nil {
			t.Fatal(err)
		}
		clock.now.Add(int64(first.TTL) - 1)
		if _, err := e.Acquire(ctx, request(3)); !isHeld(err) {
			t.Errorf("%s: request before the end: %v", what, err)
		}
		clock.now.Add(1)
		g, err := e.Acquire(ctx, next)
		if err != nil {
			t.Fatalf("%s: request after the end: %v", what, err)
		}
		if n := e.names["name"]; len(n.shares) != 1 || n.shares[0].until != clock.Now().Add(next.TTL) {
			t.Errorf("%s: the books have %d shares", what, len(n.shares))
		}
		if err := e.Release(ctx, next.Claim(g)); err != nil {
			t.Errorf("%s: release: %v", what, err)
		}
		if len(e.names) != 0 || on.given.Load() != 0 {
			t.Errorf("%s: left behind are %d names and %d locks", what, len(e.names), on.given.Load())
		}
	}
}
