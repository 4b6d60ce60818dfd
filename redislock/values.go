package redislock

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// What stands before a name's key in those of its value and of its counter.
const (
	valueKind   = companions + "v:"
	counterKind = companions + "c:"
	changeKind  = companions + "n:" // the channel on which changes of a value are told
)

// errQuiet is why a master refuses to write values and to count, beside errCutOff: what it has may
// be behind what its predecessor confirms still.
var errQuiet = errors.New("this master has just taken over, and waits until its predecessor must have fallen silent")

// shut tells why a script refused.
func shut(word string) error {
	switch word {
	case "cut":
		return driver.Fail(driver.Unavailable, errCutOff)
	case "quiet":
		return driver.Fail(driver.Unavailable, errQuiet)
	}
	return nil
}

// companionKey returns the key of something that is kept for a name beside its lock, and the
// slot that is in. In a Cluster it has the tag of the name's own slot.
func (e *Engine) companionKey(kind, name string) (key string, slot int, err error) {
	lock, err := e.keyOf(name)
	if err != nil {
		return "", 0, err
	}
	slot = e.slotOf(lock)
	if e.cluster != nil {
		return kind + tags()[slot] + lock, slot, nil
	}
	return kind + lock, 0, nil
}

// runAt runs a gated script about keys of one slot, at the node that has it, and once more
// where the slot has moved: nothing was carried out then.
func (e *Engine) runAt(ctx context.Context, s *script, slot int, keys []string, args ...any) ([]string, error) {
	again := false // it was cut off once, which may only mean that nobody has used it for a while
	for try := 1; ; try++ {
		if e.cluster != nil && !e.mapped.Load() {
			if err := e.remap(); err != nil {
				return nil, err
			}
		}
		c, err := e.nodeOf(slot)
		if err == nil {
			err = c.greet()
		}
		if err != nil {
			e.suspect(err)
			return nil, &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: err}
		}
		l := &e.single
		if c.slotted {
			l = e.layoutOf(slot)
		}
		all := []any{nil, nil, 2 + len(keys), l.epoch, l.fence}
		for _, key := range keys {
			all = append(all, key)
		}
		c.mu.Lock()
		known := c.known()
		c.mu.Unlock()
		all = append(append(all, e.constants, known), args...)
		all[7+len(keys)+3] = l.tag // ARGV[6], which the gate looks at
		reply, err := newCall().send(ctx, nil, c.node, s, all)
		if len(reply) == 2 && reply[0] == "!constants" {
			err = &constantsError{ours: e.constants, theirs: reply[1]}
		}
		if err == nil && len(reply) > 0 && reply[0] == "cut" && !again {
			again = true
			if err := c.askReplicas(l.poke); err != nil {
				return nil, &driver.Error{Kind: driver.Unavailable, Outcome: driver.NotApplied, Err: err}
			}
			continue
		}
		if err == nil || e.cluster == nil || try > maxMoves || ctx.Err() != nil {
			return reply, err
		}
		follow, elsewhere := astray(err)
		if !follow {
			e.suspect(err)
			return nil, err
		}
		if elsewhere {
			_ = e.remap()
		}
		time.Sleep(time.Duration(try) * 20 * time.Millisecond)
	}
}

// ReadValue implements driver.Values.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	return e.value(ctx, "read", driver.Write{Name: name})
}

// WriteValue implements driver.Values.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if w.Delete {
		return e.value(ctx, "delete", w)
	}
	return e.value(ctx, "write", w)
}

// value makes one call of lua/value.lua.
func (e *Engine) value(ctx context.Context, op string, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	key, slot, err := e.companionKey(valueKind, w.Name)
	if err != nil {
		return driver.Value{}, err
	}
	version := ""
	if w.If != driver.AnyVersion {
		version = formatInt(w.If)
	}
	var reply []string
	err = e.await(ctx, func() (err error) {
		reply, err = e.runAt(e.life, valueScript(), slot, []string{key}, op, version, w.Fence, "",
			millis(w.TTL), e.channelOf(key), w.Data)
		return err
	})
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return driver.Value{}, &driver.Error{Kind: driver.Unavailable, Err: err}
	case err != nil:
		return driver.Value{}, e.valueError(err)
	case len(reply) != 6:
		return driver.Value{}, e.classify(errGarbled)
	}
	v, err := parseValue(reply)
	switch {
	case err != nil:
		return driver.Value{}, e.classify(errGarbled)
	case shut(reply[0]) != nil:
		return driver.Value{}, shut(reply[0])
	case reply[0] == "stale":
		return v, driver.Failf(driver.Stale, "stored is version %d with fence %d", v.Version, v.Fence)
	}
	return v, nil
}

// valueError classifies what a call for a value or counter failed with.
func (e *Engine) valueError(err error) error {
	var d *driver.Error
	var reply redis.Error
	switch {
	case errors.As(err, &d):
		return d
	case errors.As(err, &reply) && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return driver.Failf(driver.Invalid, "the key is in use for something else: choose another name or prefix (%s)", err)
	}
	return e.classify(err)
}

func parseValue(reply []string) (driver.Value, error) {
	var n [4]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(reply[i+1], 10, 64); err != nil {
			return driver.Value{}, err
		}
	}
	v := driver.Value{Version: n[0], Fence: n[1], TTL: time.Duration(n[2]) * time.Millisecond, Now: time.UnixMicro(n[3])}
	if v.Version != 0 {
		v.Data = []byte(reply[5])
	}
	return v, nil
}

// AwaitValue implements driver.Values. It is told of changes, and looks by itself when the
// value should have expired, after every new connection, and every few seconds.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.leave()
	key, _, err := e.companionKey(valueKind, name)
	if err != nil {
		return driver.Value{}, err
	}
	changed := make(chan struct{}, 1)
	w := e.watches.enter(e.channelOf(key), changed)
	defer e.watches.leave(w, changed)
	for {
		heard := w.heard() // before the look: what changes after it is told
		v, err := e.ReadValue(ctx, name)
		if err != nil && ctx.Err() == nil || err == nil && v.Version != version {
			return v, err
		}
		pause := lookUnheard
		if heard {
			pause = lookHeard
		}
		if v.TTL > 0 {
			pause = min(pause, v.TTL+time.Millisecond)
		}
		timer := time.NewTimer(pause + rand.N(pause/8+1))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return driver.Value{}, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			timer.Stop()
			return driver.Value{}, errClosed
		}
		timer.Stop()
	}
}

const (
	lookHeard   = 5 * time.Second
	lookUnheard = 500 * time.Millisecond
)

// channelOf returns the channel on which changes of a value are told.
func (e *Engine) channelOf(key string) string { return changeKind + strings.TrimPrefix(key, valueKind) }
