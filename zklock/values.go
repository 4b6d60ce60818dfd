package zklock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/envelope"
)

// A value is a persistent node Root/%values/n, where n is the name as it is for locks; no name
// is encoded as %values. Its version is the transaction of its last write (mzxid), which grows
// over the whole ensemble, and so over deletions.
//
// ZooKeeper compares the number of writes to a node (dataVersion), which begins anew when the
// node is deleted and created again: a writer that read the first node could overwrite the
// second. So every write leaves a child below the node, the guard, of a name that nobody uses
// again and that the data tells; and every write is a transaction that begins by deleting the
// guard that it has read. It happens to what was read or not at all.
//
// # How values end
//
// When a value ends is written in it, in µs; whoever reads it later finds none. The node is
// taken away by the next write to the name, or by a sweep of the processes that write such
// values: see sweepOnce.
//
// ZooKeeper tells nobody the time. It is that of the wall clocks of those who read and write.
const valuesNode = "%values"

func (e *Engine) valuesDir() string { return e.cfg.Root + "/" + valuesNode }

func (e *Engine) valuePath(name string) string { return e.valuesDir() + "/" + encode(name) }

// stored is a value's node at one moment. Its note is the name of the guard.
type stored struct {
	envelope.Envelope
	mzxid int64 // 0 where there is no node
}

func (s *stored) value() driver.Value { return s.Value(s.mzxid, time.Now()) }

// newGuard returns the name of a guard. It begins with when the value ends, so that a sweep
// need not read the value.
func newGuard(until int64) string { return strconv.FormatInt(until, 10) + "-" + rand.Text() }

// guardEnds is the inverse of newGuard: 0 for a value that does not end, and for nodes that are
// no guards.
func guardEnds(guard string) int64 {
	text, _, _ := strings.Cut(guard, "-")
	until, _ := strconv.ParseInt(text, 10, 64)
	return until
}

// reads is how often a read is tried whose connection is lost.
const reads = 3

// readStored reads a node: as it is now, or as the server that serves us knows it, which may be
// what others have changed since.
func (e *Engine) readStored(ctx context.Context, path string, now bool) (s stored, err error) {
	for range reads {
		var data []byte
		var stat *zk.Stat
		if _, err = e.session.ready(ctx, e.patience(false)); err != nil {
			break
		}
		if now {
			err = e.catchUp(ctx, path)
		}
		if err == nil {
			data, stat, err = e.nodeOf(ctx, path)
		}
		if err == nil && stat == nil {
			return s, nil
		}
		if err == nil {
			s.mzxid = stat.Mzxid
			if s.Envelope, err = envelope.Decode(data); err != nil {
				err = driver.Failf(driver.Invalid, "node %.200q is in use for something else: choose another name or Root (%w)", path, err)
			}
			break
		}
		if ctx.Err() != nil || !passing(err) {
			break
		}
	}
	if err != nil {
		return stored{}, e.unwritten(err)
	}
	return s, nil
}

// unwritten is classify for what changes no value, whatever became of it.
func (e *Engine) unwritten(err error) error {
	d := e.classify(err)
	return &driver.Error{Kind: d.Kind, Outcome: driver.NotApplied, Err: d.Err}
}

// ReadValue implements driver.Values. The server has caught up with the leader before, so it
// answers with what was written before the call. Value.Now is the wall clock of this process,
// or when the value was written by that of the process that wrote it, whichever is later; a
// value's TTL is as exact as the clocks of all processes agree.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	s, err := e.readStored(ctx, e.valuePath(name), true)
	if err != nil {
		return driver.Value{}, err
	}
	return s.value(), nil
}

// WriteValue implements driver.Values. It takes two round trips: a read, which need not be up
// to date, and a transaction. The TTL counts from just before that leaves.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	path := e.valuePath(w.Name)
	for tries := 0; ; tries++ {
		now := tries > 0
		s, err := e.readStored(ctx, path, now)
		if err != nil {
			return driver.Value{}, err
		}
		was := s.value()
		refused := envelope.Check(&w, was)
		if refused != nil || w.Delete && s.mzxid == 0 {
			if now {
				return was, refused
			}
			continue // it may have changed
		}
		next := envelope.Seal(&w, was)
		next.Note = newGuard(next.Until)
		version, err := e.commit(ctx, path, &s, &next, w.Delete)
		switch {
		case err == nil && w.Delete:
			return driver.Value{Now: was.Now}, nil
		case err == nil:
			if next.Until != 0 {
				e.beginSweeping()
			}
			return next.Value(version, was.Now), nil
		case errors.Is(err, errChanged):
		default:
			return driver.Value{}, e.classify(err)
		}
		if err := e.letOn(ctx, tries); err != nil {
			return driver.Value{}, err
		}
	}
}

// errChanged says that a value is not any more what was read.
var errChanged = errors.New("another write has happened")

// commit writes next, or deletes, if s is there still, and returns the version.
func (e *Engine) commit(ctx context.Context, path string, s *stored, next *envelope.Envelope, remove bool) (int64, error) {
	ops := []any{&zk.DeleteRequest{Path: path + "/" + s.Note, Version: -1}}
	if s.mzxid == 0 {
		ops[0] = &zk.CreateRequest{Path: path, Acl: e.cfg.ACL}
	}
	if remove {
		ops = append(ops, &zk.DeleteRequest{Path: path, Version: -1})
	} else {
		ops = append(ops,
			&zk.CreateRequest{Path: path + "/" + next.Note, Acl: e.cfg.ACL},
			&zk.SetDataRequest{Path: path, Data: next.Encode(), Version: -1}) // its answer tells the transaction
	}
	for {
		answers, err := do(ctx, &e.session, func(c *zk.Conn) ([]zk.MultiResponse, error) { return c.Multi(ops...) })
		switch {
		case err == nil && remove:
			return 0, nil
		case err == nil && (len(answers) != len(ops) || answers[len(ops)-1].Stat == nil):
			return 0, fmt.Errorf("the answer to a transaction of %d has %d parts", len(ops), len(answers))
		case err == nil:
			return answers[len(ops)-1].Stat.Mzxid, nil
		case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode) && s.mzxid != 0:
			return 0, errChanged
		case !errors.Is(err, zk.ErrNoNode):
			return 0, err
		}
		// What is missing is the node above: it is there from the first value on until the
		// servers find it empty.
		if err := e.makeDirs(ctx, e.valuesDir()); err != nil {
			return 0, e.unwritten(err)
		}
	}
}

// letOn lets the one who was faster get on.
func (e *Engine) letOn(ctx context.Context, tries int) error {
	timer := time.NewTimer(mathrand.N(time.Duration(min(tries+1, 10)) * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-e.done:
		return errClosed
	case <-ctx.Done():
		return driver.Fail(driver.Unavailable, ctx.Err())
	}
}

// lookEvery is how often, give or take an eighth, a call that waits for a change looks by
// itself. A watch tells it earlier.
const lookEvery = 5 * time.Second

// AwaitValue implements driver.Values. All calls of a process that wait for one name share a
// watch. The library cannot take one back: it stays, once for each name, until the next change.
// A call fails when there is no server for two session timeouts.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	path := e.valuePath(name)
	for {
		if _, err := e.session.ready(ctx, e.patience(true)); err != nil {
			return driver.Value{}, e.unwritten(err)
		}
		v, err := e.awaitOnce(ctx, path, version)
		switch {
		case err == nil && v.Version != version:
			return v, nil
		case err == nil: // the watch is spent
		case ctx.Err() == nil && (passing(err) || errors.Is(err, errNotConnected)):
		default:
			return driver.Value{}, err
		}
	}
}

// awaitOnce returns the value once it has another version, or the same when that may have
// changed since: a watch tells of one change.
func (e *Engine) awaitOnce(ctx context.Context, path string, version int64) (driver.Value, error) {
	w := e.watches.on(watched{path: path, absent: true})
	set := w.set
	for {
		s, err := e.readStored(ctx, path, true)
		if err != nil {
			return driver.Value{}, err
		}
		v := s.value()
		if v.Version != version {
			return v, nil
		}
		pause := lookEvery + mathrand.N(lookEvery/8)
		if v.TTL > 0 {
			pause = min(pause, v.TTL+time.Millisecond)
		}
		timer := time.NewTimer(pause)
		select {
		case <-set: // what has changed before is not told
			set = nil
		case <-timer.C:
		case <-w.changed:
			timer.Stop()
			return v, nil
		case <-ctx.Done():
			timer.Stop()
			return driver.Value{}, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.done:
			timer.Stop()
			return driver.Value{}, errClosed
		}
		timer.Stop()
	}
}
