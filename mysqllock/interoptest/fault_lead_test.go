package interoptest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// These are the faults that meet a caller who takes its session's turn itself.

func leadRequest(name string) driver.Request {
	req := driver.Request{Name: name, Mode: driver.Exclusive, TTL: long, Span: 1}
	rand.Read(req.Token[:])
	return req
}

// leadProxied is an engine behind a proxy. Its session is there, and holds nothing. After FreezeMarked
// a connection is frozen when the request for a name that begins with "name" has passed: no earlier, for
// the engine looks around by itself as well.
func leadProxied(l *lab, query string) (*mysqllock.Engine, *testserver.TCPProxy) {
	l.Helper()
	p := testserver.Proxy(l, l.server.Addr())
	p.Mark(l.key("name"))
	e := l.engineAt(p.Addr(), query)
	l.Cleanup(func() { _ = e.Close() })
	leadRelease(l, e, leadTake(l, e, "first"))
	return e, p
}

func leadTake(l *lab, e *mysqllock.Engine, name string) driver.Claim {
	l.Helper()
	req := leadRequest(name)
	req.Wait = true
	g, err := e.Acquire(l.context(), req)
	if err != nil {
		l.Fatalf("request for %s: %v", name, err)
	}
	return req.Claim(g)
}

func leadRelease(l *lab, e *mysqllock.Engine, c driver.Claim) {
	l.Helper()
	if err := e.Release(l.context(), c); err != nil {
		l.Errorf("release of %s: %v", c.Name, err)
	}
}

// leadReturns is what a call under way comes to.
func leadReturns(l *lab, result <-chan error) error {
	l.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		l.Fatal("the call does not return")
		return nil
	}
}

func leadKind(err error) driver.Kind {
	var d *driver.Error
	if errors.As(err, &d) {
		return d.Kind
	}
	return 0
}

// A caller who is alone in the session returns when its context is over, though the server does not
// answer, from a request and from a release, long before a statement is given up in any case. What it was
// granted does not stay.
func leadLeaves(l *lab) {
	e, p := leadProxied(l, "timeout=1m")
	other := l.engineAt("", "")
	l.Cleanup(func() { _ = other.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	p.DropReplyTo(l.key("name"))
	go func() { _, err := e.Acquire(ctx, leadRequest("name")); result <- err }()
	l.eventually("the server has granted it, and the answer is lost", func() bool {
		return l.holderOf("name") != 0 && p.Stats().Faults == 1
	})
	cancel()
	if err := leadReturns(l, result); !errors.Is(err, context.Canceled) {
		l.Errorf("request without an answer: %v", err)
	}
	leadRelease(l, other, leadTake(l, other, "name"))

	c := leadTake(l, e, "name")
	ctx, cancel = context.WithCancel(context.Background())
	p.DropReplyTo(l.key("name"))
	go func() { result <- e.Release(ctx, c) }()
	// Who leaves before the answer has come to be lost has the next answer lost in its place.
	l.eventually("the server has released it, and the answer is lost", func() bool {
		return l.holderOf("name") == 0 && p.Stats().Faults == 2
	})
	cancel()
	if err := leadReturns(l, result); err == nil {
		l.Error("release without an answer: no error")
	}
	leadRelease(l, other, leadTake(l, other, "name"))
	leadRelease(l, e, leadTake(l, e, "name"))
}

// Where something else lives in the session, a caller who leaves does not end it.
func leadLeavesOthersAlone(l *lab) {
	e, p := leadProxied(l, "")
	kept := leadTake(l, e, "kept")
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	p.FreezeMarked()
	go func() { _, err := e.Acquire(ctx, leadRequest("name")); result <- err }()
	l.eventually("the server has granted it", func() bool { return l.holderOf("name") != 0 })
	cancel()
	if err := leadReturns(l, result); !errors.Is(err, context.Canceled) {
		l.Errorf("request without an answer: %v", err)
	}
	p.Thaw()
	if err := e.Renew(l.context(), []driver.Claim{kept})[0]; err != nil {
		l.Errorf("the other share: %v", err)
	}
	l.eventually("what was granted late went back", func() bool { return l.holderOf("name") == 0 })
	leadRelease(l, e, kept)
}

// Close ends callers whose contexts never do, be the server silent or the lock somebody else's.
func leadCloses(l *lab) {
	other := l.engineAt("", "")
	l.Cleanup(func() { _ = other.Close() })
	held := leadTake(l, other, "held")
	for _, silent := range []bool{true, false} {
		e, p := leadProxied(l, "")
		req := leadRequest("name")
		if silent {
			p.FreezeMarked()
		} else {
			req = leadRequest("held")
			req.Wait = true
		}
		result, closed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := e.Acquire(context.Background(), req); result <- err }()
		l.eventually("it is under way", func() bool { return l.holderOf("name") != 0 || l.waiterOf() != 0 })
		go func() { closed <- e.Close() }()
		if err := leadReturns(l, result); leadKind(err) != driver.Closed {
			l.Errorf("call under Close, silent %v: %v", silent, err)
		}
		_ = leadReturns(l, closed)
		p.Thaw()
		l.eventually("nothing is left", func() bool { return l.holderOf("name") == 0 && l.waiterOf() == 0 })
	}
	leadRelease(l, other, held)
}

// leadPanicURL has the child of TestLeadPanic lock at that server.
const leadPanicURL = "HOLDFAST_PANIC_CHILD"

// panicking is a connection whose next Write panics once armed is set.
type panicking struct {
	net.Conn
	armed *atomic.Bool
}

func (c panicking) Write(b []byte) (int, error) {
	if c.armed.Load() {
		panic("planted")
	}
	return c.Conn.Write(b)
}

// TestLeadPanic: a driver that panics under a caller ends the process, though the caller recovers.
func TestLeadPanic(t *testing.T) {
	if dsn := os.Getenv(leadPanicURL); dsn != "" {
		leadPanicChild(t, dsn)
		return
	}
	t.Parallel()
	server := testserver.MariaDB(t, testserver.MariaDBOptions{})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLeadPanic$")
	cmd.Env = append(os.Environ(), leadPanicURL+"="+server.DSN(""))
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("the database driver panicked: planted")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func leadPanicChild(t *testing.T, dsn string) {
	var armed atomic.Bool
	mysql.RegisterDialContext("panicking", func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		return panicking{conn, &armed}, err
	})
	db, err := sql.Open("mysql", strings.Replace(dsn, "@tcp(", "@panicking(", 1))
	if err != nil {
		t.Fatal(err)
	}
	e, err := mysqllock.New(t.Context(), db, mysqllock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	take := func() {
		defer func() { _ = recover() }()
		req := leadRequest("name")
		if g, err := e.Acquire(t.Context(), req); err == nil {
			_ = e.Release(t.Context(), req.Claim(g))
		}
	}
	take()
	armed.Store(true)
	take()
}
