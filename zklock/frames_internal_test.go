package zklock

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
)

// spoken is a wire whose server is the test, and whose library reads what is passed on to it.
type spoken struct {
	*testing.T
	wire   *wire
	server net.Conn
	passed chan []byte // frames that the library has read
}

// speak returns a wire that has been greeted, with no request of the library's on it yet.
func speak(t *testing.T) *spoken {
	client, server := net.Pipe()
	s := &spoken{t, newWire(client, &session{limit: time.Minute, changed: make(chan struct{})}, "server"), server, make(chan []byte, 10)}
	s.wire.session.watching = func(path string) bool { return path == "/library's" }
	s.wire.session.expired = func(int64) {}
	s.wire.greeted, s.wire.sent = true, true
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			frame := make([]byte, 4)
			if _, err := io.ReadFull(s.wire, frame); err != nil {
				return
			}
			frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
			if _, err := io.ReadFull(s.wire, frame[4:]); err != nil {
				return
			}
			s.passed <- frame
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return s
}

// hear returns the number and opcode of the next request, and what is behind them.
func (s *spoken) hear() (xid, op int32, body []byte) {
	s.Helper()
	head := make([]byte, 12)
	if _, err := io.ReadFull(s.server, head); err != nil {
		s.Fatal(err)
	}
	body = make([]byte, binary.BigEndian.Uint32(head)-8)
	if _, err := io.ReadFull(s.server, body); err != nil {
		s.Fatal(err)
	}
	return int32(binary.BigEndian.Uint32(head[4:])), int32(binary.BigEndian.Uint32(head[8:])), body
}

func (s *spoken) say(xid int32, zxid int64, code int32, body []byte) []byte {
	s.Helper()
	p := binary.BigEndian.AppendUint32(nil, uint32(16+len(body)))
	p = binary.BigEndian.AppendUint32(p, uint32(xid))
	p = binary.BigEndian.AppendUint64(p, uint64(zxid))
	p = append(binary.BigEndian.AppendUint32(p, uint32(code)), body...)
	if _, err := s.server.Write(p); err != nil {
		s.Fatal(err)
	}
	return p
}

// happens has the server tell of an event.
func (s *spoken) happens(kind uint32, path string) []byte {
	s.Helper()
	return s.say(xidEvent, -1, 0, appendText(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, kind), 3), path))
}

// passes wants the library to read that frame, and nothing before it.
func (s *spoken) passes(frame []byte) {
	s.Helper()
	select {
	case got := <-s.passed:
		if !slices.Equal(got, frame) {
			s.Errorf("the library reads %x, want %x", got, frame)
		}
	case <-time.After(time.Minute):
		s.Error("the library reads nothing")
	}
}

// TestOwnRequests: their answers reach who asked, and the library sees nothing of them, of its
// own answers everything.
func TestOwnRequests(t *testing.T) {
	s := speak(t)
	create, look := creationCall("/a/x-", []byte("data"), zk.WorldACL(zk.PermAll)), childrenCall("/a")
	go s.wire.ask(create, look)
	first, op, body := s.hear()
	if op != opCreate || first >= 0 || first > maxXid {
		t.Errorf("request %d has opcode %d, want a negative number and %d", first, op, opCreate)
	}
	want := "\x00\x00\x00\x05/a/x-\x00\x00\x00\x04data\x00\x00\x00\x01\x00\x00\x00\x1f\x00\x00\x00\x05world\x00\x00\x00\x06anyone\x00\x00\x00\x03"
	if string(body) != want {
		t.Errorf("a creation is %q, want %q", body, want)
	}
	second, op, body := s.hear()
	if op != opChildren || second == first || string(body) != "\x00\x00\x00\x02/a\x00" {
		t.Errorf("the second is %d, opcode %d, %q", second, op, body)
	}
	s.say(first, 77, 0, appendText(nil, "/a/x-1"))
	librarys := s.say(1, 78, 0, []byte("for the library"))
	s.say(second, 79, -101, nil)
	s.passes(librarys)
	a := <-create.answer
	if path, err := a.text(); path != "/a/x-1" || err != nil || a.zxid != 77 {
		t.Errorf("the creation is answered with %q, %v, transaction %d", path, err, a.zxid)
	}
	if _, err := (<-look.answer).texts(); !errors.Is(err, zk.ErrNoNode) {
		t.Errorf("the look is answered with %v, want %v", err, zk.ErrNoNode)
	}
	if seen := s.wire.session.seen.Load(); seen != 79 {
		t.Errorf("transaction %d was seen last, want 79", seen)
	}
}

// TestOwnRequestsLost: who asked is told that the connection has ended, before the request or
// after it, however it ends.
func TestOwnRequestsLost(t *testing.T) {
	for name, end := range map[string]func(*spoken){
		"by the server": func(s *spoken) { s.server.Close() },
		"by us":         func(s *spoken) { s.wire.Close() },
		"in an answer": func(s *spoken) {
			_, _ = s.server.Write(append([]byte{0, 0, 1, 0, 0x80}, make([]byte, 15)...)) // of 256 bytes, to the first
			s.server.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := speak(t)
			before, after := deletionCall("/a"), deletionCall("/b")
			go s.wire.ask(before)
			if _, op, body := s.hear(); op != opDelete || string(body) != "\x00\x00\x00\x02/a\xff\xff\xff\xff" {
				t.Errorf("a deletion is opcode %d, %q", op, body)
			}
			v := make(chan *vigil)
			go func() { v <- s.wire.keep("/own", []string{"/ahead"}) }()
			s.hear()
			end(s)
			if a := <-before.answer; !errors.Is(a.err, zk.ErrConnectionClosed) {
				t.Errorf("what was under way is answered with %v", a.err)
			}
			s.wire.ask(after)
			if a := <-after.answer; !errors.Is(a.err, zk.ErrConnectionClosed) {
				t.Errorf("what came later is answered with %v", a.err)
			}
			for _, v := range []*vigil{<-v, s.wire.keep("/own", []string{"/ahead"})} {
				<-v.heard
				if v.covers([]string{"/ahead"}) {
					t.Error("a vigil goes on without a connection")
				}
				v.end()
			}
			if n := len(s.wire.vigils); n != 0 {
				t.Errorf("%d vigils are left", n)
			}
		})
	}
}

// TestOwnRequestsClosed: who asked is told also where the library reads no more.
func TestOwnRequestsClosed(t *testing.T) {
	w := newWire(taking{closed: make(chan struct{})}, &session{limit: time.Minute}, "server")
	c := deletionCall("/a")
	w.ask(c)
	w.Close()
	select {
	case a := <-c.answer:
		if !errors.Is(a.err, zk.ErrConnectionClosed) {
			t.Errorf("it is answered with %v", a.err)
		}
	default:
		t.Error("it is not answered")
	}
}

// TestOwnRequestsWait: until the library has said who the user is and set its watches.
func TestOwnRequestsWait(t *testing.T) {
	s := speak(t)
	s.wire.session.wire, s.wire.session.connected = s.wire, true
	for _, op := range []uint32{opAuth, opSetWatches} {
		go func() { _, _ = s.wire.Write(frame(op, op, "/a")) }()
		s.hear()
		if s.wire.session.ownNow() != nil {
			t.Fatalf("requests of our own may go out after opcode %d", op)
		}
	}
	go func() { _, _ = s.wire.Write(frame(3, 3, "/")) }()
	s.hear()
	if s.wire.session.ownNow() != s.wire {
		t.Error("requests of our own may not go out")
	}
	s.wire.session.connected = false
	if s.wire.session.ownNow() != nil {
		t.Error("requests of our own may go out though the library's watches are not set")
	}
}

// TestGreetingTellsWhatWasSeen: a server that lags behind our own answers has to refuse us.
func TestGreetingTellsWhatWasSeen(t *testing.T) {
	for _, c := range []struct{ library, seen, want uint64 }{{5, 9, 9}, {9, 5, 9}, {0, 9, 0}} {
		conn := recorded{writes: make(chan string, 1)}
		w := newWire(conn, &session{limit: time.Minute}, "server")
		w.session.seen.Store(int64(c.seen))
		greeting := binary.BigEndian.AppendUint64(make([]byte, 8), c.library)
		_, _ = w.Write(append(greeting, "rest"...))
		if sent := []byte(conn.next(t)); binary.BigEndian.Uint64(sent[8:]) != c.want || string(sent[16:]) != "rest" {
			t.Errorf("library %d, we %d: the greeting is %q, want %d", c.library, c.seen, sent, c.want)
		}
	}
}
