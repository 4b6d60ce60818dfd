package holdfast

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

const (
	// condPatience is after which silence a waiter is taken for dead. A pulse may go to one
	// that died less than so long ago, and is lost then.
	condPatience = 30 * time.Second

	// maxCondWaiters keeps the list of those who wait within a value.
	maxCondWaiters = 1000
)

// Cond lets the holder of a lock sleep until another holder has changed something: the
// monitor's wait and pulse, across processes. It is a cheap handle and safe for concurrent
// use.
//
//	l, err := m.Lock(ctx)
//	for err == nil && !ready() {
//		l, err = cond.Wait(ctx, l)
//	}
//
// As with every monitor, what was true at the pulse may be false once the lock is held again,
// and a pulse may come without a reason (after an engine lost its data, everybody who waits
// is woken): look again, in a loop. A waiter is on the list before it gives the lock back,
// so no pulse of a later holder passes it by.
//
// A pulse is lost with a waiter whose process died, or whose client was closed while it waited, up to
// 30 s before: Signal wakes nobody else in its place. It is also lost when the engine loses it,
// in a failover for example. Where that matters use Broadcast, or wait with a context that ends now
// and then and look again; and let those who wait return before the client is closed.
//
// It is for dozens of waiters: each one that comes, goes or says that it is alive, every few seconds,
// changes a list that all others read then. More than 1000 are refused with ErrUnavailable.
type Cond struct {
	client *Client
	lock   *Mutex
	name   string
	err    error
}

// Cond returns the handle of the condition of that name under the lock m. Give every condition
// a name of its own, under different locks as well: those who wait are known by it alone.
func (m *Mutex) Cond(name string) *Cond {
	c := m.h.client
	d := &Cond{client: c, lock: m, name: "cond:" + name, err: m.h.err}
	if err := checkPrefixed(name, d.name); err != nil {
		d.err = c.fail("cond", name, ErrInvalid, err)
	}
	return d
}

// Wait gives l back, a lease of the condition's lock, sleeps until it is pulsed and locks
// again: the lease that it returns is a new one, with a larger fence. When it fails there is
// none, and l is not held any more either; only a lease of another lock, and one that is used
// with a condition whose name is wrong (ErrInvalid), is left as it was. A pulse that coincides
// with the end of ctx goes to another waiter.
func (d *Cond) Wait(ctx context.Context, l *Lease) (*Lease, error) {
	if err := d.check(l); err != nil {
		return nil, err
	}
	me := rand.Text()
	v, err := d.enlist(ctx, me)
	if err != nil {
		l.Unlock() // what the caller has to know is why there was no wait
		if e, ok := err.(*Error); ok && e.Outcome != NotApplied {
			d.leave(ctx, me)
		}
		return nil, err
	}
	if err := l.Unlock(); err != nil {
		d.leave(ctx, me)
		return nil, err
	}
	if err := d.sleep(ctx, me, v); err != nil {
		d.leave(ctx, me)
		return nil, err
	}
	next, err := d.lock.Lock(ctx)
	if err != nil {
		d.passOn(ctx) // the pulse was for somebody who can use it
	}
	return next, err
}

func (d *Cond) check(l *Lease) error {
	switch {
	case d.err != nil:
		return d.err
	case l == nil || l.Name() != d.lock.Name() || l.claim.h.client != d.client:
		return d.client.fail("wait", d.name, ErrInvalid, fmt.Errorf("the lease is not one of %q", d.lock.Name()))
	}
	return l.held("wait")
}

// Signal wakes the one who waits longest, if anybody does. The caller should hold the lock:
// a pulse without it can come before the wait that it is meant for.
func (d *Cond) Signal(ctx context.Context) error {
	return d.pulse(ctx, "signal", func(w condWaiters) condWaiters { return w[min(1, len(w)):] })
}

// Broadcast wakes everybody who waits. See Signal.
func (d *Cond) Broadcast(ctx context.Context) error {
	return d.pulse(ctx, "broadcast", func(condWaiters) condWaiters { return nil })
}

func (d *Cond) pulse(ctx context.Context, op string, pick func(condWaiters) condWaiters) error {
	if d.err != nil {
		return d.err
	}
	_, err := d.client.changeValue(ctx, op, d.name, func(v driver.Value) *driver.Write {
		waiting := readCondWaiters(v)
		if len(waiting) == 0 {
			return nil
		}
		return pick(waiting).write()
	})
	return err
}

// enlist puts me at the end of the list, or, if me is there, says that it is alive.
func (d *Cond) enlist(ctx context.Context, me string) (driver.Value, error) {
	full := false
	v, err := d.client.changeValue(ctx, "wait", d.name, func(v driver.Value) *driver.Write {
		waiting := readCondWaiters(v)
		until := v.Now.Add(condPatience)
		if i := waiting.find(me); i >= 0 {
			waiting[i].until = until
		} else {
			waiting = append(waiting, condWaiter{me, until})
		}
		if full = len(waiting) > maxCondWaiters; full {
			return nil
		}
		return waiting.write()
	})
	if err == nil && full {
		err = d.client.fail("wait", d.name, ErrUnavailable, fmt.Errorf("%d wait already", maxCondWaiters))
	}
	return v, err
}

// sleep returns once me is not on the list any more: whoever takes it off pulses it. v is
// the list with me on it.
func (d *Cond) sleep(ctx context.Context, me string, v driver.Value) error {
	due := nextSign()
	for readCondWaiters(v).find(me) >= 0 {
		alive, cancel := context.WithDeadline(ctx, due)
		next, err := d.client.awaitValue(alive, "wait", d.name, v.Version)
		silent := alive.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && silent {
			next, err = d.stillHere(ctx, me)
			due = nextSign()
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return d.client.fail("wait", d.name, ErrHeld, ctx.Err())
		case err != nil:
			return err
		}
		v = next
	}
	return nil
}

// nextSign is when a waiter says again that it is alive: often enough for one that fails, and
// not all at once, for each of them changes the list.
func nextSign() time.Time { return time.Now().Add(condPatience/3 - mathrand.N(condPatience/12)) }

// stillHere says that me is alive, unless it was pulsed meanwhile.
func (d *Cond) stillHere(ctx context.Context, me string) (driver.Value, error) {
	return d.client.changeValue(ctx, "wait", d.name, func(v driver.Value) *driver.Write {
		waiting := readCondWaiters(v)
		i := waiting.find(me)
		if i < 0 {
			return nil
		}
		waiting[i].until = v.Now.Add(condPatience)
		return waiting.write()
	})
}

// leave takes me off the list. One that was pulsed in the same instant passes the pulse on.
func (d *Cond) leave(ctx context.Context, me string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.client.cfg.ReleaseTimeout)
	defer cancel()
	pulsed := false
	_, err := d.client.changeValue(ctx, "wait", d.name, func(v driver.Value) *driver.Write {
		waiting := readCondWaiters(v)
		i := waiting.find(me)
		if pulsed = i < 0; pulsed {
			return nil
		}
		return append(waiting[:i:i], waiting[i+1:]...).write()
	})
	if err == nil && pulsed {
		d.Signal(ctx)
	}
}

// passOn gives the pulse of a waiter that could not use it to another one.
func (d *Cond) passOn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.client.cfg.ReleaseTimeout)
	defer cancel()
	d.Signal(ctx)
}

// condWaiters is the list of those who wait, longest first: a line each, with a name drawn at
// random and the moment, in ms since 1970 by the engine's clock, until which it counts as alive.
type condWaiters []condWaiter

type condWaiter struct {
	id    string
	until time.Time
}

// readCondWaiters returns those who are alive. A sign of life counts for condPatience from now
// at most, should the clock have been set back since.
func readCondWaiters(v driver.Value) condWaiters {
	var all condWaiters
	for line := range strings.Lines(string(v.Data)) {
		id, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		until, err := strconv.ParseInt(text, 10, 64)
		if err == nil && until > v.Now.UnixMilli() {
			until = min(until, v.Now.Add(condPatience).UnixMilli())
			all = append(all, condWaiter{id, time.UnixMilli(until)})
		}
	}
	return all
}

func (w condWaiters) find(id string) int {
	for i := range w {
		if w[i].id == id {
			return i
		}
	}
	return -1
}

// write stores the list; an empty one leaves nothing behind, and that of waiters who all died goes by itself.
func (w condWaiters) write() *driver.Write {
	if len(w) == 0 {
		return &driver.Write{Delete: true}
	}
	var b strings.Builder
	for _, waiter := range w {
		fmt.Fprintf(&b, "%s %d\n", waiter.id, waiter.until.UnixMilli())
	}
	return &driver.Write{Data: []byte(b.String()), TTL: 2 * condPatience}
}
