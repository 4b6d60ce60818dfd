package zklock

import (
	"encoding/binary"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// recorded is a connection that tells what is written, one write at a time.
type recorded struct {
	net.Conn
	writes chan string
}

func (r recorded) Write(p []byte) (int, error) { r.writes <- string(p); return len(p), nil }
func (r recorded) SetDeadline(time.Time) error { return nil }
func (r recorded) Close() error                { return nil }

func (r recorded) next(t *testing.T) string {
	t.Helper()
	select {
	case text := <-r.writes:
		return text
	case <-time.After(time.Minute):
		t.Fatal("nothing is written")
		return ""
	}
}

// frame is a request as the library writes it, with a path behind its header.
func frame(xid, op uint32, path string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(12+len(path)))
	p = binary.BigEndian.AppendUint32(p, xid)
	p = binary.BigEndian.AppendUint32(p, op)
	return append(binary.BigEndian.AppendUint32(p, uint32(len(path))), path...)
}

// broken is a connection that takes nothing.
type broken struct {
	net.Conn
	closed chan struct{}
}

func (b broken) Write([]byte) (int, error)   { return 0, net.ErrClosed }
func (b broken) SetDeadline(time.Time) error { return nil }
func (b broken) Close() error                { close(b.closed); return nil }

// TestFailedWriteEndsTheConnection: the library is told where it reads, and only there.
func TestFailedWriteEndsTheConnection(t *testing.T) {
	conn := broken{closed: make(chan struct{})}
	w := newWire(conn, &session{limit: time.Minute}, "server")
	if n, err := w.Write([]byte("greeting")); n != len("greeting") || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	select {
	case <-conn.closed:
	default:
		t.Error("the connection is left open")
	}
}

// TestOwedAnswerEndsTheConnection: when the limit has passed since it was asked for, or since the
// answer before it came, and no sooner. One that owes nothing goes on.
func TestOwedAnswerEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { testOwedAnswer(t, func(w *wire) { _, _ = w.Write(frame(100, 0, "/a")) }) })
	synctest.Test(t, func(t *testing.T) { testOwedAnswer(t, func(w *wire) { w.ask(deletionCall("/a")) }) })
}

func testOwedAnswer(t *testing.T, last func(*wire)) {
	const limit = 10 * time.Second
	conn := taking{closed: make(chan struct{})}
	w := newWire(conn, &session{limit: limit}, "server")
	w.greeted = true
	passes := func(d time.Duration, want bool) {
		t.Helper()
		time.Sleep(d)
		synctest.Wait()
		select {
		case <-conn.closed:
			if !want {
				t.Fatal("the connection has ended")
			}
		default:
			if want {
				t.Fatal("the connection has not ended")
			}
		}
	}
	ask := func(xid uint32) { _, _ = w.Write(frame(xid, 0, "/a")) }
	answer := func(xid uint32) { w.arrived(binary.BigEndian.AppendUint32(make([]byte, 0, 16), xid)[:16]) }
	ask(0) // the greeting
	passes(3*limit, false)
	for xid := uint32(1); xid < 50; xid += 2 {
		ask(xid)
		passes(limit/3, false)
		ask(xid + 1)
		passes(limit/3, false)
		answer(xid)
		passes(limit-1, false)
		answer(xid + 1)
		passes(time.Duration(xid)*limit/10, false)
	}
	last(w)
	passes(limit-1, false)
	passes(1, true)
}

// taking is a connection that takes everything and answers nothing.
type taking struct {
	net.Conn
	closed chan struct{}
}

func (c taking) Write(p []byte) (int, error) { return len(p), nil }
func (taking) SetDeadline(time.Time) error   { return nil }
func (c taking) Close() error                { close(c.closed); return nil }
