package holdfast_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// relay is a spy that can pass shares on. It notes its calls: a for an acquire, p for a pass,
// r for a release.
type relay struct {
	*spy
	mu    sync.Mutex
	calls strings.Builder
	asked []driver.Request // of passes
	given []driver.Claim   // the same

	// on is called in place of a pass, if it is set.
	on func(ctx context.Context, c driver.Claim, next func() (error, driver.Grant, error)) (error, driver.Grant, error)
}

func newRelay() *relay { return relayOn(memlock.New(memlock.Config{})) }

func relayOn(e driver.Engine) *relay { return &relay{spy: &spy{Engine: e}} }

func (r *relay) note(call byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls.WriteByte(call)
}

// called returns the calls since it was last asked.
func (r *relay) called() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.calls.String()
	r.calls.Reset()
	return s
}

func (r *relay) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	r.note('a')
	return r.spy.Acquire(ctx, req)
}

func (r *relay) Release(ctx context.Context, c driver.Claim) error {
	r.note('r')
	return r.spy.Release(ctx, c)
}

func (r *relay) Pass(ctx context.Context, c driver.Claim, req driver.Request) (error, driver.Grant, error) {
	r.note('p')
	r.mu.Lock()
	on := r.on
	r.asked, r.given = append(r.asked, req), append(r.given, c)
	r.mu.Unlock()
	next := func() (error, driver.Grant, error) {
		released := r.Engine.Release(ctx, c)
		g, err := r.Engine.Acquire(ctx, req)
		return released, g, err
	}
	if on == nil {
		return next()
	}
	return on(ctx, c, next)
}

// passing is a lock that is being passed on: the pass has arrived at the engine and is held up
// until the test lets it go on.
type passing struct {
	t       *testing.T
	engine  *relay
	client  *holdfast.Client
	other   *holdfast.Client // another process
	release chan func(next func() (error, driver.Grant, error)) (error, driver.Grant, error)
	holder  *holdfast.Lease
	unlock  chan error // what the holder's Unlock returned
}

func newPassing(t *testing.T, cfg holdfast.Config) *passing {
	store := memlock.NewStore(memlock.Config{})
	p := &passing{t: t, engine: relayOn(store.Engine()), unlock: make(chan error, 1)}
	p.release = make(chan func(func() (error, driver.Grant, error)) (error, driver.Grant, error))
	p.engine.caps = func(c *driver.Capabilities) { c.Scope = driver.Machine } // a grant may be late
	p.engine.on = func(_ context.Context, _ driver.Claim, next func() (error, driver.Grant, error)) (error, driver.Grant, error) {
		return (<-p.release)(next)
	}
	p.client, p.other = clientOn(t, p.engine, cfg), clientOn(t, store.Engine(), holdfast.Config{})
	p.holder = mustLock(t, p.client.Mutex("x"))
	return p
}

// lock lets a goroutine wait for the lock.
func (p *passing) lock(ctx context.Context, m *holdfast.Mutex) chan result {
	done := make(chan result, 1)
	go func() {
		l, err := m.Lock(ctx)
		done <- result{l, err}
	}()
	synctest.Wait()
	return done
}

type result struct {
	lease *holdfast.Lease
	err   error
}

// begin gives the lock back, and returns when the pass is under way.
func (p *passing) begin() {
	p.t.Helper()
	p.engine.called()
	go func() { p.unlock <- p.holder.Unlock() }()
	synctest.Wait()
	if got := p.engine.called(); got != "p" {
		p.t.Fatalf("the calls of Unlock were %q, want one pass", got)
	}
}

// end lets the pass go on, and tells what Unlock said.
func (p *passing) end(f func(next func() (error, driver.Grant, error)) (error, driver.Grant, error)) error {
	p.release <- f
	return <-p.unlock
}

func goOn(next func() (error, driver.Grant, error)) (error, driver.Grant, error) { return next() }

// isFree fails unless another process gets the lock.
func (p *passing) isFree() {
	p.t.Helper()
	synctest.Wait()
	l, err := p.other.Mutex("x").TryLock(p.t.Context())
	if err != nil {
		p.t.Fatalf("nobody has the lock, and yet: %v", err)
	}
	mustUnlock(p.t, l)
	if holdfast.InUseForTest(p.client, "x") {
		p.t.Error("the name is in use, and nobody uses it")
	}
}

// calls fails unless these were the calls since the pass.
func (p *passing) calls(want string) {
	p.t.Helper()
	synctest.Wait()
	if got := p.engine.called(); got != want {
		p.t.Errorf("the calls after the pass were %q, want %q", got, want)
	}
}

func (p *passing) unlocked(r result) {
	p.t.Helper()
	if r.err != nil {
		p.t.Fatal(r.err)
	}
	mustUnlock(p.t, r.lease)
}
