package testserver_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// doer is a server or a connection.
type doer interface {
	Do(args ...string) (any, error)
}

func do(t *testing.T, d doer, args ...string) any {
	t.Helper()
	reply, err := d.Do(args...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return reply
}

func want(t *testing.T, wanted any, d doer, args ...string) {
	t.Helper()
	if got := do(t, d, args...); got != wanted {
		t.Fatalf("%q: %v (%T), want %v", args, got, got, wanted)
	}
}

func connect(t *testing.T, addr string) *testserver.Conn {
	t.Helper()
	c, err := testserver.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}

// plain is a server without options that all tests of a binary could share, were they not to
// break it.
func plain(t *testing.T) *testserver.RedisServer {
	t.Helper()
	return testserver.Redis(t, testserver.RedisOptions{})
}
