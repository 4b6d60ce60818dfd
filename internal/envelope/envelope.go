// Package envelope writes a value, and what has to be known of it beside its bytes, as one
// string of bytes. It is for engines on servers that keep bytes under a condition and know
// nothing of fences, nor of times to the millisecond.
//
// Such servers do not tell the time either, so it is that of the wall clocks of those who read
// and write. For one name it never goes back all the same: see [Envelope.Now].
package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Envelope is a value as it is stored. The zero Envelope is that of a name without value.
type Envelope struct {
	Data  []byte
	Fence int64

	// Written is when it was, and Until when the value ends, 0 for never: in µs since 1970.
	Written, Until int64

	// Note is the engine's own: not empty, without white space.
	Note string
}

// magic begins every envelope, in the format that the number names.
const magic = "holdfast value 1"

// Encode returns the bytes to store: a line of text, and the data.
func (e *Envelope) Encode() []byte {
	head := fmt.Appendf(nil, "%s %d %d %d %s\n", magic, e.Fence, e.Written, e.Until, e.Note)
	return append(head, e.Data...)
}

var errForeign = errors.New("what is stored there is no value of holdfast")

// Decode is the inverse of Encode. It fails for what Encode does not return. Data is a part of
// stored.
func Decode(stored []byte) (Envelope, error) {
	head, data, found := bytes.Cut(stored, []byte("\n"))
	rest, ours := strings.CutPrefix(string(head), magic+" ")
	fields := strings.Split(rest, " ")
	if !found || !ours || len(fields) != 4 || fields[3] == "" {
		return Envelope{}, errForeign
	}
	var n [3]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil || n[i] < 0 {
			return Envelope{}, errForeign
		}
	}
	return Envelope{Data: data, Fence: n[0], Written: n[1], Until: n[2], Note: fields[3]}, nil
}

// Now is what time it is for who reads the envelope at clock, by his own wall clock: no earlier
// than it was written by that of the writer. So a process whose clock is behind does not take a
// window that another has begun for one of the future.
func (e *Envelope) Now(clock time.Time) time.Time {
	return time.UnixMicro(max(clock.UnixMicro(), e.Written))
}

// Value is what is stored, as that version, for who reads it at clock. A value that has ended
// is none.
func (e *Envelope) Value(version int64, clock time.Time) driver.Value {
	now := e.Now(clock)
	left := time.UnixMicro(e.Until).Sub(now)
	if version == 0 || e.Until != 0 && left <= 0 {
		return driver.Value{Now: now}
	}
	v := driver.Value{Data: bytes.Clone(e.Data), Version: version, Fence: e.Fence, Now: now}
	if e.Until != 0 {
		v.TTL = left
	}
	return v
}

// Check returns nil where what is stored lets w happen, and an error of kind [driver.Stale]
// otherwise.
func Check(w *driver.Write, was driver.Value) error {
	switch {
	case w.If != driver.AnyVersion && w.If != was.Version:
		return driver.Failf(driver.Stale, "version is %d, not %d", was.Version, w.If)
	case w.Fence != 0 && w.Fence < was.Fence:
		return driver.Failf(driver.Stale, "fence %d has written already: yours is %d", was.Fence, w.Fence)
	}
	return nil
}

// Seal is what to store for w in place of was, from was.Now on. It has no Note yet.
func Seal(w *driver.Write, was driver.Value) Envelope {
	e := Envelope{Data: bytes.Clone(w.Data), Fence: max(was.Fence, w.Fence), Written: was.Now.UnixMicro()}
	if w.TTL > 0 && !w.Delete {
		e.Until = was.Now.Add(w.TTL + time.Microsecond - 1).UnixMicro() // no less than the TTL
	}
	return e
}
