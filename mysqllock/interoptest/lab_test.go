package interoptest

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// patience bounds every wait. It is far below long, the TTL that no test outlives: what happens
// within the one did not need the other to run out.
const (
	patience = 20 * time.Second
	long     = time.Minute
)

// lab is one server, clients of it that stand for processes, and somebody who may do everything.
type lab struct {
	*testing.T
	server *testserver.MariaDBServer
	admin  *sql.DB
	prefix string // of the keys; a table of its own goes with it
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return labOn(t, testserver.MariaDB(t, testserver.MariaDBOptions{}))
}

// labOn is a lab on a server that others may use as well.
func labOn(t *testing.T, server *testserver.MariaDBServer) *lab {
	t.Helper()
	l := &lab{T: t, server: server, prefix: table()}
	l.admin = l.open(server.DSN(""))
	return l
}

// key is the GET_LOCK name of a name.
func (l *lab) key(name string) string { return l.prefix + ":" + name }

// query adds to the parameters of a URL those that are the lab's.
func (l *lab) query(more string) string {
	return "?table=" + l.prefix + "&prefix=" + l.prefix + ":&" + more
}

func (l *lab) open(dsn string) *sql.DB {
	l.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { db.Close() })
	return db
}

// context returns one that ends when a call takes too long.
func (l *lab) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	l.Cleanup(cancel)
	return ctx
}

// do runs a statement of the administrator's.
func (l *lab) do(text string, args ...any) {
	l.Helper()
	if _, err := l.admin.ExecContext(l.context(), text, args...); err != nil {
		l.Fatalf("%s: %v", text, err)
	}
}

// number is the answer to a query, 0 for NULL.
func (l *lab) number(text string, args ...any) int64 {
	l.Helper()
	var n sql.NullInt64
	if err := l.admin.QueryRowContext(l.context(), text, args...).Scan(&n); err != nil {
		l.Fatalf("%s: %v", text, err)
	}
	return n.Int64
}

// holderOf returns the connection that has the lock of a name.
func (l *lab) holderOf(name string) int64 {
	l.Helper()
	return l.number("SELECT IS_USED_LOCK(?)", l.key(name))
}

// waiterOf returns the connection of the lab that waits for a lock, 0 for none.
func (l *lab) waiterOf() int64 {
	l.Helper()
	return l.number("SELECT MAX(id) FROM information_schema.processlist WHERE state='User lock' AND id IN (SELECT conn FROM " + l.prefix + ")")
}

// engineAt returns an engine on what listens at addr, with a DB of its own.
func (l *lab) engineAt(addr, query string) *mysqllock.Engine {
	l.Helper()
	e, err := mysqllock.Open(l.context(), l.server.URL(addr)+l.query(query), mysqllock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	return e
}

// process returns a client of its own.
func (l *lab) process() *holdfast.Client { l.Helper(); return l.client("", "", long) }

func (l *lab) client(addr, query string, ttl time.Duration) *holdfast.Client {
	l.Helper()
	return l.clientOn(l.engineAt(addr, query), ttl)
}

func (l *lab) clientOn(e driver.Engine, ttl time.Duration) *holdfast.Client {
	l.Helper()
	c, err := holdfast.New(e, holdfast.Config{TTL: ttl, Owner: "lab", ReleaseTimeout: patience})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() }) // may fail: the server may be gone by then
	return c
}

// lock takes a lock, waiting for it if need be.
func (l *lab) lock(c *holdfast.Client, name string, opts ...holdfast.Option) *holdfast.Lease {
	l.Helper()
	lease, err := c.Mutex(name, opts...).Lock(l.context())
	if err != nil {
		l.Fatalf("lock %q: %v", name, err)
	}
	return lease
}

func (l *lab) unlock(lease *holdfast.Lease) {
	l.Helper()
	if err := lease.Unlock(); err != nil {
		l.Fatalf("unlock %q: %v", lease.Name(), err)
	}
}

// lost waits until a lease ends, which it has to for being lost.
func (l *lab) lost(lease *holdfast.Lease) {
	l.Helper()
	select {
	case <-lease.Context().Done():
	case <-time.After(patience):
		l.Fatal("the lease does not end")
	}
	if cause := context.Cause(lease.Context()); !errors.Is(cause, holdfast.ErrLost) {
		l.Errorf("the lease ended with %v", cause)
	}
}

// eventually waits for a condition.
func (l *lab) eventually(what string, condition func() bool) {
	l.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("never: %s", what)
		}
	}
}

// says checks what an error is, and that it names what it has to.
func (l *lab) says(err, kind error, texts ...string) {
	l.Helper()
	if !errors.Is(err, kind) {
		l.Fatalf("error is %v, want %v", err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			l.Errorf("error %q does not say %q", err, text)
		}
	}
}

// waiter is a goroutine that waits for a lock.
type waiter struct {
	l     *lab
	done  chan struct{}
	lease *holdfast.Lease
	err   error
}

// waiter starts a goroutine that waits for a lock, and returns when it does at the server.
func (l *lab) waiter(c *holdfast.Client, name string) *waiter {
	l.Helper()
	w := l.waits(c, name)
	l.eventually("a wait at the server", func() bool { return l.waiterOf() != 0 })
	return w
}

// waits is waiter for a wait that need not be seen.
func (l *lab) waits(c *holdfast.Client, name string) *waiter {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	w := &waiter{l: l, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.lease, w.err = c.Mutex(name).Lock(ctx)
	}()
	l.Cleanup(func() { cancel(); <-w.done })
	return w
}

// granted waits until the waiter has its lock.
func (w *waiter) granted() *holdfast.Lease {
	w.l.Helper()
	<-w.done
	if w.err != nil {
		w.l.Fatalf("waiting: %v", w.err)
	}
	return w.lease
}

// stillWaits fails when the waiter's call has ended.
func (w *waiter) stillWaits() {
	w.l.Helper()
	select {
	case <-w.done:
		w.l.Fatalf("the wait has ended: %+v, %v", w.lease, w.err)
	default:
	}
}
