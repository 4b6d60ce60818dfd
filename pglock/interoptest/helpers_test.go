package interoptest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

// patience bounds every wait. It is long because machines are busy.
const patience = 30 * time.Second

// drivers are the database drivers that everything about connections is tested through.
var drivers = []string{"pgx", "postgres"}

// pool opens a pool of that database driver.
func pool(t drivertest.T, through, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(through, url)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// engine returns an engine on db that is closed at the end.
func engine(t drivertest.T, db *sql.DB, cfg pglock.Config) *pglock.Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := pglock.New(ctx, db, cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// bench is a server, and what tests do with it.
type bench struct {
	*testing.T
	server *testserver.PostgresServer
	admin  *sql.DB
}

func newBench(t *testing.T, config ...string) *bench {
	t.Helper()
	server := testserver.Postgres(t, testserver.PostgresOptions{Config: append([]string{"max_connections = 200"}, config...)})
	return &bench{T: t, server: server, admin: pool(t, "pgx", server.URL())}
}

// sub is the same bench for a test within it.
func (b *bench) sub(t *testing.T) *bench { return &bench{T: t, server: b.server, admin: b.admin} }

func (b *bench) engine(through string, cfg pglock.Config) *pglock.Engine {
	b.Helper()
	return engine(b.T, pool(b.T, through, b.server.URL()), cfg)
}

func request(name, owner string, ttl time.Duration) driver.Request {
	req := driver.Request{Name: name, Mode: driver.Exclusive, Owner: owner, TTL: ttl, Span: 1}
	rand.Read(req.Token[:])
	return req
}

// held is what a test was granted.
type held struct {
	e     *pglock.Engine
	claim driver.Claim
	grant driver.Grant
}

func (b *bench) take(e *pglock.Engine, req driver.Request) *held {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g, err := e.Acquire(ctx, req)
	if err != nil {
		b.Fatalf("request for %q: %v", req.Name, err)
	}
	return &held{e, req.Claim(g), g}
}

// waiting is a request that waits.
type waiting struct {
	b      *bench
	cancel context.CancelFunc
	result chan error
	held   *held
}

func (b *bench) wait(e *pglock.Engine, req driver.Request) *waiting {
	req.Wait = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w := &waiting{b: b, cancel: cancel, result: make(chan error, 1)}
	go func() {
		defer cancel()
		g, err := e.Acquire(ctx, req)
		w.held = &held{e, req.Claim(g), g}
		w.result <- err
	}()
	return w
}

func (w *waiting) granted() *held {
	w.b.Helper()
	if err := <-w.result; err != nil {
		w.b.Fatalf("a request that waited: %v", err)
	}
	return w.held
}

func (h *held) renew() error {
	ctx, cancel := context.WithTimeout(context.Background(), h.claim.TTL/3)
	defer cancel()
	return h.e.Renew(ctx, []driver.Claim{h.claim})[0]
}

func (h *held) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.e.Release(ctx, h.claim)
}

func (b *bench) released(h *held) {
	b.Helper()
	if err := h.release(); err != nil {
		b.Errorf("release: %v", err)
	}
}

func isKind(err error, k driver.Kind) bool {
	var d *driver.Error
	return errors.As(err, &d) && d.Kind == k
}

// lost waits until a renewal is answered with Lost.
func (b *bench) lost(h *held) {
	b.Helper()
	b.eventually("the renewal is answered with Lost", func() bool { return isKind(h.renew(), driver.Lost) })
}

func (b *bench) eventually(what string, done func() bool) {
	b.Helper()
	for limit := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			b.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (b *bench) exec(query string, args ...any) {
	b.Helper()
	if _, err := b.admin.Exec(query, args...); err != nil {
		b.Fatalf("%s: %v", query, err)
	}
}

// number returns the one number that a query answers.
func (b *bench) number(query string, args ...any) (n int) {
	b.Helper()
	if err := b.admin.QueryRow(query, args...).Scan(&n); err != nil {
		b.Fatalf("%s: %v", query, err)
	}
	return n
}

// terminate ends the sessions of an owner for which condition holds.
func (b *bench) terminate(owner, condition string) {
	b.Helper()
	b.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holdfast ' || $1 AND "+condition, owner)
}

// blocked counts the sessions of an owner that wait for a lock.
func (b *bench) blocked(owner string) int {
	b.Helper()
	return b.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast ' || $1 AND wait_event = 'advisory'", owner)
}
