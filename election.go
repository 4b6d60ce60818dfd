package holdfast

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Election lets processes agree on one of them, the leader, and lets everybody see who that
// is. It is a cheap handle and safe for concurrent use.
//
// A leader is the holder of a lock, and what is said of leases holds for terms: one that was
// paused past the end of its term may believe in it for a moment when there is another
// leader. What must not go wrong even then has to check [Term.Fence].
type Election struct {
	client *Client
	lock   *Mutex
	name   string
	err    error
}

// Election returns the handle of the election of that name. The options are those of its
// lock, which has the name "election:" followed by the election's: WithTTL is after how long
// a leader that died is replaced.
func (c *Client) Election(name string, opts ...Option) *Election {
	e := &Election{client: c, name: "election:" + name}
	if err := checkPrefixed(name, e.name); err != nil {
		e.err = c.fail("election", name, ErrInvalid, err)
	}
	e.lock = c.Mutex(e.name, opts...)
	if e.err == nil {
		e.err = e.lock.h.err
	}
	return e
}

// Campaign waits until this process is the leader, or ctx ends, and has everybody see value,
// at most MaxItem bytes: an address, for example. Only one goroutine of a process leads.
func (e *Election) Campaign(ctx context.Context, value []byte) (*Term, error) {
	if e.err != nil {
		return nil, e.err
	}
	if err := driver.CheckWrite(driver.Write{Name: e.name, Data: value}); err != nil {
		return nil, e.client.fail("campaign", e.name, ErrInvalid, err)
	}
	lease, err := e.lock.Lock(ctx)
	if err != nil {
		return nil, err
	}
	t := &Term{election: e, lease: lease, turn: make(chan struct{}, 1), over: make(chan struct{})}
	t.ending, t.end = context.WithCancel(lease.Context())
	if err := t.announce(ctx, func() []byte { return value }); err != nil {
		t.end()
		lease.Unlock() // what the caller has to know is that nobody sees this leader
		return nil, err
	}
	go t.remind()
	return t, nil
}

// Term is the time in which one process is the leader. It is safe for concurrent use.
type Term struct {
	election *Election
	lease    *Lease
	ending   context.Context // ends when the term does, or is about to
	end      context.CancelFunc
	turn     chan struct{} // has an element while something is announced
	over     chan struct{} // closed when nothing is repeated any more

	mu    sync.Mutex
	value []byte
}

// Context ends when the term does, as [Lease.Context] does: with cause ErrLost when
// leadership was lost, before anybody else can be leader by the local clock.
func (t *Term) Context() context.Context { return t.lease.Context() }

// Lease returns the lease that the term is. Resign ends it in an orderly way; Unlock leaves
// its value to be seen for up to its TTL.
func (t *Term) Lease() *Lease { return t.lease }

// Fence is larger than that of every earlier term.
func (t *Term) Fence() int64 { return t.lease.Fence() }

// Value returns a copy of what was announced last.
func (t *Term) Value() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.value)
}

// Announce has everybody see another value. It fails with ErrLost or ErrNotHeld when the term
// is over. After an error with Unknown outcome it may be seen, until the next announcement.
func (t *Term) Announce(ctx context.Context, value []byte) error {
	if err := t.lease.held("announce"); err != nil {
		return err
	}
	return t.announce(ctx, func() []byte { return value })
}

// announce stores a value for as long as a lease lives. It is asked for in turn, so that a
// repetition never brings back what was replaced meanwhile. The fence keeps an older term from
// writing over it.
func (t *Term) announce(ctx context.Context, value func() []byte) error {
	e := t.election
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ending, cancel)()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return t.unannounced(e.client.fail("announce", e.name, nil, ctx.Err()))
	}
	data := value()
	_, err := e.client.writeValue(ctx, "announce", driver.Write{
		Name: e.name, Data: data, TTL: e.lock.h.ttl, If: driver.AnyVersion, Fence: t.lease.Fence(),
	})
	if err != nil {
		return t.unannounced(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.value = bytes.Clone(data)
	return nil
}

// unannounced is the error of an announcement: where it was the term that ended and not the
// caller's context, it says so.
func (t *Term) unannounced(err error) error {
	if t.ending.Err() == nil {
		return err
	}
	if over := t.lease.held("announce"); over != nil {
		return over
	}
	resigned := t.election.client.fail("announce", t.election.name, ErrNotHeld, nil)
	resigned.Outcome = Unknown
	return resigned
}

// remind announces the value again before it runs out, until the term is over.
func (t *Term) remind() {
	defer close(t.over)
	for sleep(t.ending, t.election.lock.h.ttl/3) == nil {
		attempt, cancel := context.WithTimeout(t.ending, t.election.lock.h.ttl/3)
		t.announce(attempt, t.Value) // a failure is made good by the next one
		cancel()
	}
}

// Resign ends the term and lets the next one lead, as [Lease.Unlock] does. Everybody sees
// that there is no leader first, unless the engine does not answer: then the value is seen for
// up to its TTL. It takes at most about three times the ReleaseTimeout.
func (t *Term) Resign() error {
	if err := t.lease.held("resign"); err != nil {
		return err
	}
	e, timeout := t.election, t.election.client.cfg.ReleaseTimeout
	// An announcement under way could arrive after what follows, so it is waited for. One
	// that the engine does not answer is given up.
	impatient := time.AfterFunc(timeout, t.end)
	t.turn <- struct{}{}
	impatient.Stop()
	t.end()
	defer func() { <-t.turn }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	// Where this fails the value runs out by itself.
	e.client.writeValue(ctx, "resign", driver.Write{Name: e.name, Delete: true, If: driver.AnyVersion, Fence: t.lease.Fence()})
	err := t.lease.Unlock()
	<-t.over
	return err
}

// Leader is what everybody sees of a term. The zero Leader says that there is none.
type Leader struct {
	Value []byte
	// Fence is the term's, 0 where there is no leader.
	Fence int64
}

// Leader returns who leads, as announced. It is out of date when it arrives: a leader is seen
// for up to its TTL after it died.
func (e *Election) Leader(ctx context.Context) (Leader, error) {
	if e.err != nil {
		return Leader{}, e.err
	}
	v, err := e.client.readValue(ctx, "leader", e.name)
	return leaderOf(v), err
}

func leaderOf(v driver.Value) Leader { return Leader{v.Data, v.Fence} }

func (l Leader) same(other Leader) bool {
	return l.Fence == other.Fence && string(l.Value) == string(other.Value)
}

// Observe yields who leads, and again whenever that changes, until ctx ends or the loop does.
// It may miss leaders in between. When the engine does not answer it yields the error, and
// goes on.
func (e *Election) Observe(ctx context.Context) iter.Seq2[Leader, error] {
	return func(yield func(Leader, error) bool) {
		if e.err != nil {
			yield(Leader{}, e.err)
			return
		}
		v, err := e.client.readValue(ctx, "observe", e.name)
		last, failures := Leader{Fence: -1}, 0
		for ctx.Err() == nil {
			now := leaderOf(v)
			switch {
			case err != nil:
				failures++
				if !yield(Leader{}, err) || e.client.closed.Load() {
					return
				}
				if sleep(ctx, min(time.Second, time.Duration(failures)*50*time.Millisecond)) != nil {
					return
				}
			case !now.same(last):
				last, failures = now, 0
				if !yield(now, nil) {
					return
				}
			default:
				failures = 0
			}
			if err != nil {
				v, err = e.client.readValue(ctx, "observe", e.name)
			} else {
				v, err = e.client.awaitValue(ctx, "observe", e.name, v.Version)
			}
		}
	}
}

// Lead campaigns again and again and runs work whenever this process is the leader, until
// work returns within a term, with an error or without, or ctx ends. work's context ends with the
// term; after a term that was lost the next campaign begins when work has returned, and what
// it returned is dropped unless it was nil. The term ends when work returns or panics.
//
// While the engine does not answer, Lead goes on trying, once a second, and tells
// Config.Logger.
func (e *Election) Lead(ctx context.Context, value []byte, work func(ctx context.Context, t *Term) error) error {
	for {
		t, err := e.Campaign(ctx, value)
		if err != nil {
			if ctx.Err() != nil || !e.passes(err) {
				return err
			}
			sleep(ctx, time.Second)
			continue
		}
		lost, err := t.run(ctx, work)
		switch {
		case ctx.Err() != nil:
			return e.client.fail("lead", e.name, nil, ctx.Err())
		case err == nil || !lost:
			return err
		}
	}
}

// passes reports whether what a campaign failed with may be over soon.
func (e *Election) passes(err error) bool {
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrLost) {
		return false
	}
	if e.client.cfg.Logger != nil {
		e.client.cfg.Logger.Warn("election", "name", e.name, "engine", e.client.caps.Engine, "cause", err)
	}
	return true
}

// run runs work within the term and ctx, and ends the term. lost says that it was over before.
func (t *Term) run(ctx context.Context, work func(context.Context, *Term) error) (lost bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	held := t.Context()
	defer context.AfterFunc(held, func() { cancel(context.Cause(held)) })()
	defer func() {
		lost = t.lease.held("lead") != nil
		t.Resign() // where it cannot be given back it runs out
	}()
	return false, work(ctx, t)
}
