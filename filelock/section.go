package filelock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// section is the work of one goroutine on a book between lock and unlock. During it, nobody
// else on the machine changes the state. It lasts a few microseconds: one read of the file
// and one write.
type section struct {
	e  *Engine
	me *member

	st    state
	at    stamp // the copy on the disk that st is
	known bool  // st is what the file said or was told last, and has not been touched since

	page   []byte // what was read of the file
	out    []byte // what is written to it
	pokes  []poke // wake-ups that are owed once the change is stored
	stored bool   // the change is stored
	census census
}

// lock begins a section on name. It waits for the guard, a kernel lock on the file, until ctx
// ends or closing is closed. It never lets the kernel wait: a goroutine in such a call can
// neither be cancelled nor does it leave its thread to others.
func (e *Engine) lock(ctx context.Context, closing <-chan struct{}, name string, create bool) (*book, error) {
	for {
		b, err := e.books.get(name, create)
		if err != nil {
			return nil, err
		}
		if err := b.begin(ctx, closing); err != nil {
			e.books.done(b)
			return nil, err
		}
		b.e, b.me = e, e.member.Load()
		// Whoever opened the file may find the path leading elsewhere by the time the guard
		// is his: others lock the file that stands there now.
		same, err := names(b.path, b.file, b.id)
		if err == nil && same {
			if err = b.load(); err == nil {
				return b, nil
			}
		}
		if err == nil {
			e.books.discard(b)
		}
		b.end()
		e.books.done(b)
		if err != nil {
			return nil, unavailable("reading", b.path, err)
		}
	}
}

// unlock ends the section, then delivers the wake-ups. A holder that is killed between the
// two leaves waiters that find out by looking.
func (e *Engine) unlock(b *book) {
	var few [4]poke
	var pokes []poke
	if b.stored {
		pokes = append(few[:0], b.pokes...)
	}
	m := b.me
	b.end()
	e.books.done(b)
	for _, p := range pokes {
		e.post(m, p)
	}
}

// begin takes the turn, which keeps others of this process out, and the guard, which keeps
// other processes out: the kernel lock belongs to the descriptor that they all share.
func (b *book) begin(ctx context.Context, closing <-chan struct{}) error {
	select {
	case b.turn <- struct{}{}:
	default:
		select {
		case b.turn <- struct{}{}:
		case <-ctx.Done():
			return busy(ctx)
		case <-closing:
			return errClosed
		}
	}
	if err := b.guard(ctx, closing); err != nil {
		<-b.turn
		return err
	}
	b.pokes, b.stored = b.pokes[:0], false
	b.census = nil
	return nil
}

func (b *book) end() {
	unlock(b.file)
	<-b.turn
}

// The pauses between two tries for the guard grow from the length of a section to one that
// costs next to nothing.
const (
	firstPause = 20 * time.Microsecond
	lastPause  = time.Millisecond
)

func (b *book) guard(ctx context.Context, closing <-chan struct{}) error {
	var timer *time.Timer
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		ok, err := tryLock(b.file, true)
		if ok {
			return nil
		}
		if err != nil {
			return unavailable("locking", b.path, err)
		}
		d := pause/2 + rand.N(pause)
		if timer == nil {
			timer = time.NewTimer(d)
			defer timer.Stop()
		} else {
			timer.Reset(d)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return busy(ctx)
		case <-closing:
			return errClosed
		}
	}
}

func busy(ctx context.Context) error {
	return driver.Fail(driver.Unavailable, errors.Join(ctx.Err(), errBusy))
}

// load reads the state, unless it is the one that this process knows from its last section.
func (b *book) load() error {
	if b.page == nil {
		b.page = make([]byte, 2*slotSize)
	}
	snap, err := readSlots(b.file, b.page)
	if err != nil {
		return explain(b.path, err)
	}
	if i := snap.newest(); b.known && i >= 0 && snap.heads[i].stamp == b.at {
		return nil
	}
	b.known = false
	name, at, err := snap.load(b.file, &b.st)
	switch {
	case errors.Is(err, errTorn) && b.afterCrash():
		// Nobody holds anything any more, and the numbers go on above the ceiling.
	case err != nil:
		return explain(b.path, err)
	case at.gen > 0 && name != b.name:
		return foreign(b.path, name)
	}
	if b.st.gen == 0 || !b.sameBoot() {
		return b.resume()
	}
	b.at, b.known = at, true
	return nil
}

// touch says that st is about to be changed: until it is stored it is no longer what the
// file says.
func (b *book) touch() { b.known = false }

// save stores what the section has changed. After an error nothing of it counts: the copy
// before it stands, and the next section reads it again.
func (b *book) save() error {
	switch {
	case len(b.st.Shares) > maxShares:
		return driver.Failf(driver.Unavailable, "more than %d holders and waiters of one name: the file has no room", maxShares)
	case b.st.fences.Last > ledger.MaxFence:
		return corrupt(b.path, "its fence counter has come to its end")
	}
	if b.st.fences.Last > b.st.ceiling {
		if err := b.raise(); err != nil {
			return unavailable("writing", b.path, err)
		}
	}
	at, err := store(b.file, &b.st, b.name, &b.out)
	if err != nil {
		failed := unavailable("writing", b.path, err)
		if !isFull(err) && err != errTooLarge {
			// Not even half a copy is read again, and whoever reads next finds the one before
			// it; unless all of it was written, and the error is about something else.
			failed.Outcome = driver.Unknown
		}
		return failed
	}
	b.at, b.known, b.stored = at, true, true
	return nil
}

func (b *book) alive(home string) bool { return b.census.alive(b.me, home) }

// strike takes the shares of dead members out of the book and reports whether there were any.
func (b *book) strike() bool {
	struck := b.st.RemoveFunc(func(s *ledger.Share) bool { return !b.alive(s.Home) })
	if struck {
		b.touch()
	}
	return struck
}

// settle grants to those whose turn has come after a change. A waiter that died in the
// meantime is struck out, so that nothing is granted to it and the next one is served.
func (b *book) settle() {
	for {
		dead := false
		b.st.Settle(&b.st.fences, nowMicros(), func(s *ledger.Share) {
			b.touch()
			if b.alive(s.Home) {
				b.pokes = append(b.pokes, poke{s.Home, s.Token})
			} else {
				dead = true
			}
		})
		if !dead {
			return
		}
		b.strike()
	}
}

func nowMicros() int64 { return time.Now().UnixMicro() }
