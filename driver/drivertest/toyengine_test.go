package drivertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// toyEngine is one user of a toyStore.
type toyEngine struct {
	store  *toyStore
	closed chan struct{}
	once   sync.Once
	sent   driver.Instant // when the engine was opened
	warm   bool           // guarded by the store: it has been called before
	freed  map[driver.Token]bool
	async  sync.WaitGroup // answers under way
}

var _ interface {
	driver.AsyncReleaser
	driver.Passer
	driver.Inspector
	driver.Values
	driver.Counters
} = (*toyEngine)(nil)

func (e *toyEngine) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		Engine: "toy", Scope: driver.Process, Safety: "none", FenceSource: "a counter",
		Shared: true, Upgradeable: true, Permits: true, Expires: true, FIFO: true,
		Holders: true, MinTTL: time.Millisecond, MaxTTL: time.Hour, DefaultTTL: time.Second,
		MaxPermits: 1 << 20, Clock: e.store.clock,
	}
}

func (e *toyEngine) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	s := e.store
	s.mu.Lock()
	defer s.mu.Unlock()
	cold := !e.warm
	e.warm = true
	for waited := false; ; waited = true {
		sent := s.clock.Now()
		g, err := e.attempt(&req, sent)
		if err != errWait {
			return e.reply(ctx, &req, g, err, cold, waited)
		}
		if err := e.sleep(ctx, &req); err != nil {
			return driver.Grant{}, err
		}
		if n := s.at(req.Name); !req.Upgrade && !slices.Contains(n.queue, req.Token) && n.find(req.Token) == nil {
			return driver.Grant{}, driver.Failf(driver.NotHeld, "the request was withdrawn")
		}
	}
}

// errWait says that a request is in line.
var errWait = driver.Failf(driver.Held, "waits")

// attempt grants, refuses or queues req.
func (e *toyEngine) attempt(req *driver.Request, sent driver.Instant) (driver.Grant, error) {
	s := e.store
	n := s.at(req.Name)
	held := n.find(req.Token)
	switch {
	case req.Upgrade && held == nil:
		return driver.Grant{}, driver.Fail(driver.Lost, nil)
	case n.mismatch(req) && s.bug != ignoresLimit:
		return driver.Grant{}, driver.Failf(driver.Invalid, "another limit is in use")
	case held != nil && held.Mode == req.Mode && s.bug == refusesRetry:
		return driver.Grant{}, driver.Fail(driver.Held, nil)
	case held != nil && held.Mode == req.Mode:
		return s.grant(n, req, sent), nil
	}
	free := s.fits(n, req) && s.myTurn(n, req)
	if s.bug == checksThenActs && req.Mode == driver.Exclusive {
		// Long enough for others to see the name free as well.
		s.mu.Unlock()
		time.Sleep(time.Microsecond)
		s.mu.Lock()
	}
	if free {
		return s.grant(n, req, sent), nil
	}
	if req.Wait || s.bug == queuesTries {
		n.join(req)
	}
	if req.Wait {
		return driver.Grant{}, errWait
	}
	if req.Upgrade && s.bug == dropsFailedUpgrade {
		n.drop(req.Token)
	}
	refusal := driver.Fail(driver.Held, nil)
	if len(n.shares) > 0 {
		h := s.holder(&n.shares[0])
		if s.bug == namesAsker {
			h.Owner = req.Owner
		}
		refusal.Holder = &h
	}
	return driver.Grant{}, refusal
}

// reply spoils the answer where the bug is in how it travels. The store is locked.
func (e *toyEngine) reply(ctx context.Context, req *driver.Request, g driver.Grant, err error, cold, waited bool) (driver.Grant, error) {
	s := e.store
	late := func() {
		s.mu.Unlock()
		time.Sleep(s.lateness(req.TTL))
		s.mu.Lock()
		g.Sent = s.clock.Now()
	}
	switch {
	case err != nil:
	case s.bug == readsSentLate && cold, s.bug == trustsWakeUp && waited:
		late()
	case s.bug == readsSentEarly:
		g.Sent = e.sent
	case s.bug == losesGrantOnCancel && waited && ctx.Err() != nil:
		return driver.Grant{}, driver.Fail(driver.Unavailable, ctx.Err())
	}
	return g, err
}

// sleep waits until it is worth while to try again. The store is locked before and after.
func (e *toyEngine) sleep(ctx context.Context, req *driver.Request) error {
	s := e.store
	if s.bug == missesArrivals { // what changes in between wakes nobody
		s.mu.Unlock()
		time.Sleep(time.Microsecond)
		s.mu.Lock()
	}
	n := s.at(req.Name)
	now := s.clock.Now()
	next := now.Add(time.Hour)
	for i := range n.shares {
		if until := n.shares[i].until; until > now && s.bug != sleepsThroughExpiry {
			next = min(next, until)
		}
	}
	changed, closed := n.changed, e.closed
	if s.bug == leavesWaiter {
		closed = nil
	}
	s.mu.Unlock()
	var err error
	timer := time.NewTimer(next.Sub(now))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-closed:
		err = driver.Fail(driver.Closed, nil)
	case <-ctx.Done():
		err = driver.Fail(driver.Held, ctx.Err())
		switch s.bug {
		case hidesContextError:
			err = driver.Failf(driver.Held, "interrupted")
		case blamesEngine:
			err = driver.Fail(driver.Unavailable, ctx.Err())
		}
	}
	s.mu.Lock()
	if err == nil {
		return nil
	}
	if s.bug == abandonsWaiter && !req.Upgrade {
		go e.haunt(*req)
		return err
	}
	n.leave(req.Token)
	if req.Upgrade && s.bug == dropsCancelledUpgrade {
		n.drop(req.Token)
	}
	n.wake()
	return err
}

// haunt goes on waiting for a request that nobody makes any more.
func (e *toyEngine) haunt(req driver.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	for ctx.Err() == nil {
		if _, err := e.attempt(&req, 0); err != errWait {
			return
		}
		n := e.store.at(req.Name)
		changed := n.changed
		e.store.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		e.store.mu.Lock()
	}
	e.store.at(req.Name).leave(req.Token)
}

func (e *toyEngine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	for i := range claims {
		errs[i] = e.renew(ctx, &claims[i])
		if errs[i] != nil && e.store.bug == stopsAtFailure {
			for i++; i < len(claims); i++ {
				errs[i] = driver.Fail(driver.Lost, nil)
			}
			return errs
		}
	}
	if e.store.bug == reversesErrors {
		slices.Reverse(errs)
	}
	return errs
}

func (e *toyEngine) renew(ctx context.Context, c *driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	s := e.store
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(c.Name)
	sh := n.find(c.Token)
	if sh == nil && s.bug == renewsForeign && len(n.shares) > 0 {
		n.shares[0].until = s.clock.Now().Add(c.TTL)
	}
	if sh == nil && s.bug == revives && len(n.shares) == 0 {
		n.shares = append(n.shares, toyShare{Claim: *c, first: c.Fence})
		sh = &n.shares[0]
	}
	switch {
	case sh == nil && s.bug == hidesBreak && n.broken(c):
		return nil
	case sh == nil:
		return driver.Fail(driver.Lost, nil)
	case s.bug == renewsNothing:
		return nil
	}
	sh.until = s.clock.Now().Add(c.TTL)
	return nil
}

func (e *toyEngine) Release(ctx context.Context, c driver.Claim) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	s := e.store
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(c.Name)
	held := n.find(c.Token) != nil
	again := e.freed[c.Token]
	if e.freed == nil {
		e.freed = make(map[driver.Token]bool)
	}
	e.freed[c.Token] = true
	if s.bug != keepsWaiting {
		n.leave(c.Token)
	}
	switch {
	case !held && s.bug == releasesAnybody && !again, again && s.bug == repeatsRelease:
		n.shares = nil
	case held && s.bug == releasesReaders && c.Mode != driver.Exclusive:
		n.shares = nil
	case held && s.bug == releasesLater:
		go func() {
			time.Sleep(time.Microsecond)
			s.mu.Lock()
			defer s.mu.Unlock()
			n.drop(c.Token)
			n.wake()
		}()
		return nil
	}
	n.drop(c.Token)
	if s.bug != wakesNobody {
		n.wake()
	}
	if !held {
		return driver.Fail(driver.NotHeld, nil)
	}
	return nil
}

// ReleaseAsync is a release whose answer comes from another goroutine.
func (e *toyEngine) ReleaseAsync(c driver.Claim, done func(error)) {
	release := func() error { return e.Release(context.Background(), c) }
	switch e.store.bug {
	case forgetsAsync:
		release = func() error { return nil }
	case overtakesAsync:
		e.async.Go(func() {
			time.Sleep(time.Millisecond)
			done(release())
		})
		return
	case closesBeforeAsync:
		go func() {
			time.Sleep(time.Millisecond)
			done(release())
		}()
		return
	}
	err := release()
	e.async.Go(func() { done(err) })
}

// Pass is a release and a try. Who waits is not asked in between, and keeps its turn.
func (e *toyEngine) Pass(ctx context.Context, c driver.Claim, req driver.Request) (released error, g driver.Grant, err error) {
	s := e.store
	s.mu.Lock()
	held := s.at(c.Name).find(c.Token) != nil
	switch {
	case s.bug == passesAnybodys && !held:
		s.at(c.Name).shares = nil
	case s.bug == passesAhead && held, s.bug == passesClosed && e.enter(ctx) != nil:
		defer s.mu.Unlock()
		s.at(c.Name).drop(c.Token)
		return nil, s.grant(s.at(c.Name), &req, s.clock.Now()), nil
	}
	s.mu.Unlock()
	if s.bug != passesNothingBack {
		released = e.Release(ctx, c)
	}
	g, err = e.Acquire(ctx, req)
	return released, g, err
}

func (e *toyEngine) Close() error {
	e.once.Do(func() { close(e.closed) })
	e.async.Wait()
	return nil
}

func (e *toyEngine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	return e.store.info(name, e.store.at(name)), nil
}

func (e *toyEngine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	infos := e.store.list(prefix)
	return infos[:min(limit, len(infos))], nil
}

func (e *toyEngine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	s := e.store
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.at(req.Name)
	info := s.info(req.Name, n)
	holds := func(sh toyShare) bool { return sh.first <= req.Fence && req.Fence <= sh.Fence }
	switch {
	case len(n.shares) == 0:
		return info, driver.Fail(driver.NotHeld, nil)
	case req.Fence != 0 && !slices.ContainsFunc(n.shares, holds) && s.bug != breaksAnyFence:
		return info, driver.Fail(driver.Stale, nil)
	case s.bug == breaksOne:
		n.shares = n.shares[1:]
	case s.bug == hidesBreak:
		n.gone, n.shares = append(n.gone, n.shares...), nil
	default:
		n.shares = nil
	}
	if s.bug == fenceAnewAfterBreak {
		s.fence = 0
	}
	n.wake()
	return info, nil
}
