package drivertest

import (
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var lifetimeCases = []testCase{
	{
		name:     "ttl",
		sentence: "free a share that was not renewed for its TTL",
		needs:    []ability{expires},
		run:      testTTL,
	}, {
		name:     "ttl-kept",
		sentence: "not free it earlier than TTL, or a shorter Grant.TTL, after Grant.Sent, nor after a renewal for less than the TTL renewed",
		needs:    []ability{expires},
		run:      testTTLKept,
	}, {
		name:     "renew",
		sentence: "answer nil for a claim whose token holds its share, and count its TTL from then on",
		run:      testRenew,
	}, {
		name:     "renew-order",
		sentence: "answer one error a claim, in the order of the claims, one failure not touching the others",
		run:      testRenewOrder,
	}, {
		name:     "renew-lost",
		sentence: "answer Lost for a claim whose share is gone, and never take it back, though it be free",
		run:      testRenewLost,
	}, {
		name:     "renew-foreign",
		sentence: "never prolong the share of another token",
		run:      testRenewForeign,
	},
}

// after returns the instant d from now.
func (x *env) after(d time.Duration) driver.Instant { return x.clock.Now().Add(d) }

func testTTL(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		x.take(a, x.short(name, mode))
		x.freed(b, x.exclusive(name), anyTime, x.after(x.TTL)).release()

		// A renewal moves the end, and the share ends all the same.
		s := x.take(a, x.short(name, mode))
		if s.renew() == nil {
			x.freed(b, x.exclusive(name), anyTime, x.after(x.TTL)).release()
		}
	}
	if !x.caps.Shared {
		return
	}
	// One dead reader among living ones.
	name := x.name()
	alive := x.take(a, x.request(name, driver.Shared))
	x.take(a, x.short(name, driver.Shared))
	x.pass(x.TTL)
	alive.alive()
	alive.release()
	x.freed(b, x.exclusive(name), anyTime, x.clock.Now())
}

func testTTLKept(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		s := x.take(a, x.short(name, mode))
		x.freed(b, x.exclusive(name), s.end(), s.end()).release()

		x.attempts(func() bool {
			s := x.take(a, x.short(name, mode))
			end := s.end()
			for _, ttl := range []time.Duration{x.TTL, 3 * x.TTL, 2 * x.TTL} {
				x.pass(x.TTL / 2)
				before := x.clock.Now()
				if err := s.renewFor(ttl); err != nil {
					if late := x.clock.Now() >= end; late {
						return false
					}
					x.Fatalf("renewal with %v to go: %v", end.Sub(x.clock.Now()), err)
				}
				end = before.Add(ttl)
			}
			x.freed(b, x.exclusive(name), end, end).release()
			return true
		})
	}
}

func testRenew(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		x.attempts(func() bool {
			name := x.name()
			req := x.request(name, mode)
			if x.caps.Expires {
				req.TTL = x.TTL
			}
			s := x.take(a, req)
			end := s.end()
			for range 12 { // four TTLs in all
				x.pass(x.TTL / 3)
				before := x.clock.Now()
				err := s.renew()
				_, taken := x.ask(b, x.exclusive(name))
				late := x.caps.Expires && x.clock.Now() >= min(end, before.Add(x.TTL))
				if late {
					return false
				}
				if err != nil {
					x.Fatalf("renewal of a held %v share: %v", mode, err)
				}
				x.wantKind(taken, "request for a share that is renewed", nil, driver.Held)
				end = before.Add(x.TTL)
			}
			return true
		})
	}
}

func testRenewOrder(x *env) {
	a, b := x.open(), x.open()
	rng := x.random()
	ctx, cancel := x.patience()
	defer cancel()
	if errs := a.Renew(ctx, nil); len(errs) != 0 {
		x.Errorf("Renew of no claims returned %v", errs)
	}
	modes := x.modes()
	var claims []driver.Claim
	var gone []bool
	for i := range 40 {
		s := x.take(a, x.request(x.name(), modes[i%len(modes)]))
		claims, gone = append(claims, s.claim()), append(gone, i < 3 || rng.IntN(3) == 0)
		if gone[i] {
			s.release()
		}
		if gone[i] && rng.IntN(2) == 0 {
			x.take(b, x.exclusive(s.req.Name))
		}
	}
	rng.Shuffle(len(claims), func(i, j int) {
		claims[i], claims[j] = claims[j], claims[i]
		gone[i], gone[j] = gone[j], gone[i]
	})
	for i, err := range x.renewAll(a, claims...) {
		if gone[i] {
			x.wantLost(err, "of a share that is gone, amid others")
		} else if err != nil {
			x.Fatalf("renewal of a held share, amid others that are gone: %v", err)
		}
	}
}

func testRenewLost(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		s := x.take(a, x.request(name, mode))
		s.release()
		x.wantLost(s.renew(), "after the release")
		x.free(b, name)
		next := x.take(b, x.exclusive(name))
		x.wantLost(s.renew(), "after the release, held by another")
		next.alive()
		next.release()
		x.free(b, name)
		if !x.caps.Expires {
			continue
		}

		s = x.take(a, x.short(name, mode))
		next = x.freed(b, x.exclusive(name), anyTime, s.end())
		x.wantLost(s.renew(), "of a share that ran out, held by another")
		next.alive()
		next.release()
		x.wantLost(s.renew(), "of a share that ran out and is free")
		x.free(b, name)

		// Nobody took this one: the renewal itself has to see that it is over.
		s = x.take(a, x.short(name, mode))
		end := x.after(x.TTL + x.caps.Resolution)
		x.pass(x.TTL + x.TTL/2)
		if !x.eventually(end, func() bool { return s.renewFor(x.caps.MinTTL) != nil }) {
			x.Fatalf("renewal of a %v share that ran out was answered with success", mode)
		}
		x.free(b, name)
	}
}

func testRenewForeign(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		owner := x.request(name, mode)
		if x.caps.Expires {
			owner.TTL = x.TTL
		}
		s := x.take(a, owner)
		foreign := s.claim()
		foreign.Token, foreign.TTL = x.request(name, mode).Token, x.long
		for _, e := range []driver.Engine{a, b} {
			x.wantKind(x.renewAll(e, foreign)[0], "renewal under a foreign token", nil, driver.Lost, driver.NotHeld)
		}
		if x.caps.Expires {
			x.freed(b, x.exclusive(name), s.end(), s.end()).release()
			continue
		}
		x.taken(b, name)
	}
}
