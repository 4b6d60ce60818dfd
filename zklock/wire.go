package zklock

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// xidEvent is what a watch event has in place of the number of a request.
const xidEvent = -1

// wire is one connection to a server. It passes on what the library writes and reads, whole
// frames at a time, and looks at their headers, which have not changed since the protocol
// exists: a length, and then in a request its number and opcode, in an answer its number,
// transaction and error.
//
// It also keeps the time for the library, whose own limits are too long for a lock: a
// connection that owes an answer for longer than the limit ends, so that the session moves to
// another server while there is time.
type wire struct {
	net.Conn
	session *session
	server  string
	reader  *bufio.Reader
	left    int // bytes of the frame under way that the library has not read; of its reader only

	out sync.Mutex // guards what is written, and the order of it

	mu      sync.Mutex
	greeted bool // the answer to the greeting came
	sent    bool // the greeting was sent
	ours    bool // nothing of the library's is due before requests of our own
	dead    bool // nothing is answered any more
	xid     int32
	calls   map[int32]*call // of our own, by their numbers
	vigils  map[string]map[*vigil]struct{}
	owed    int         // answers that are outstanding
	since   time.Time   // from when on the next of them is counted
	timer   *time.Timer // calls overdue
	timed   bool        // the timer is set
}

// frameRoom is more than the part of any frame that a wire looks at: a header and a path.
const frameRoom = 16 << 10

func newWire(c net.Conn, s *session, server string) *wire {
	w := &wire{
		Conn: c, session: s, server: server, reader: bufio.NewReaderSize(c, frameRoom),
		calls: make(map[int32]*call), vigils: make(map[string]map[*vigil]struct{}),
	}
	_ = c.SetDeadline(time.Now().Add(s.limit)) // of the greeting; a failure shows at the next read
	return w
}

// SetDeadline, SetReadDeadline and SetWriteDeadline leave the time to the wire.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Write sends one request: the library writes each as a whole.
//
// It never fails: a connection that takes nothing more ends, and the library hears so where it
// reads. To a failed write it would answer twice, once for the write and once for the connection
// that ended. There is room for two answers, and one is the caller's who finds the library
// closed: a third would block the library forever.
func (w *wire) Write(p []byte) (int, error) {
	w.out.Lock()
	defer w.out.Unlock()
	p, setWatches := w.leaving(p)
	w.send(p)
	if setWatches {
		w.session.watchesSet(w)
	}
	return len(p), nil
}

// send writes, or ends the connection. w.out is locked.
func (w *wire) send(p []byte) {
	if _, err := w.Conn.Write(p); err != nil {
		_ = w.Conn.Close()
	}
}

// leaving looks at a request of the library's that is about to be sent, returns what to send,
// and says whether it renews the watches.
func (w *wire) leaving(p []byte) (request []byte, setWatches bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.sent {
		w.sent = true
		return w.greeting(p), false
	}
	w.owe()
	if len(p) < 12 {
		return p, false
	}
	op := binary.BigEndian.Uint32(p[8:])
	if op != opAuth && op != opSetWatches {
		w.ours = true // it would not send this before those
	}
	return p, op == opSetWatches
}

// greeting tells the server of the last transaction that we have seen, as the library does, who
// does not see our own answers: a server that lags behind that refuses the connection. The
// library names none as long as it has no session, and it stays so.
func (w *wire) greeting(p []byte) []byte {
	const at = 8 // behind the length and the version of the protocol
	if len(p) < at+8 {
		return p
	}
	known := int64(binary.BigEndian.Uint64(p[at:]))
	if seen := w.session.seen.Load(); known > 0 && seen > known {
		p = slices.Clone(p)
		binary.BigEndian.PutUint64(p[at:], uint64(seen))
	}
	return p
}

// owe counts a request whose answer is owed from now on. w.mu is locked.
func (w *wire) owe() {
	if w.owed++; w.owed == 1 {
		w.since = time.Now()
		w.setTimer(w.session.limit)
	}
}

// Read hands out frames, but for the answers to requests of our own. Only one goroutine reads
// at a time: first the one that greets, then the one that receives.
func (w *wire) Read(p []byte) (int, error) {
	for w.left == 0 {
		if err := w.receive(); err != nil {
			return 0, w.ended(err)
		}
	}
	n, err := w.reader.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

// receive waits for a frame, which is the library's to read if left says so.
func (w *wire) receive() error {
	head, err := w.reader.Peek(4)
	if err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(head))
	frame, err := w.reader.Peek(4 + min(size, 16))
	if err != nil {
		return err
	}
	c, a := w.arrived(frame[4:])
	if c != nil {
		return w.hand(c, a, size)
	}
	if size <= frameRoom-4 && size >= 16 && int32(binary.BigEndian.Uint32(frame[4:])) == xidEvent {
		if frame, err = w.reader.Peek(4 + size); err != nil {
			return err
		}
		if w.event(frame[20:]) {
			_, err = w.reader.Discard(4 + size)
			return err
		}
	}
	w.left = 4 + size
	return nil
}

// hand reads the rest of the answer to a request of our own for who asked.
func (w *wire) hand(c *call, a answer, size int) (err error) {
	if _, err = w.reader.Discard(20); err == nil {
		a.body = make([]byte, size-16)
		_, err = io.ReadFull(w.reader, a.body)
	}
	if err != nil {
		a = answer{err: zk.ErrConnectionClosed}
	}
	c.answer <- a
	return err
}

// event looks at what changed: a kind, the state of the session, a path. It reports whether
// that is for vigils only.
func (w *wire) event(body []byte) bool {
	if len(body) < 8 {
		return false
	}
	path, _, err := readText(body[8:])
	return err == nil && w.happened(int32(binary.BigEndian.Uint32(body)), path) && !w.session.watching(path)
}

// ended notes why a connection ended that never was of use, and returns that.
func (w *wire) ended(err error) error {
	w.lost()
	w.mu.Lock()
	greeted := w.greeted
	w.mu.Unlock()
	if !greeted {
		w.session.failed(fmt.Errorf("%s did not greet: does either side expect TLS, or a certificate of the other? %w", w.server, err))
	}
	return err
}

// Close ends the connection, and with it what waits for answers of our own: nobody need read
// any more.
func (w *wire) Close() error {
	err := w.Conn.Close()
	w.lost()
	return err
}

// arrived looks at the first 16 bytes of an answer, and returns the request of our own that it
// is for.
func (w *wire) arrived(head []byte) (c *call, a answer) {
	if len(head) < 16 {
		return nil, a // no answer that the protocol has; the library will say so
	}
	w.mu.Lock()
	greeted := w.greeted
	w.greeted = true
	w.mu.Unlock()
	if !greeted {
		_ = w.Conn.SetDeadline(time.Time{})
		// protocol version, timeout in milliseconds, session
		timeout := time.Duration(int32(binary.BigEndian.Uint32(head[4:]))) * time.Millisecond
		w.session.greeted(w, int64(binary.BigEndian.Uint64(head[8:])), timeout)
		return nil, a
	}
	xid := int32(binary.BigEndian.Uint32(head))
	if xid == xidEvent {
		return nil, a
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c = w.calls[xid]; c != nil {
		delete(w.calls, xid)
		a.zxid = int64(binary.BigEndian.Uint64(head[4:]))
		w.session.seen.Store(max(a.zxid, w.session.seen.Load())) // no other wire is read any more
		a.err = refusalOf(int32(binary.BigEndian.Uint32(head[12:])))
	}
	// Requests are answered in their order, so what is still owed was sent after this one;
	// counting its time from now on errs on the patient side.
	if w.owed--; w.owed > 0 {
		w.since = time.Now()
	}
	return c, a
}

// setTimer has overdue called, unless it is about to be. The timer is not moved with every
// request and answer, which may wake another thread: it fires once a limit, and is set again for
// what is left. On a connection that was closed meanwhile it fires in vain, once. w.mu is locked.
func (w *wire) setTimer(d time.Duration) {
	switch {
	case w.timed:
	case w.timer == nil:
		w.timer = time.AfterFunc(d, w.overdue)
	default:
		w.timer.Reset(d)
	}
	w.timed = true
}

// overdue ends the connection if an answer has been owed for the limit.
func (w *wire) overdue() {
	w.mu.Lock()
	w.timed = false
	left := time.Until(w.since.Add(w.session.limit))
	switch {
	case w.owed == 0:
	case left > 0:
		w.setTimer(left)
	default:
		defer w.Conn.Close() // not under the lock
	}
	w.mu.Unlock()
}
