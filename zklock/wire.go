package zklock

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
)

// Opcodes of the ZooKeeper protocol that a wire looks for.
const (
	opCreate     = 1
	opSetWatches = 101
)

// xidEvent is what a watch event has in place of the number of a request.
const xidEvent = -1

// creation is a request to create a node, as it is seen on its way. The library keeps two
// things to itself that a lock needs: when the request has left, so that another one can be
// sent right behind it, and the transaction that carried it out, which is the node's czxid.
type creation struct {
	written chan struct{} // closed when the request is on its way, or is held back for the next
	zxid    int64         // of the answer; to be read once the library's call has returned
}

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

	out  sync.Mutex // guards what is written
	held []byte     // a creation that goes out together with the request behind it

	mu        sync.Mutex
	greeted   bool // the answer to the greeting came
	sent      bool // the greeting was sent
	creations map[int32]*creation
	owed      int         // answers that are outstanding
	since     time.Time   // from when on the next of them is counted
	timer     *time.Timer // calls overdue
	timed     bool        // the timer is set
}

// frameRoom is more than the part of any frame that a wire looks at: a header and a path.
const frameRoom = 16 << 10

func newWire(c net.Conn, s *session, server string) *wire {
	w := &wire{
		Conn: c, session: s, server: server,
		reader: bufio.NewReaderSize(c, frameRoom), creations: make(map[int32]*creation),
	}
	_ = c.SetDeadline(time.Now().Add(s.limit)) // of the greeting; a failure shows at the next read
	return w
}

// SetDeadline, SetReadDeadline and SetWriteDeadline leave the time to the wire.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Write sends one request: the library writes each as a whole. A creation of a caller who is
// alone goes out together with the request that follows it, which spares both sides a wake-up.
//
// It never fails: a connection that takes nothing more ends, and the library hears so where it
// reads. To a failed write it would answer twice, once for the write and once for the connection
// that ended. There is room for two answers, and one is the caller's who finds the library
// closed: a third would block the library forever.
func (w *wire) Write(p []byte) (int, error) {
	w.out.Lock()
	defer w.out.Unlock()
	hold, setWatches := w.leaving(p)
	if hold {
		w.held = append(w.held, p...) // the library uses p again
		return len(p), nil
	}
	w.send(p)
	if setWatches {
		w.session.watchesSet(w)
	}
	return len(p), nil
}

// send writes a request, behind what is held back, or ends the connection. w.out is locked.
func (w *wire) send(p []byte) {
	if len(w.held) > 0 {
		p = append(w.held, p...)
		w.held = p[:0]
	}
	if _, err := w.Conn.Write(p); err != nil {
		_ = w.Conn.Close()
	}
}

// flush sends a creation that nothing will follow.
func (w *wire) flush() {
	w.out.Lock()
	defer w.out.Unlock()
	if len(w.held) > 0 {
		w.send(nil)
	}
}

// leaving looks at a request that is about to be sent, and says whether it has to be held back
// for the one behind it, and whether it renews the watches.
func (w *wire) leaving(p []byte) (hold, setWatches bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.sent {
		w.sent = true
		return false, false
	}
	if w.owed++; w.owed == 1 {
		w.since = time.Now()
		w.setTimer(w.session.limit)
	}
	if len(p) < 12 {
		return false, false
	}
	xid, op := int32(binary.BigEndian.Uint32(p[4:])), binary.BigEndian.Uint32(p[8:])
	if op == opCreate && len(p) >= 16 {
		if end := 16 + int(binary.BigEndian.Uint32(p[12:])); end <= len(p) {
			if c := w.session.creationOf(string(p[16:end])); c != nil {
				w.creations[xid] = c
				close(c.written)
				hold = w.owed == 1 // others would wait for it, and lose more than is won
			}
		}
	}
	return hold, op == opSetWatches
}

// Read hands out frames. Only one goroutine reads at a time: first the one that greets, then
// the one that receives.
func (w *wire) Read(p []byte) (int, error) {
	if w.left == 0 {
		head, err := w.reader.Peek(4)
		if err != nil {
			return 0, w.ended(err)
		}
		size := int(binary.BigEndian.Uint32(head))
		frame, err := w.reader.Peek(4 + min(size, 16))
		if err != nil {
			return 0, w.ended(err)
		}
		w.arrived(frame[4:])
		w.left = 4 + size
	}
	n, err := w.reader.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

// ended notes why a connection ended that never was of use, and returns that.
func (w *wire) ended(err error) error {
	w.mu.Lock()
	greeted := w.greeted
	w.mu.Unlock()
	if !greeted {
		w.session.failed(fmt.Errorf("%s did not greet: does either side expect TLS, or a certificate of the other? %w", w.server, err))
	}
	return err
}

// arrived looks at the first 16 bytes of an answer.
func (w *wire) arrived(head []byte) {
	if len(head) < 16 {
		return // no answer that the protocol has; the library will say so
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.greeted {
		w.greeted = true
		_ = w.Conn.SetDeadline(time.Time{})
		// protocol version, timeout in milliseconds, session
		timeout := time.Duration(int32(binary.BigEndian.Uint32(head[4:]))) * time.Millisecond
		w.session.greeted(w, int64(binary.BigEndian.Uint64(head[8:])), timeout)
		return
	}
	xid := int32(binary.BigEndian.Uint32(head))
	if xid == xidEvent {
		return
	}
	if c := w.creations[xid]; c != nil {
		delete(w.creations, xid)
		c.zxid = int64(binary.BigEndian.Uint64(head[4:]))
	}
	// Requests are answered in their order, so what is still owed was sent after this one;
	// counting its time from now on errs on the patient side.
	if w.owed--; w.owed > 0 {
		w.since = time.Now()
	}
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
