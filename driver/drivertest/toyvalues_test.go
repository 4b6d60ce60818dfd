package drivertest

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// toyValue is what a toyStore keeps under a name beside its locks.
type toyValue struct {
	driver.Value
	until   driver.Instant
	changed chan struct{}
}

// value returns what is stored under name, without what has run out.
func (s *toyStore) value(name string) *toyValue {
	if s.bug == keepsValuesWithLocks && len(s.at(name).shares) == 0 && s.values[name] != nil {
		s.values[name].Value = driver.Value{}
	}
	if s.bug == trimsValueNames {
		name = strings.TrimRight(name, " ")
	}
	v := s.values[name]
	if v == nil {
		v = &toyValue{changed: make(chan struct{})}
		s.values[name] = v
	}
	if now := s.clock.Now(); v.Value.TTL > 0 && v.until <= now && s.bug != keepsValues {
		v.Value = driver.Value{}
	}
	return v
}

func (s *toyStore) readValue(v *toyValue) driver.Value {
	found := v.Value
	found.Now = time.Now()
	if s.bug != sharesData {
		found.Data = bytes.Clone(found.Data)
	}
	if found.Version == 0 && s.bug == emptyHasVersion {
		found.Version = 1
	}
	if found.TTL > 0 {
		found.TTL = v.until.Sub(s.clock.Now())
	}
	return found
}

func (e *toyEngine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	return e.store.readValue(e.store.value(name)), nil
}

func (e *toyEngine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	s := e.store
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.value(w.Name)
	stale := w.If != driver.AnyVersion && w.If != v.Version
	if s.bug == comparesThenWrites {
		s.mu.Unlock()
		time.Sleep(time.Microsecond)
		s.mu.Lock()
	}
	switch {
	case stale && (s.bug != deletesAnyVersion || !w.Delete),
		w.Fence != 0 && w.Fence < v.Fence && s.bug != ignoresWriteFence:
		return s.readValue(v), driver.Fail(driver.Stale, nil)
	}
	s.storeValue(v, w)
	if s.bug != wakesNobodyOfValues {
		close(v.changed)
		v.changed = make(chan struct{})
	}
	return s.readValue(v), nil
}

func (s *toyStore) storeValue(v *toyValue, w driver.Write) {
	was := v.Value
	if w.Delete {
		v.Value = driver.Value{}
		if s.bug == deletesData {
			v.Fence = was.Fence
		}
		return
	}
	s.version++
	version := s.version
	if s.bug == versionAnew {
		version = was.Version + 1
	}
	data := w.Data
	if s.bug != sharesData {
		data = bytes.Clone(data)
	}
	v.Value = driver.Value{Data: data, Version: version, Fence: max(was.Fence, w.Fence), TTL: w.TTL}
	if s.bug != keepsFirstTTL || was.TTL == 0 {
		v.until = s.clock.Now().Add(w.TTL)
	}
}

func (e *toyEngine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	s := e.store
	if s.bug == waitsForTheNext {
		s.mu.Lock()
		version = s.value(name).Version
		s.mu.Unlock()
	}
	closed := e.closed
	if s.bug == leavesAwait {
		closed = nil
	}
	for {
		s.mu.Lock()
		v := s.value(name)
		found, changed := s.readValue(v), v.changed
		s.mu.Unlock()
		if found.Version != version {
			return found, nil
		}
		wait := time.Hour
		if found.TTL > 0 {
			wait = found.TTL
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-closed:
			return driver.Value{}, driver.Fail(driver.Closed, nil)
		case <-ctx.Done():
			if s.bug == hidesAwaitError {
				return found, nil
			}
			return driver.Value{}, driver.Fail(driver.Unavailable, ctx.Err())
		}
	}
}

func (e *toyEngine) Count(ctx context.Context, steps []driver.Count) []driver.Counted {
	answers := make([]driver.Counted, len(steps))
	s := e.store
	for i := range steps {
		if s.bug == countsBackwards {
			i = len(steps) - 1 - i
		}
		if err := e.enter(ctx); err != nil && s.bug != countsClosed {
			answers[i] = driver.Counted{Err: err}
			continue
		}
		s.mu.Lock()
		name := steps[i].Name
		if s.bug == trimsCounterNames {
			name = strings.TrimRight(name, " ")
		}
		data := s.counts[name]
		if s.bug == countsInTwoSteps {
			s.mu.Unlock()
			time.Sleep(time.Microsecond)
			s.mu.Lock()
		}
		now := time.Now()
		if s.bug == countsByAnotherClock {
			now = time.Unix(0, 0)
		}
		step := steps[i]
		if s.bug == countsOnce {
			step.Times = 0
		}
		s.counts[name], _, answers[i] = step.Apply(data, now)
		s.mu.Unlock()
	}
	return answers
}
