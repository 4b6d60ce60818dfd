package zklock

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// recorded is a connection that tells what is written, one write at a time.
type recorded struct {
	net.Conn
	writes chan string
}

func (r recorded) Write(p []byte) (int, error) { r.writes <- string(p); return len(p), nil }
func (r recorded) SetDeadline(time.Time) error { return nil }

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

// TestCreationGoesWithWhatFollows: in one write, in their order; and where nothing follows,
// alone and soon.
func TestCreationGoesWithWhatFollows(t *testing.T) {
	const opChildren = 12
	s := &session{limit: time.Minute, creations: make(map[string]*creation)}
	conn := recorded{writes: make(chan string, 10)}
	w := newWire(conn, s, "server")
	write := func(p []byte) {
		t.Helper()
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	write([]byte("greeting"))
	conn.next(t)
	for xid := uint32(1); xid < 100; xid += 3 {
		a, b := s.expect("/a"), s.expect("/b")
		first, second, third := frame(xid, opCreate, "/a"), frame(xid+1, opCreate, "/b"), frame(xid+2, opChildren, "/")
		write(first)
		<-a.written
		write(second)
		<-b.written
		write(third)
		sent := conn.next(t)
		for len(sent) < len(first)+len(second)+len(third) { // on a machine that was away for long
			sent += conn.next(t)
		}
		if want := string(first) + string(second) + string(third); sent != want {
			t.Fatalf("%q is sent, want %q", sent, want)
		}
	}
	s.expect("/a")
	alone := frame(100, opCreate, "/a")
	write(alone)
	if sent := conn.next(t); sent != string(alone) {
		t.Fatalf("%q is sent, want %q", sent, alone)
	}
	other := frame(101, opCreate, "/of/others")
	write(other)
	if sent := conn.next(t); sent != string(other) {
		t.Fatalf("%q is sent, want %q", sent, other)
	}
}
