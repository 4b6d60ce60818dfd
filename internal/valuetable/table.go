// Package valuetable is what engines on SQL share to keep driver.Values: how a write is carried
// out on a table with a row for each name, and one poller for all that wait in a process.
package valuetable

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Table is a table with a row for each name. A row may hold nothing, or something that has
// expired: then nothing is stored under its name.
//
// Errors are the driver's, with the outcome for the call as a whole: only Update may fail
// with one that is not NotApplied.
type Table interface {
	// Read returns what is stored under name, and whether there is a row for it.
	Read(ctx context.Context, name string) (v driver.Value, row bool, err error)

	// Update carries out w in one statement, on the row that there is, under its lock and on the
	// condition that w makes. It reports whether it did; if not, nothing was changed. A write
	// gives the row a version above every one that the name ever had.
	Update(ctx context.Context, w driver.Write) (v driver.Value, done bool, err error)

	// Insert makes a row that holds nothing, unless there is one.
	Insert(ctx context.Context, name string) error
}

// maxTries bounds how often a write begins again. Each time somebody else was faster.
const maxTries = 100

// Write carries out w, as WriteValue of driver.Values does.
//
// A version is drawn while the row is locked, and so after every earlier one of the name. That
// is why a row is made first, holding nothing: a version that is drawn by the statement that
// makes the row could be overtaken by another's, and a deletion, before the row is there.
func Write(ctx context.Context, t Table, w driver.Write) (driver.Value, error) {
	for range maxTries {
		v, done, err := t.Update(ctx, w)
		if done || err != nil {
			return v, err
		}
		was, row, err := t.Read(ctx, w.Name)
		if err != nil {
			return driver.Value{}, err
		}
		if err := refusal(&w, &was); err != nil {
			return was, err
		}
		// What is stored by now lets the write happen: it was not there a moment ago.
		switch {
		case w.Delete && was.Version == 0:
			return was, nil
		case !row:
			if err := t.Insert(ctx, w.Name); err != nil {
				return driver.Value{}, err
			}
		}
	}
	return driver.Value{}, driver.Failf(driver.Unavailable, "others changed the value before each of %d tries", maxTries)
}

// refusal says why w must not replace what is stored, nil if it may.
func refusal(w *driver.Write, was *driver.Value) error {
	switch {
	case w.If != driver.AnyVersion && w.If != was.Version:
		return driver.Failf(driver.Stale, "version is %d, not %d", was.Version, w.If)
	case w.Fence != 0 && w.Fence < was.Fence:
		return driver.Failf(driver.Stale, "fence %d has written already: yours is %d", was.Fence, w.Fence)
	}
	return nil
}

// Row is a row as a statement reads it.
type Row struct {
	Version, Fence int64
	Until          int64 // µs since 1970, 0 for ever
	Data           []byte
	Empty          bool // it holds nothing
}

// Value is what a row holds at a time, in µs since 1970.
func (r *Row) Value(now int64) driver.Value {
	v := driver.Value{Now: time.UnixMicro(now)}
	if r.Empty || r.Until != 0 && r.Until <= now {
		return v
	}
	v.Version, v.Fence, v.Data = r.Version, r.Fence, r.Data
	if r.Until != 0 {
		v.TTL = time.Duration(r.Until-now) * time.Microsecond
	}
	return v
}

// Sweeping says when to take away rows that hold nothing: now and then, by those who write,
// a bounded number at a time.
const (
	SweepEvery = time.Minute // an engine does so this often, or at the next write while there are more
	SweepAfter = time.Minute // since a row holds nothing
	SweepMost  = 100         // rows at a time
)
