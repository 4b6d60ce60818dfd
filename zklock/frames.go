package zklock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/go-zookeeper/zk"
)

// Requests of our own on the library's connection. What a hand-over of a lock consists of goes
// from its caller's goroutine to the connection, and its answer from the connection to the
// caller. The library would take each through a queue and two more goroutines, which costs
// clients half of their processor time, and has no call for what a vigil needs.

// Opcodes of the requests.
const (
	opCreate     = 1
	opDelete     = 2
	opChildren   = 12
	opAuth       = 100
	opSetWatches = 101
)

// The numbers of our requests are between these two, where neither the library's are, which are
// positive, nor those with a meaning of their own, which begin at -1.
const (
	minXid int32 = math.MinInt32
	maxXid int32 = -1000
)

// call is a request of our own.
type call struct {
	op     int32
	body   []byte
	answer chan answer // has room for the one that comes
}

// answer is what a call came to.
type answer struct {
	zxid int64 // the transaction, or the last that the server had carried out
	body []byte
	err  error
}

func newCall(op int32, body []byte) *call { return &call{op, body, make(chan answer, 1)} }

// wait returns the answer, unless ctx ends before.
func (c *call) wait(ctx context.Context) answer {
	select {
	case a := <-c.answer:
		return a
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
}

// creationCall creates an ephemeral, numbered node. Its answer is the path.
func creationCall(prefix string, data []byte, acl []zk.ACL) *call {
	b := appendText(make([]byte, 0, 64+len(prefix)+len(data)), prefix)
	b = appendText(b, data)
	b = binary.BigEndian.AppendUint32(b, uint32(len(acl)))
	for _, a := range acl {
		b = binary.BigEndian.AppendUint32(b, uint32(a.Perms))
		b = appendText(b, a.Scheme)
		b = appendText(b, a.ID)
	}
	return newCall(opCreate, binary.BigEndian.AppendUint32(b, zk.FlagEphemeralSequential))
}

// deletionCall deletes a node, whatever its version.
func deletionCall(path string) *call {
	return newCall(opDelete, binary.BigEndian.AppendUint32(appendText(nil, path), math.MaxUint32))
}

// childrenCall asks who is below dir.
func childrenCall(dir string) *call { return newCall(opChildren, append(appendText(nil, dir), 0)) }

// vigilCall has the server tell when nodes are deleted, also of one that is gone already. It
// could tell as well of one that was changed since a transaction: no transaction is that late.
func vigilCall(paths []string) *call {
	b := binary.BigEndian.AppendUint64(nil, math.MaxInt64)
	b = binary.BigEndian.AppendUint32(b, uint32(len(paths)))
	for _, path := range paths {
		b = appendText(b, path)
	}
	return newCall(opSetWatches, append(b, make([]byte, 8)...)) // none for creation, none for children
}

func appendText[T string | []byte](b []byte, text T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}

// appendTo appends the frame of a call with that number.
func (c *call) appendTo(b []byte, xid int32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(8+len(c.body)))
	b = binary.BigEndian.AppendUint32(b, uint32(xid))
	b = binary.BigEndian.AppendUint32(b, uint32(c.op))
	return append(b, c.body...)
}

var errGarbled = errors.New("the server's answer is not one of the protocol")

// readText reads a text, and returns what is behind it.
func readText(b []byte) (text string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, errGarbled
	}
	n := int(int32(binary.BigEndian.Uint32(b)))
	if n = max(n, 0); n > len(b)-4 {
		return "", nil, errGarbled
	}
	return string(b[4 : 4+n]), b[4+n:], nil
}

// text reads a text at the beginning of an answer.
func (a answer) text() (string, error) {
	if a.err != nil {
		return "", a.err
	}
	text, _, err := readText(a.body)
	return text, err
}

// texts reads a list of texts at the beginning of an answer.
func (a answer) texts() ([]string, error) {
	if a.err != nil {
		return nil, a.err
	}
	if len(a.body) < 4 {
		return nil, errGarbled
	}
	count, rest := int(int32(binary.BigEndian.Uint32(a.body))), a.body[4:]
	var all []string
	for range count {
		text, behind, err := readText(rest)
		if err != nil {
			return nil, err
		}
		all, rest = append(all, text), behind
	}
	return all, nil
}

// refusals are the errors that servers answer, in the library's terms.
var refusals = map[int32]error{
	-101: zk.ErrNoNode, -102: zk.ErrNoAuth, -108: zk.ErrNoChildrenForEphemerals, -110: zk.ErrNodeExists,
	-111: zk.ErrNotEmpty, -112: zk.ErrSessionExpired, -114: zk.ErrInvalidACL, -115: zk.ErrAuthFailed,
	-118: zk.ErrSessionMoved,
}

func refusalOf(code int32) error {
	if code == 0 {
		return nil
	}
	if err, ok := refusals[code]; ok {
		return err
	}
	return fmt.Errorf("the server answers with error: %d", code)
}

// open reports whether requests of our own may be sent.
func (w *wire) open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ours && !w.dead
}

// ask sends requests of our own, in one write. They are answered in their order; with
// zk.ErrConnectionClosed when the connection ends before. Where the network takes nothing more
// it waits, until overdue ends the connection.
func (w *wire) ask(calls ...*call) {
	w.out.Lock()
	defer w.out.Unlock()
	var frames []byte
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		for _, c := range calls {
			c.answer <- answer{err: zk.ErrConnectionClosed}
		}
		return
	}
	for _, c := range calls {
		if w.xid++; w.xid > maxXid {
			w.xid = minXid
		}
		w.calls[w.xid] = c
		frames = c.appendTo(frames, w.xid)
		w.owe()
	}
	w.mu.Unlock()
	w.send(frames)
}

// lost is told that the connection has ended, and tells who waits for something on it.
func (w *wire) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for _, c := range w.calls {
		c.answer <- answer{err: zk.ErrConnectionClosed}
	}
	clear(w.calls)
	for _, those := range w.vigils {
		for v := range those { // once for each of its nodes
			v.spoil()
		}
	}
}
