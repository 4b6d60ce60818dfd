package filelock_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

func itoa(i int) string { return strconv.Itoa(i) }

func newToken() (t driver.Token) {
	rand.Read(t[:])
	return t
}

// open opens an engine, which stands for a process, and closes it at the end of the test.
func open(tb testing.TB, folder string) *filelock.Engine {
	tb.Helper()
	e, err := filelock.Open(folder, filelock.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	return e
}

// request asks for name, exclusively and without waiting.
func request(name string) driver.Request {
	return driver.Request{
		Name: name, Mode: driver.Exclusive, Token: newToken(), Owner: "test",
		TTL: 10 * time.Second, Span: 1,
	}
}

func waiting(r driver.Request) driver.Request {
	r.Wait = true
	return r
}

func inMode(r driver.Request, m driver.Mode) driver.Request {
	r.Mode = m
	return r
}

// liveness bounds everything that should happen and might not.
const liveness = 60 * time.Second

func patient(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), liveness)
	tb.Cleanup(cancel)
	return ctx
}

func acquire(tb testing.TB, e driver.Engine, r driver.Request) driver.Grant {
	tb.Helper()
	g, err := e.Acquire(patient(tb), r)
	if err != nil {
		tb.Fatalf("acquire %q: %v", r.Name, err)
	}
	return g
}

func release(tb testing.TB, e driver.Engine, c driver.Claim) {
	tb.Helper()
	if err := e.Release(patient(tb), c); err != nil {
		tb.Fatalf("release %q: %v", c.Name, err)
	}
}

// kindOf returns the kind of a driver's error.
func kindOf(tb testing.TB, err error) driver.Kind {
	tb.Helper()
	var d *driver.Error
	if !errors.As(err, &d) {
		tb.Fatalf("error %v is not a *driver.Error", err)
	}
	return d.Kind
}

func wantKind(tb testing.TB, err error, want driver.Kind) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want %v", want)
	}
	if got := kindOf(tb, err); got != want {
		tb.Fatalf("error %q is %v, want %v", err, got, want)
	}
}

// eventually polls until ok is true.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(liveness); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("did not happen in %v: %s", liveness, what)
		}
	}
}

// awaitWaiters returns once n requests wait for name.
func awaitWaiters(tb testing.TB, e driver.Inspector, name string, n int) {
	tb.Helper()
	eventually(tb, itoa(n)+" waiters", func() bool {
		info, err := e.Inspect(context.Background(), name)
		if err != nil {
			tb.Fatal(err)
		}
		return info.Waiters == n
	})
}
