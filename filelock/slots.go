package filelock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// The file of a name:
//
//	     0  slot 0 \ the state, in two copies that are written in turn
//	  2048  slot 1 /
//	  4096  ceiling record 0 \ see fence.go
//	  4608  ceiling record 1 /
//	  8192  body 0 \ states that do not fit into a slot
//	8192 + maxBody  body 1 /
//
// Generation g goes into slot g%2. A process that is killed in the middle of it leaves a
// checksum that does not fit, and the copy before it stands: what was torn was never
// answered. A large state goes into body g%2 first and its slot then refers to it, so that
// the same holds. All numbers are little-endian.
const (
	slotSize   = 2048
	headerSize = 24
	bodyAt     = 8192
	maxBody    = 8 << 20

	formatVersion = 1
	flagBody      = 1 // the payload is in the body
)

var slotMagic = [4]byte{'H', 'F', 'L', 'S'}

// stamp identifies the content of a copy.
type stamp struct {
	gen uint64
	crc uint32
}

// header is the beginning of a slot: magic, version, flags, two bytes of zero, generation,
// length of the payload, checksum of what stands before it and of the payload.
type header struct {
	stamp
	flags  byte
	length int
}

func putHeader(slot []byte, h *header, payload []byte) {
	copy(slot, slotMagic[:])
	slot[4], slot[5], slot[6], slot[7] = formatVersion, h.flags, 0, 0
	binary.LittleEndian.PutUint64(slot[8:], h.gen)
	binary.LittleEndian.PutUint32(slot[16:], uint32(h.length))
	h.crc = checksum(slot, payload)
	binary.LittleEndian.PutUint32(slot[20:], h.crc)
}

// castagnoli is the table of the checksum. It is made on first use: it takes longer than the
// rest of the start of a program that never opens a folder.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

func checksum(slot, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(slot[:20], castagnoli()), castagnoli(), payload)
}

// condition is what can be said of a slot.
type condition uint8

const (
	slotEmpty condition = iota // never written
	slotTorn                   // not written in full, or damaged
	slotFull                   // as far as the slot itself shows
)

var errNewer = errors.New("newer version")

// readHeader reads the header of slot. It does not look at the payload.
func readHeader(slot []byte) (h header, c condition, err error) {
	if len(slot) < headerSize {
		if len(bytes.Trim(slot, "\x00")) == 0 {
			return h, slotEmpty, nil
		}
		return h, slotTorn, nil
	}
	if [headerSize]byte(slot) == [headerSize]byte{} {
		return h, slotEmpty, nil
	}
	if [4]byte(slot) != slotMagic {
		return h, slotTorn, nil
	}
	if slot[4] > formatVersion {
		return h, slotTorn, fmt.Errorf("%w %d", errNewer, slot[4])
	}
	h.flags = slot[5]
	h.gen = binary.LittleEndian.Uint64(slot[8:])
	length := binary.LittleEndian.Uint32(slot[16:])
	h.crc = binary.LittleEndian.Uint32(slot[20:])
	if h.gen == 0 || length > maxBody || h.flags&flagBody == 0 && headerSize+int(length) > len(slot) {
		return h, slotTorn, nil
	}
	h.length = int(length)
	return h, slotFull, nil
}

// payload returns what the header of slot refers to, or nil when it is torn.
func (h *header) payload(r io.ReaderAt, slot []byte) ([]byte, error) {
	var payload []byte
	if h.flags&flagBody == 0 {
		payload = slot[headerSize : headerSize+h.length]
	} else {
		payload = make([]byte, h.length)
		if _, err := r.ReadAt(payload, bodyOffset(h.gen)); err == io.EOF {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	if checksum(slot, payload) != h.crc {
		return nil, nil
	}
	return payload, nil
}

func slotOffset(gen uint64) int64 { return int64(gen%2) * slotSize }
func bodyOffset(gen uint64) int64 { return bodyAt + int64(gen%2)*maxBody }

// snapshot is what a file says at one reading of its slots.
type snapshot struct {
	heads [2]header
	conds [2]condition
	slots [2][]byte
}

// readSlots reads both slots into page, which has room for them.
func readSlots(r io.ReaderAt, page []byte) (snap snapshot, err error) {
	n, err := r.ReadAt(page[:2*slotSize], 0)
	if err != nil && err != io.EOF {
		return snap, err
	}
	for i := range snap.slots {
		slot := page[min(i*slotSize, n):min((i+1)*slotSize, n)]
		snap.slots[i] = slot
		if snap.heads[i], snap.conds[i], err = readHeader(slot); err != nil {
			return snap, err
		}
		if snap.conds[i] == slotFull && snap.heads[i].gen%2 != uint64(i) {
			snap.conds[i] = slotTorn
		}
	}
	return snap, nil
}

// newest returns the index of the slot with the higher generation of those that are full, or
// -1 when none is.
func (s *snapshot) newest() int {
	a, b := s.conds[0] == slotFull, s.conds[1] == slotFull
	switch {
	case a && (!b || s.heads[0].gen > s.heads[1].gen):
		return 0
	case b:
		return 1
	}
	return -1
}

// settled reports whether both slots were read between the same two changes, as far as the
// headers show: a reader without the guard must not see one slot before and the other after a
// whole series of changes. When the slots have the generations g and g+1, the file was at g
// or g+1 when the one with g was read: it had not been overwritten yet.
func (s *snapshot) settled() bool {
	a, b := s.heads[0].gen, s.heads[1].gen
	switch {
	case s.conds[0] == slotFull && s.conds[1] == slotFull:
		return a == b+1 || b == a+1
	case s.conds[0] == slotEmpty && s.conds[1] == slotFull:
		return b == 1
	}
	return s.conds[0] == slotEmpty && s.conds[1] == slotEmpty
}

// load reads the newest copy that is whole into st, and returns the name that it belongs to
// and its stamp. A file without any is a new one when a slot was never written, for then
// nothing was ever answered from it; it leaves st empty and answers the name "".
func (s *snapshot) load(r io.ReaderAt, st *state) (name string, at stamp, err error) {
	for range s.slots {
		i := s.newest()
		if i < 0 {
			break
		}
		payload, err := s.heads[i].payload(r, s.slots[i])
		if err != nil {
			return "", at, err
		}
		if payload == nil {
			s.conds[i] = slotTorn
			continue
		}
		at = s.heads[i].stamp
		st.gen = at.gen
		name, err = st.decode(payload)
		return name, at, err
	}
	*st = state{Ledger: st.Ledger}
	st.Shares = st.Shares[:0]
	if s.conds[0] == slotTorn && s.conds[1] == slotTorn {
		return "", at, errTorn
	}
	return "", at, nil
}

var errTorn = errors.New("both copies of its state are damaged")

// store writes st, the state of name, as the next generation, using buf for the bytes. The
// copy before it stays what it was.
func store(w io.WriterAt, st *state, name string, buf *[]byte) (stamp, error) {
	h := header{stamp: stamp{gen: st.gen + 1}}
	b := st.encode(append((*buf)[:0], make([]byte, headerSize)...), name)
	if cap(b) <= 2*bodyAt { // what only a crowd needs is not kept
		*buf = b
	}
	payload := b[headerSize:]
	h.length = len(payload)
	if h.length > maxBody {
		return stamp{}, errTooLarge
	}
	if len(b) > slotSize {
		if _, err := w.WriteAt(payload, bodyOffset(h.gen)); err != nil {
			return stamp{}, err
		}
		h.flags = flagBody
		b = b[:headerSize]
	}
	putHeader(b, &h, payload)
	if _, err := w.WriteAt(b, slotOffset(h.gen)); err != nil {
		return stamp{}, err
	}
	st.gen = h.gen
	return h.stamp, nil
}

var errTooLarge = errors.New("the state of the lock has outgrown its file")
