package etcdlock

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/envelope"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A value is one key, apart from those of locks: Config.Prefix, "%value/" and the name, written
// as it is there. Its version is the revision of its last write, which grows over the whole
// cluster, and so over deletions.
//
// etcd compares revisions in a transaction, and not the numbers within a value. So a write
// reads what is stored, decides, and writes if the key is still of the revision that was read;
// if it is not, it decides anew. Revisions never come back, so nothing can have happened between.
//
// # How values end
//
// When a value ends is written in it, in µs; whoever reads it later finds none. The key hangs
// on a lease of its own, whose only task is to take it away some time after that. It lasts a
// TTL longer than the value, so that a value which is written again and again, as a counter,
// needs a new lease once a TTL and not with every write. The lease that a value does not need
// any more is revoked, and ends by itself where that fails.
//
// etcd tells nobody the time. It is that of the wall clocks of those who read and write.
const valueKeys = "%value/"

func (c *Config) valueKey(name string) string { return c.Prefix + valueKeys + nameCodec.Replace(name) }

// keeper is the lease that a value's key hangs on. The zero keeper is none.
type keeper struct {
	id  clientv3.LeaseID
	end int64 // no earlier than this, in µs since 1970
}

// noted is what an envelope says of the keeper beside its id, which etcd knows.
func (k keeper) noted() string { return strconv.FormatInt(k.end, 10) }

func (k keeper) covers(until int64) bool { return k.id != clientv3.NoLease && until <= k.end }

// stored is a value's key at one moment.
type stored struct {
	envelope.Envelope
	mod    int64 // revision of its last write, 0 where there is no key
	keeper keeper
}

func (s *stored) value() driver.Value { return s.Value(s.mod, time.Now()) }

// parseStored reads a key, nil where there is none.
func parseStored(kv *mvccpb.KeyValue) (s stored, err error) {
	if kv == nil {
		return s, nil
	}
	if s.Envelope, err = envelope.Decode(kv.Value); err == nil {
		s.keeper.end, err = strconv.ParseInt(s.Note, 10, 64)
	}
	if err != nil {
		return s, driver.Failf(driver.Invalid, "key %.200q is in use for something else: choose another name or prefix (%w)", kv.Key, err)
	}
	s.mod, s.keeper.id = kv.ModRevision, clientv3.LeaseID(kv.Lease)
	return s, nil
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// readStored reads a key, and says as of which revision.
func (e *Engine) readStored(ctx context.Context, key string) (s stored, revision int64, err error) {
	bounded, cancel := e.bound(ctx)
	defer cancel()
	resp, err := e.client.Get(bounded, key)
	if err != nil {
		return s, 0, e.unwritten(ctx, err)
	}
	s, err = parseStored(first(resp.Kvs))
	return s, resp.Header.Revision, err
}

// unwritten is refusal for what changes no value, whatever became of it.
func (e *Engine) unwritten(ctx context.Context, err error) error {
	d := e.failure(e.refusal(ctx, err))
	return &driver.Error{Kind: d.Kind, Outcome: driver.NotApplied, Err: d.Err}
}

// ReadValue implements driver.Values. It is answered by a majority. Value.Now is the wall clock
// of this process, or when the value was written by that of the process that wrote it,
// whichever is later; a value's TTL is as exact as the clocks of all processes agree.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	s, _, err := e.readStored(ctx, e.cfg.valueKey(name))
	if err != nil {
		return driver.Value{}, err
	}
	return s.value(), nil
}

// WriteValue implements driver.Values. It takes two round trips, one if it is to store what is
// not there yet, and two more when a value with a TTL needs another lease. The TTL counts from
// just before the write leaves.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	x := writing{engine: e, w: &w, key: e.cfg.valueKey(w.Name)}
	v, err := x.run(ctx)
	var d *driver.Error
	switch {
	case x.spare.id == clientv3.NoLease:
	case errors.As(err, &d) && d.Kind == driver.Unavailable:
		e.background(func() { x.revoke(ctx, x.spare) }) // the caller has waited long enough
	default:
		x.revoke(ctx, x.spare)
	}
	return v, err
}

// writing is one call of WriteValue.
type writing struct {
	engine *Engine
	w      *driver.Write
	key    string
	was    stored
	spare  keeper // was granted for this write, and nothing hangs on it
}

// leasesLost bounds how often a write finds that the lease which it is about to use has gone.
const leasesLost = 5

// run tries until the write has happened or is refused. Who has to begin anew does so because
// another write has happened.
func (x *writing) run(ctx context.Context) (_ driver.Value, err error) {
	w := x.w
	if w.If != 0 || w.Delete { // else it is taken for granted that there is none
		if x.was, _, err = x.engine.readStored(ctx, x.key); err != nil {
			return driver.Value{}, err
		}
	}
	lost := 0
	for tries := 0; ; tries++ {
		was := x.was.value()
		if err := envelope.Check(w, was); err != nil {
			return was, err
		}
		if w.Delete && x.was.mod == 0 {
			return was, nil
		}
		next := envelope.Seal(w, was)
		k := x.keeper(next.Until)
		if next.Until != 0 && !k.covers(next.Until) {
			if err := x.grant(ctx, next.Until); err != nil {
				return driver.Value{}, err
			}
			continue // the TTL counts from now
		}
		next.Note = k.noted()
		a, err := x.commit(ctx, &next, k)
		switch {
		case err == nil && a.succeeded:
			x.settle(ctx, k)
			if w.Delete {
				return driver.Value{Now: was.Now}, nil
			}
			return next.Value(a.revision, was.Now), nil
		case err == nil:
			x.was, err = parseStored(first(a.found(0)))
		case leaseIsGone(err) && lost < leasesLost: // so nothing was written
			lost++
			x.spare = keeper{}
			x.was, _, err = x.engine.readStored(ctx, x.key)
		default:
			if d := x.engine.failure(err); d.Outcome != driver.NotApplied {
				x.spare = keeper{} // the key may hang on it
			}
			return driver.Value{}, x.engine.refusal(ctx, err)
		}
		if err == nil {
			err = x.pause(ctx, tries)
		}
		if err != nil {
			return driver.Value{}, err
		}
	}
}

// keeper is the lease for a value that ends then, as far as there is one already.
func (x *writing) keeper(until int64) keeper {
	old := x.was.keeper
	longest := until + (3*x.w.TTL + time.Minute).Microseconds() // what ends soon goes soon
	switch {
	case until == 0:
		return keeper{}
	case old.covers(until) && old.end <= longest:
		return old
	}
	return x.spare
}

// grant asks for a lease that outlives a value which ends then.
func (x *writing) grant(ctx context.Context, until int64) error {
	e := x.engine
	if x.spare.id != clientv3.NoLease { // it was granted too slowly, or for too short a while
		x.revoke(ctx, x.spare)
		x.spare = keeper{}
	}
	bounded, cancel := e.bound(ctx)
	defer cancel()
	sent := time.Now()
	resp, err := e.client.Grant(bounded, secondsOf(time.UnixMicro(until).Sub(sent)+x.w.TTL)+1)
	if err != nil {
		return e.unwritten(ctx, err)
	}
	x.spare = keeper{resp.ID, sent.Add(time.Duration(resp.TTL) * time.Second).UnixMicro()}
	return nil
}

// commit writes next, or deletes, if what was read is there still, and reads what is there if
// it is not.
func (x *writing) commit(ctx context.Context, next *envelope.Envelope, k keeper) (answer, error) {
	op := clientv3.OpDelete(x.key)
	if !x.w.Delete {
		op = clientv3.OpPut(x.key, string(next.Encode()), clientv3.WithLease(k.id))
	}
	return x.engine.transact(ctx, &txn{
		cmps:      []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(x.key), "=", x.was.mod)},
		then:      []clientv3.Op{op},
		otherwise: []clientv3.Op{clientv3.OpGet(x.key)},
	})
}

// settle ends the lease that the key hung on before, unless that is k still. Nothing hangs on
// it now, and nothing can any more: whoever wants to use it again has read a key that has
// changed since.
func (x *writing) settle(ctx context.Context, k keeper) {
	if k == x.spare {
		x.spare = keeper{}
	}
	if old := x.was.keeper; old.id != clientv3.NoLease && old.id != k.id {
		x.revoke(ctx, old)
	}
}

// revoke ends a lease that nothing hangs on. What fails ends by itself.
func (x *writing) revoke(ctx context.Context, k keeper) {
	short, cancel := x.engine.patience(ctx)
	defer cancel()
	_, _ = x.engine.client.Revoke(short, k.id)
}

// pause lets the one who was faster get on.
func (x *writing) pause(ctx context.Context, tries int) error {
	timer := time.NewTimer(rand.N(time.Duration(min(tries+1, 10)) * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-x.engine.closing:
		return errClosed
	case <-ctx.Done():
		return driver.Fail(driver.Unavailable, ctx.Err())
	}
}

// Who waits for a change is told of it by a watch, and looks by himself every so often: watches
// may be silent.
const (
	lookWatched   = 5 * time.Second
	lookUnwatched = 500 * time.Millisecond

	// blind is for how long no look may succeed.
	blind = 10 * time.Second
)

// AwaitValue implements driver.Values. All calls of a process that wait for one name share a
// watch. One that cannot look for ten seconds fails.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	watch := e.watches.enter(e.cfg.valueKey(name))
	defer e.watches.leave(watch)
	seen := time.Now() // the last look that succeeded
	for {
		watched, stirred := watch.state() // before the look: what changes after it is told
		s, revision, err := watch.look(ctx)
		switch {
		case err == nil:
			seen = time.Now()
		case ctx.Err() != nil || !passing(err) || time.Since(seen) > blind:
			return driver.Value{}, err
		default:
			if err := e.awaitStir(ctx, stirred, false, 0); err != nil {
				return driver.Value{}, err
			}
			continue
		}
		for {
			v := s.value()
			if v.Version != version {
				return v, nil
			}
			if err := e.awaitStir(ctx, stirred, watched, v.TTL); err != nil {
				return driver.Value{}, err
			}
			var told change
			if told, watched, stirred = watch.last(); told.revision <= revision {
				break // it is time to look
			}
			revision = told.revision
			if s, err = parseStored(told.kv); err != nil {
				return driver.Value{}, err
			}
		}
	}
}

// awaitStir returns when there is something new, when it is time to look, or when a value that
// has so much time left has ended.
func (e *Engine) awaitStir(ctx context.Context, stirred <-chan struct{}, watched bool, left time.Duration) error {
	pause := lookUnwatched
	if watched {
		pause = lookWatched
	}
	pause += rand.N(pause / 8)
	if left > 0 {
		pause = min(pause, left+time.Millisecond)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-stirred:
	case <-timer.C:
	case <-ctx.Done():
		return driver.Fail(driver.Unavailable, ctx.Err())
	case <-e.closing:
		return errClosed
	}
	return nil
}
