package filelock

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// viewer is what a reading without the guard needs.
type viewer struct {
	page [2 * slotSize]byte
	st   state
}

var viewers = sync.Pool{New: func() any { return new(viewer) }}

// errMoving says that the file was changed while it was read.
var errMoving = errors.New("moving")

// view calls f with the state of name, which f may change but not keep. It answers errAbsent for a name
// that has no file. The state was the current one at some moment during the call.
//
// It reads without the guard, and takes it only when the file changes too fast for that.
func (e *Engine) view(ctx context.Context, name string, f func(*state)) error {
	b, err := e.books.get(name, false)
	if err != nil {
		return err
	}
	same, err := names(b.path, b.file, b.id)
	if err == nil && same {
		v := viewers.Get().(*viewer)
		defer viewers.Put(v)
		var found string
		if found, err = v.read(b.file, b.path); err == nil && v.st.gen > 0 && found != name {
			err = foreign(b.path, found)
		}
		if err == nil {
			f(&v.st)
		}
	} else if err == nil {
		e.books.discard(b)
		err = errMoving
	}
	e.books.done(b)
	if err != errMoving {
		return err
	}
	b, err = e.lock(ctx, e.closing, name, false)
	if err != nil {
		return err
	}
	defer e.unlock(b)
	b.touch()
	f(&b.st)
	return nil
}

// viewTries is how often the file is read before the guard is asked for.
const viewTries = 4

// read reads the state and the name it belongs to, or answers errMoving.
func (v *viewer) read(r io.ReaderAt, path string) (name string, err error) {
	for range viewTries {
		name, err = v.try(r)
		if err != errMoving && !errors.Is(err, errTorn) {
			break
		}
		runtime.Gosched()
	}
	switch {
	case errors.Is(err, errTorn):
		return "", errMoving // with the guard it is known whether it is damaged
	case err != nil && err != errMoving:
		return "", explain(path, err)
	}
	return name, err
}

// try reads once. Two things tell a state that was current during the reading from a mixture
// or an old one: the slots are neighbours in time, and the newest was not passed over. It may
// have been complete before the reading began: the kernel copies even one page bit by bit,
// while others write to it.
func (v *viewer) try(r io.ReaderAt) (name string, err error) {
	snap, err := readSlots(r, v.page[:])
	if err != nil {
		return "", err
	}
	if !snap.settled() {
		return "", errMoving
	}
	newest := snap.newest()
	name, at, err := snap.load(r, &v.st)
	if err == nil && newest >= 0 && at != snap.heads[newest].stamp {
		return "", errMoving
	}
	return name, err
}

// explain puts what is wrong with the content of a file into words for people.
func explain(path string, err error) error {
	var classified *driver.Error
	switch {
	case errors.As(err, &classified):
		return err
	case errors.Is(err, errNewer):
		return driver.Failf(driver.Unsupported, "file %s was written by a %w than %d: upgrade this program, or use another folder",
			path, err, formatVersion)
	case errors.Is(err, errTorn):
		return corrupt(path, "%v", err)
	case errors.As(err, new(*fs.PathError)):
		return unavailable("reading", path, err)
	}
	return corrupt(path, "its state cannot be read: %v", err)
}

// quiet reports whether there is nothing to do for a request that waits: it is neither
// granted nor gone, and everybody it waits for lives. It also returns how many requests wait
// before it. In doubt it is not quiet.
func (e *Engine) quiet(ctx context.Context, req *driver.Request) (ahead int, quiet bool) {
	m, c := e.member.Load(), census(nil)
	if !linked(m.file) {
		return 0, false
	}
	found, dead := false, false
	err := e.view(ctx, req.Name, func(st *state) {
		for i := range st.Shares {
			s := &st.Shares[i]
			switch {
			case s.Token == req.Token:
				found = s.State != ledger.Held && s.Home == m.home
			case !found || s.State != ledger.Waiting:
				dead = dead || !c.alive(m, s.Home)
				if s.State == ledger.Waiting {
					ahead++
				}
			}
		}
	})
	return ahead, err == nil && found && !dead
}
