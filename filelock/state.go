package filelock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// state is everything that is stored about one name.
type state struct {
	gen uint64 // counts the changes; 0 for a name that was never stored
	ledger.Ledger
	fences ledger.Fences

	// ceiling is known to be on the disk: numbers up to it may be given out without asking
	// the disk, see fence.go. boot and witness say in which run of the machine that was.
	ceiling int64
	boot    string
	witness memberID
}

// The bounds of a state. A file that claims more is corrupt; a request that would need more
// is refused.
const (
	maxShares = 4096
	maxText   = 1024 // of a name or an owner
	maxBootID = 64
)

// MaxPermits is the largest limit of a semaphore. As many shares as that fit into the file
// of a name.
const MaxPermits = maxShares

// The encoding is a sequence of varints and of texts with their lengths before them. What a
// grant fills in has a fixed width: on a full disk a release, which may grant to others, must
// not need more room than there was.

// encode appends the encoding of st, the state of name, to b.
func (st *state) encode(b []byte, name string) []byte {
	b = appendText(b, name)
	b = appendText(b, st.boot)
	b = append(b, st.witness[:]...)
	b = binary.AppendUvarint(b, uint64(st.ceiling))
	b = binary.AppendUvarint(b, uint64(st.fences.Last))
	b = binary.AppendUvarint(b, uint64(len(st.Shares)))
	for i := range st.Shares {
		b = encodeShare(b, &st.Shares[i])
	}
	return b
}

func encodeShare(b []byte, s *ledger.Share) []byte {
	b = append(b, s.Token[:]...)
	b = append(b, byte(s.Mode), byte(s.State))
	b = appendText(b, s.Home)
	b = appendText(b, s.Owner)
	b = binary.AppendUvarint(b, uint64(s.Weight))
	b = binary.AppendUvarint(b, uint64(s.Limit))
	b = binary.AppendUvarint(b, uint64(s.Span))
	b = binary.AppendUvarint(b, uint64(s.TTL))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Fence))
	b = binary.LittleEndian.AppendUint32(b, uint32(s.FenceSpan))
	return binary.LittleEndian.AppendUint64(b, uint64(s.Since))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads into st what encode wrote, and returns the name. Whatever stands in b, it
// either answers an error or a state that is within the bounds.
func (st *state) decode(b []byte) (name string, err error) {
	d := decoder{b: b}
	name = d.text(maxText)
	st.boot = d.text(maxBootID)
	copy(st.witness[:], d.bytes(len(st.witness)))
	st.ceiling = d.int(ledger.MaxFence)
	st.fences.Last = d.int(ledger.MaxFence)
	n := int(d.int(maxShares))
	st.Shares = st.Shares[:0]
	for i := 0; i < n && d.err == nil; i++ {
		st.Shares = append(st.Shares, d.share())
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return name, d.err
}

func (d *decoder) share() ledger.Share {
	var s ledger.Share
	copy(s.Token[:], d.bytes(len(s.Token)))
	s.Mode, s.State = driver.Mode(d.byte()), ledger.State(d.byte())
	if s.Mode < driver.Exclusive || s.Mode > driver.Permits || s.State > ledger.Upgrading {
		d.fail("mode %d in state %d", s.Mode, s.State)
	}
	s.Home, s.Owner = d.text(memberIDSize), d.text(maxText)
	if len(s.Home) != memberIDSize {
		d.fail("the id of a member has %d bytes", len(s.Home))
	}
	s.Weight = int(d.int(math.MaxInt32))
	s.Limit = int(d.int(math.MaxInt32))
	s.Span = int(d.int(math.MaxInt32))
	s.TTL = time.Duration(d.int(int64(MaxTTL)))
	s.Fence = int64(d.fixed(8, ledger.MaxFence))
	s.FenceSpan = int(d.fixed(4, math.MaxInt32))
	s.Since = int64(d.fixed(8, math.MaxUint64))
	return s
}

// decoder reads from b until it meets an error, and zeros from then on.
type decoder struct {
	b   []byte
	err error
}

var errShort = errors.New("it ends too early")

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

func (d *decoder) bytes(n int) []byte {
	if d.err == nil && n > len(d.b) {
		d.err = errShort
	}
	if d.err != nil {
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

// advance takes the n bytes that a varint had; n is not positive where there was none.
func (d *decoder) advance(n int) {
	if n <= 0 {
		d.fail("a number cannot be read")
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) int(most int64) int64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	d.advance(n)
	if v > uint64(most) {
		d.fail("the number %d is over %d", v, most)
		return 0
	}
	return int64(v)
}

// fixed reads a number of n bytes.
func (d *decoder) fixed(n int, most uint64) uint64 {
	var b [8]byte
	copy(b[:], d.bytes(n))
	v := binary.LittleEndian.Uint64(b[:])
	if v > most {
		d.fail("the number %d is over %d", v, most)
		return 0
	}
	return v
}

func (d *decoder) text(most int) string { return string(d.bytes(int(d.int(int64(most))))) }
