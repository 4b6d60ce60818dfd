package drivertest

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// env is what a case works with: a store, and the words in which cases are written.
type env struct {
	T
	Harness
	store Store
	caps  driver.Capabilities
	clock driver.Clock

	// long is a TTL that does not run out during a case.
	long time.Duration
}

func newEnv(t T, h Harness) *env {
	x := &env{T: t, store: h.New(t)}
	x.caps = x.open().Capabilities()
	x.Harness = h.withDefaults(x.caps)
	x.long = max(x.TTL, min(60*x.Slack, x.caps.MaxTTL))
	x.clock = x.caps.Clock
	if x.clock == nil {
		x.clock = driver.BootClock()
	}
	return x
}

// open opens one more engine on the store and closes it when the case is over.
func (x *env) open() driver.Engine {
	e := x.store.Open()
	x.Cleanup(func() { e.Close() }) // a second Close may say what it likes
	return e
}

// name returns a name that nobody has used.
func (x *env) name() string { return "drivertest-" + rand.Text() }

// random returns a source of random numbers that a failing case can be repeated with.
func (x *env) random() *mathrand.Rand {
	seed := mathrand.Uint64()
	x.Logf("seed %d", seed)
	return mathrand.New(mathrand.NewPCG(seed, 0))
}

// modes returns the modes that the engine has.
func (x *env) modes() []driver.Mode {
	modes := []driver.Mode{driver.Exclusive}
	if x.caps.Shared {
		modes = append(modes, driver.Shared)
	}
	if x.caps.Upgradeable {
		modes = append(modes, driver.Upgradeable)
	}
	if x.caps.Permits {
		modes = append(modes, driver.Permits)
	}
	return modes
}

// request returns a request under a token of its own, for a share that outlives the case.
func (x *env) request(name string, mode driver.Mode) driver.Request {
	req := driver.Request{Name: name, Mode: mode, Owner: "drivertest", TTL: x.long, Span: 1}
	rand.Read(req.Token[:])
	if mode == driver.Permits {
		req.Weight, req.Limit = 1, 2
	}
	return req
}

func (x *env) exclusive(name string) driver.Request { return x.request(name, driver.Exclusive) }

// short returns a request for a share that runs out within the case.
func (x *env) short(name string, mode driver.Mode) driver.Request {
	req := x.request(name, mode)
	req.TTL = x.TTL
	return req
}

// weigh returns a request for weight of limit permits.
func (x *env) weigh(name string, weight, limit int) driver.Request {
	req := x.request(name, driver.Permits)
	req.Weight, req.Limit = weight, limit
	return req
}

// patience returns a context that ends when a call takes too long.
func (x *env) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), x.Slack)
}

// ask makes one call of Acquire.
func (x *env) ask(e driver.Engine, req driver.Request) (driver.Grant, error) {
	ctx, cancel := x.patience()
	defer cancel()
	return e.Acquire(ctx, req)
}

// take gets a share that has to be free.
func (x *env) take(e driver.Engine, req driver.Request) *share {
	x.Helper()
	g, err := x.ask(e, req)
	if err != nil {
		x.Fatalf("%v request for %q: %v, want a grant", req.Mode, req.Name, err)
	}
	return x.granted(e, req, g)
}

// refused asks for a share that has to be taken.
func (x *env) refused(e driver.Engine, req driver.Request) *driver.Error {
	x.Helper()
	return x.fails(e, req, driver.Held)
}

// fails makes a request that has to fail in one of the ways given.
func (x *env) fails(e driver.Engine, req driver.Request, kinds ...driver.Kind) *driver.Error {
	x.Helper()
	g, err := x.ask(e, req)
	return x.wantKind(err, "%v request for %q, granted %+v", []any{req.Mode, req.Name, g}, kinds...)
}

// wantKind ends the case unless err is of one of the kinds.
func (x *env) wantKind(err error, what string, args []any, kinds ...driver.Kind) *driver.Error {
	x.Helper()
	var d *driver.Error
	if errors.As(err, &d) {
		for _, k := range kinds {
			if d.Kind == k {
				return d
			}
		}
	}
	x.Fatalf(what+": error is %v, want kind %v", append(args, err, kinds)...)
	return nil
}

// wantLost ends the case unless err says that the share is gone.
func (x *env) wantLost(err error, when string) {
	x.Helper()
	x.wantKind(err, "renewal %s", []any{when}, driver.Lost)
}

// absent ends the case unless the token of req holds nothing.
func (x *env) absent(e driver.Engine, req driver.Request) {
	x.Helper()
	claim := req.Claim(driver.Grant{Fence: 1, FenceSpan: 1})
	x.wantKind(x.renewAll(e, claim)[0], "renewal of a share that was not granted", nil, driver.Lost, driver.NotHeld)
}

// share is what a case was granted.
type share struct {
	x      *env
	engine driver.Engine
	req    driver.Request
	grant  driver.Grant
}

// granted makes a share of g, which is given back at the end: other cases may use the server.
func (x *env) granted(e driver.Engine, req driver.Request, g driver.Grant) *share {
	s := &share{x: x, engine: e, req: req, grant: g}
	x.Cleanup(func() { s.tryRelease() })
	return s
}

func (s *share) claim() driver.Claim { return s.req.Claim(s.grant) }

// top is the highest fence number of the share.
func (s *share) top() int64 { return s.claim().Fence }

// end is until when the share lives at least without renewal.
func (s *share) end() driver.Instant { return s.grant.Sent.Add(s.grant.Lives(s.req.TTL)) }

func (s *share) tryRelease() error {
	ctx, cancel := s.x.patience()
	defer cancel()
	return s.engine.Release(ctx, s.claim())
}

// release gives back a share that has to be held.
func (s *share) release() {
	s.x.Helper()
	if err := s.tryRelease(); err != nil {
		s.x.Fatalf("release of a held %v share: %v", s.req.Mode, err)
	}
}

// renewFor asks for d from now on.
func (s *share) renewFor(d time.Duration) error {
	s.x.Helper()
	c := s.claim()
	c.TTL = d
	return s.x.renewAll(s.engine, c)[0]
}

func (s *share) renew() error {
	s.x.Helper()
	return s.renewFor(s.req.TTL)
}

// alive ends the case unless the share, which has time left, is renewed.
func (s *share) alive() {
	s.x.Helper()
	if err := s.renew(); err != nil {
		s.x.Fatalf("renewal of a held %v share: %v", s.req.Mode, err)
	}
}

// renewAll makes one call of Renew.
func (x *env) renewAll(e driver.Engine, claims ...driver.Claim) []error {
	x.Helper()
	ctx, cancel := x.patience()
	defer cancel()
	errs := e.Renew(ctx, claims)
	if len(errs) != len(claims) {
		x.Fatalf("Renew of %d claims returned %d errors", len(claims), len(errs))
	}
	return errs
}

// free ends the case unless name can be had this very moment.
func (x *env) free(e driver.Engine, name string) {
	x.Helper()
	x.take(e, x.exclusive(name)).release()
}

// taken ends the case unless somebody holds name.
func (x *env) taken(e driver.Engine, name string) {
	x.Helper()
	x.refused(e, x.exclusive(name))
}
