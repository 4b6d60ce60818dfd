package redislock_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// open is engineAt with a whole URL.
func (l *lab) open(url string) *redislock.Engine {
	l.Helper()
	e, err := redislock.Open(l.patience(), url, redislock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	return e
}

// wire makes calls until the engine has a wire for them.
func (l *lab) wire(c *holdfast.Client, e *redislock.Engine) {
	l.Helper()
	l.eventually("a wire", func() bool {
		l.unlock(l.lock(c, "wire"))
		return redislock.Wires(e) > 0
	})
}

// wired returns an engine with a wire, and a client on it.
func (l *lab) wired(query string) (*redislock.Engine, *holdfast.Client) {
	l.Helper()
	e := l.engineAt(l.server.Addr(), query)
	c := l.client(e)
	l.wire(c, e)
	return e, c
}

// clients returns the connections that the server has, as it lists them.
func (l *lab) clients() string {
	l.Helper()
	text, _ := l.do("CLIENT", "LIST", "TYPE", "normal").(string)
	return text
}

// Who makes many calls gets a connection for them. What the library's does happens there.
func TestLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, scheme, query string
		options             testserver.RedisOptions
	}{
		{"plain", "redis", "", testserver.RedisOptions{}},
		{"TLS", "rediss", "?insecure=on", testserver.RedisOptions{TLS: &testserver.TLSOptions{}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.options)
			e := l.open(c.scheme + "://" + l.server.Addr() + c.query)
			client, other := l.client(e), l.client(l.open(c.scheme+"://"+l.server.Addr()+c.query))
			before := strings.Count(l.clients(), "\n")
			l.wire(client, e)
			if n := strings.Count(l.clients(), "\n"); n != before+1 {
				t.Errorf("%d connections with a wire, %d without", n, before)
			}
			l.do("CONFIG", "RESETSTAT")
			lease := l.lock(client, "name")
			if _, err := other.Mutex("name").TryLock(l.patience()); !errors.Is(err, holdfast.ErrHeld) {
				t.Errorf("beside the holder: %v", err)
			}
			w := l.waiter(other, "name")
			l.unlock(lease)
			next := w.granted()
			_, err := client.Mutex("name").TryLock(l.patience())
			var held *holdfast.Error
			if !errors.As(err, &held) || held.Holder == nil || held.Holder.Fence != next.Fence() {
				t.Errorf("a refusal does not name the holder: %v", err)
			}
			l.unlock(next)
			// Strings longer than what is read at once.
			long := strings.Repeat("long ", 3000)
			l.do("SET", "holdfast:foreign", long, "PX", "60000")
			if _, err := client.Mutex("foreign").TryLock(l.patience()); !errors.Is(err, holdfast.ErrHeld) {
				t.Errorf("a foreign value of %d bytes: %v", len(long), err)
			}
			if n := redislock.Wires(e); n == 0 {
				t.Error("the wire is gone, though nothing has failed")
			}
		})
	}
}

// A wire goes with the engine.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	before := strings.Count(l.clients(), "\n")
	_, c := l.wired("")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	l.eventually("all connections closed", func() bool { return strings.Count(l.clients(), "\n") == before })
}

// Where the number of connections is bounded, or the client is the application's, there is none.
func TestNoLine(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	for name, e := range map[string]*redislock.Engine{
		"pool-size":     l.engineAt(l.server.Addr(), "pool-size=5"),
		"application's": l.applicationEngine(l.server.Addr()),
	} {
		c := l.client(e)
		for range 30 {
			l.unlock(l.lock(c, "name"))
		}
		if n := redislock.Wires(e); n != 0 {
			t.Errorf("%s: %d wires", name, n)
		}
	}
}

// A server closes connections that are idle. The next call does not notice.
func TestLineClosedByServer(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	e, c := l.wired("")
	for range 3 {
		l.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		l.eventually("nobody connected", func() bool { return strings.Count(l.clients(), "\n") == 1 })
		l.unlock(l.lock(c, "name"))
		l.wire(c, e)
	}
}

// A server that fails in the middle of a call leaves the call's fate open, and the next calls
// do without the wire.
func TestLineFails(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	e, c := l.wired("timeout=500ms")
	l.server.Pause()
	_, err := c.Mutex("name").TryLock(l.patience())
	l.failed(err, holdfast.ErrUnavailable, holdfast.Unknown)
	if n := redislock.Wires(e); n != 0 {
		t.Errorf("%d wires after an answer that did not come", n)
	}
	l.server.Resume()
	l.unlock(l.lock(c, "name"))
	l.wire(c, e)
	l.server.Restart()
	l.unlock(l.lock(c, "name"))
	l.wire(c, e)
}

// What the server answers about itself ends the wire: another one may be the right one now. That
// it does not have the script does not.
func TestLineRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	e, c := l.wired("")
	l.do("SCRIPT", "FLUSH")
	l.unlock(l.lock(c, "name"))
	if n := redislock.Wires(e); n != 1 {
		t.Errorf("%d wires after the server forgot its scripts", n)
	}
	l.do("REPLICAOF", "127.0.0.1", "1")
	_, err := c.Mutex("name").TryLock(l.patience())
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied)
	if n := redislock.Wires(e); n != 0 {
		t.Errorf("%d wires to a replica", n)
	}
	l.do("REPLICAOF", "NO", "ONE")
	l.unlock(l.lock(c, "name"))
}
