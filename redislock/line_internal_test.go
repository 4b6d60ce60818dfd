//go:build unix

package redislock

import (
	"bufio"
	"net"
	"testing"
	"time"
)

// A connection that was at rest for longer than a call may take is as good as any other, one on
// which something came, or that was closed, is not.
func TestLineAtRest(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, c := range map[string]struct {
		happens func(peer net.Conn)
		ready   bool
	}{
		"nothing":     {func(net.Conn) {}, true},
		"a message":   {func(peer net.Conn) { _, _ = peer.Write([]byte("+x\r\n")) }, false},
		"the end":     {func(peer net.Conn) { _ = peer.Close() }, false},
		"half an end": {func(peer net.Conn) { _ = peer.(*net.TCPConn).CloseWrite() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			peer, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			w := &wire{Conn: conn, socket: socket{raw: socketOf(conn)}, in: bufio.NewReader(conn), deadline: time.Now().Add(-time.Hour)}
			w.once.Do(func() {}) // it was not made by a client
			if err := conn.SetDeadline(w.deadline); err != nil {
				t.Fatal(err)
			}
			l := &line{engine: &Engine{cfg: Config{Timeout: time.Second}}}
			l.wire.Store(w)
			c.happens(peer)
			// What happens at one end may take a moment to be seen at the other.
			for end := time.Now().Add(10 * time.Second); !c.ready && l.ready() != nil && time.Now().Before(end); {
			}
			if got := l.ready() != nil; got != c.ready {
				t.Errorf("ready is %v", got)
			}
			if got := l.wire.Load() != nil; got != c.ready {
				t.Errorf("it is kept: %v", got)
			}
		})
	}
}
