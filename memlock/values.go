package memlock

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// value is what is stored under a name, and who waits for another version of it.
type value struct {
	data           []byte
	version, fence int64
	until          driver.Instant
	ttl            time.Duration // 0: for ever
	expiry         driver.Timer  // nil without a TTL
	waiters        []chan struct{}
}

// ReadValue implements driver.Values.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	if _, err := e.sufferValue(ctx, OpRead, name); err != nil {
		return driver.Value{}, err
	}
	s := e.store
	sh := s.lock(name)
	defer sh.mu.Unlock()
	return s.read(sh.values[name]), nil
}

// WriteValue implements driver.Values.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	fault, err := e.sufferValue(ctx, OpWrite, w.Name)
	if err != nil {
		return driver.Value{}, err
	}
	stored, err := e.store.write(&w)
	if err == nil && fault.DropReply {
		return driver.Value{}, errDropped
	}
	return stored, err
}

// AwaitValue implements driver.Values.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	if _, err := e.sufferValue(ctx, OpAwait, name); err != nil {
		return driver.Value{}, err
	}
	if !e.beginWait() {
		return driver.Value{}, errClosed
	}
	defer e.waits.Done()
	s := e.store
	changed := make(chan struct{}, 1)
	defer s.stopWatching(name, changed)
	for {
		now := s.watch(name, version, changed)
		if now.Version != version {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return driver.Value{}, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			return driver.Value{}, errClosed
		}
	}
}

// watch reads name and, where it has that version, has changed told of the next one.
func (s *Store) watch(name string, version int64, changed chan struct{}) driver.Value {
	sh := s.lock(name)
	defer sh.mu.Unlock()
	v := sh.values[name]
	now := s.read(v)
	if now.Version != version {
		return now
	}
	if v == nil {
		v = sh.newValue(name)
	}
	if !slices.Contains(v.waiters, changed) {
		v.waiters = append(v.waiters, changed)
	}
	return now
}

func (s *Store) stopWatching(name string, changed chan struct{}) {
	sh := s.lock(name)
	defer sh.mu.Unlock()
	if v := sh.values[name]; v != nil {
		v.waiters = slices.DeleteFunc(v.waiters, func(c chan struct{}) bool { return c == changed })
		sh.forgetUnused(name, v)
	}
}

// read describes v, which may be nil.
func (s *Store) read(v *value) driver.Value {
	now := s.clock.Now()
	found := driver.Value{Now: s.wallTime(now)}
	if v == nil || v.version == 0 || v.ended(now) {
		return found
	}
	found.Data, found.Version, found.Fence = bytes.Clone(v.data), v.version, v.fence
	if v.ttl > 0 {
		found.TTL = v.until.Sub(now)
	}
	return found
}

func (v *value) ended(now driver.Instant) bool { return v.ttl > 0 && v.until <= now }

// write carries out w if what is stored lets it.
func (s *Store) write(w *driver.Write) (driver.Value, error) {
	sh := s.lock(w.Name)
	defer sh.mu.Unlock()
	v := sh.values[w.Name]
	was := s.read(v)
	switch {
	case w.If != driver.AnyVersion && w.If != was.Version:
		return was, driver.Failf(driver.Stale, "version is %d, not %d", was.Version, w.If)
	case w.Fence != 0 && w.Fence < was.Fence:
		return was, driver.Failf(driver.Stale, "fence %d has written already: yours is %d", was.Fence, w.Fence)
	case w.Delete && was.Version == 0:
		return was, nil
	}
	if v == nil {
		v = sh.newValue(w.Name)
	}
	v.clear()
	if now := s.clock.Now(); !w.Delete {
		v.data, v.fence = bytes.Clone(w.Data), max(was.Fence, w.Fence)
		v.version, _ = sh.versions.Next(1, s.micros(now))
		if v.ttl = w.TTL; w.TTL > 0 {
			v.until = now.Add(w.TTL)
			version := v.version
			v.expiry = s.clock.AfterFunc(w.TTL, func() { s.expireValue(w.Name, version) })
		}
	}
	v.wake()
	sh.forgetUnused(w.Name, v)
	return s.read(v), nil
}

// expireValue drops what was stored as that version, unless it was replaced. Its timer is
// never early by the clock that read goes by, so that whoever it wakes finds it gone.
func (s *Store) expireValue(name string, version int64) {
	sh := s.lock(name)
	defer sh.mu.Unlock()
	if v := sh.values[name]; v != nil && v.version == version {
		v.clear()
		v.wake()
		sh.forgetUnused(name, v)
	}
}

// clear makes v as good as one that was never written, but for those who wait.
func (v *value) clear() {
	if v.expiry != nil {
		v.expiry.Stop()
	}
	*v = value{waiters: v.waiters}
}

func (v *value) wake() {
	for _, changed := range v.waiters {
		poke(changed)
	}
}

func (sh *shard) newValue(name string) *value {
	if sh.values == nil {
		sh.values = make(map[string]*value)
	}
	v := new(value)
	sh.values[name] = v
	return v
}

func (sh *shard) forgetUnused(name string, v *value) {
	if v.version == 0 && len(v.waiters) == 0 {
		delete(sh.values, name)
	}
}

// sufferValue asks what goes wrong with a call for values.
func (e *Engine) sufferValue(ctx context.Context, op Op, name string) (Fault, error) {
	if e.store.inject.Load() == nil {
		return Fault{}, nil
	}
	return e.suffer(ctx, Call{Op: op, Name: name})
}
