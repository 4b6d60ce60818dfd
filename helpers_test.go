package holdfast_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// newClient returns a client on an engine of its own.
func newClient(tb testing.TB, cfg holdfast.Config) *holdfast.Client {
	tb.Helper()
	return clientOn(tb, memlock.New(memlock.Config{}), cfg)
}

// clientOn returns a client on engine that is closed when the test ends.
func clientOn(tb testing.TB, engine driver.Engine, cfg holdfast.Config) *holdfast.Client {
	tb.Helper()
	c, err := holdfast.New(engine, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// twoClients returns two clients on one store, as two processes are on one server.
func twoClients(tb testing.TB, cfg holdfast.Config) (*memlock.Store, *holdfast.Client, *holdfast.Client) {
	tb.Helper()
	store := memlock.NewStore(memlock.Config{})
	return store, clientOn(tb, store.Engine(), cfg), clientOn(tb, store.Engine(), cfg)
}

func mustLock(tb testing.TB, m *holdfast.Mutex) *holdfast.Lease {
	tb.Helper()
	l, err := m.Lock(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func mustUnlock(tb testing.TB, l *holdfast.Lease) {
	tb.Helper()
	if err := l.Unlock(); err != nil {
		tb.Fatal(err)
	}
}

// want fails unless err matches every target.
func want(tb testing.TB, err error, targets ...error) {
	tb.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			tb.Fatalf("error is %v, want it to match %v", err, target)
		}
	}
}

// spy is an engine that counts the calls to another, and whose calls a test can change: a
// function that is set is called in their place, and may call next.
type spy struct {
	driver.Engine
	caps                                  func(*driver.Capabilities)
	acquires, renewals, renewed, releases atomic.Int64

	mu      sync.Mutex
	acquire func(context.Context, driver.Request, func() (driver.Grant, error)) (driver.Grant, error)
	renew   func(context.Context, []driver.Claim, func() []error) []error
	release func(context.Context, driver.Claim, func() error) error
}

func newSpy() *spy { return &spy{Engine: memlock.New(memlock.Config{})} }

func (s *spy) onAcquire(f func(context.Context, driver.Request, func() (driver.Grant, error)) (driver.Grant, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquire = f
}

func (s *spy) onRenew(f func(context.Context, []driver.Claim, func() []error) []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = f
}

func (s *spy) onRelease(f func(context.Context, driver.Claim, func() error) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release = f
}

func (s *spy) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	s.acquires.Add(1)
	s.mu.Lock()
	f := s.acquire
	s.mu.Unlock()
	next := func() (driver.Grant, error) { return s.Engine.Acquire(ctx, req) }
	if f == nil {
		return next()
	}
	return f(ctx, req, next)
}

func (s *spy) Renew(ctx context.Context, claims []driver.Claim) []error {
	s.renewals.Add(1)
	s.renewed.Add(int64(len(claims)))
	s.mu.Lock()
	f := s.renew
	s.mu.Unlock()
	next := func() []error { return s.Engine.Renew(ctx, claims) }
	if f == nil {
		return next()
	}
	return f(ctx, claims, next)
}

func (s *spy) Release(ctx context.Context, c driver.Claim) error {
	s.releases.Add(1)
	s.mu.Lock()
	f := s.release
	s.mu.Unlock()
	next := func() error { return s.Engine.Release(ctx, c) }
	if f == nil {
		return next()
	}
	return f(ctx, c, next)
}

func (s *spy) Capabilities() driver.Capabilities {
	caps := s.Engine.Capabilities()
	if s.caps != nil {
		s.caps(&caps)
	}
	return caps
}

func failAll(claims []driver.Claim, err error) []error {
	errs := make([]error, len(claims))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

var errNoReply = &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: errors.New("no reply")}

// sleepyClock is a clock that can jump without its timers noticing, as CLOCK_BOOTTIME does
// when the machine was suspended.
type sleepyClock struct {
	driver.Clock
	slept atomic.Int64
}

func (c *sleepyClock) Now() driver.Instant {
	return c.Clock.Now().Add(time.Duration(c.slept.Load()))
}

func (c *sleepyClock) suspend(d time.Duration) { c.slept.Add(int64(d)) }
