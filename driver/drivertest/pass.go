package drivertest

import "github.com/holdfast-go/holdfast/driver"

var passCases = []testCase{
	{
		name:     "pass",
		sentence: "give the share of the claim back as Release does and then try for the request as Acquire does",
		needs:    []ability{passer},
		run:      testPass,
	}, {
		name: "pass-line",
		sentence: "serve those who wait for the name before the request, which is then refused with " +
			"Held and leaves nothing behind",
		needs: []ability{passer},
		run:   testPassLine,
	}, {
		name: "pass-owner",
		sentence: "give nothing back for a token that holds nothing, answer NotHeld for it, and try " +
			"for the request all the same",
		needs: []ability{passer},
		run:   testPassOwner,
	}, {
		name:     "pass-close",
		sentence: "answer Closed for both after Close",
		needs:    []ability{passer},
		run:      testPassClose,
	},
}

// pass gives s back and tries for req.
func (s *share) pass(req driver.Request) (released error, g driver.Grant, err error) {
	ctx, cancel := s.x.patience()
	defer cancel()
	return s.engine.(driver.Passer).Pass(ctx, s.claim(), req)
}

// passed is pass where both have to succeed.
func (s *share) passed(req driver.Request) *share {
	s.x.Helper()
	released, g, err := s.pass(req)
	if released != nil || err != nil {
		s.x.Fatalf("a held share passed on to a %v request: release %v, request %v", req.Mode, released, err)
	}
	return s.x.granted(s.engine, req, g)
}

func testPass(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		s := x.take(a, x.exclusive(name))
		for range 10 {
			req := x.exclusive(name)
			req.Span = 5
			before := x.clock.Now()
			next := s.passed(req)
			if n := next.grant.FenceSpan; next.grant.Fence <= s.top() || n < 1 || n > 5 || next.grant.Sent < before {
				x.Fatalf("passed on at %v after %+v: %+v", before, s.grant, next.grant)
			}
			s.notHeld()
			s = next
			s.alive()
			x.taken(b, name)
		}
		last := s.passed(x.request(name, mode))
		last.alive()
		x.taken(b, name)
		last.release()
		x.free(b, name)
	}
}

func testPassLine(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		s := x.take(a, x.exclusive(name))
		waits := x.queue(b, x.exclusive(name))
		req := x.request(name, mode)
		released, _, err := s.pass(req)
		if released != nil {
			x.Fatalf("release of a held share that was to be passed on: %v", released)
		}
		x.wantKind(err, "a %v request behind one that waits", []any{mode}, driver.Held)
		first := waits.granted()
		first.alive()
		x.absent(a, req)
		first.release()
		x.free(a, name)
	}
}

func testPassOwner(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	s := x.take(a, x.exclusive(name))
	s.release()
	other := x.take(b, x.exclusive(name))
	released, _, err := s.pass(x.exclusive(name))
	x.wantKind(released, "release by a token that holds nothing", nil, driver.NotHeld)
	x.wantKind(err, "request for what another holds", nil, driver.Held)
	other.alive()
	x.taken(a, name)
	other.release()

	req := x.exclusive(name)
	released, g, err := s.pass(req)
	x.wantKind(released, "release of what is free", nil, driver.NotHeld)
	if err != nil {
		x.Fatalf("request for what is free: %v", err)
	}
	next := x.granted(a, req, g)
	next.alive()
	next.release()
}

func testPassClose(x *env) {
	e := x.open()
	s := x.take(e, x.exclusive(x.name()))
	if err := e.Close(); err != nil {
		x.Fatalf("Close: %v", err)
	}
	released, _, err := s.pass(x.exclusive(s.req.Name))
	x.wantKind(released, "release after Close", nil, driver.Closed)
	x.wantKind(err, "request after Close", nil, driver.Closed)
}
