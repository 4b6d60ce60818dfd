package drivertest

import (
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var releaseCases = []testCase{
	{
		name:     "release",
		sentence: "free the share for everybody before returning nil",
		run:      testRelease,
	}, {
		name:     "release-owner",
		sentence: "answer NotHeld, and free nothing, when the token holds nothing",
		run:      testReleaseOwner,
	}, {
		name:     "release-repeat",
		sentence: "answer a repeated release the same way, whoever holds the name by then",
		run:      testReleaseRepeat,
	}, {
		name:     "release-one",
		sentence: "leave the other shares of the name alone",
		run:      testReleaseOne,
	}, {
		name:     "release-withdraws",
		sentence: "withdraw a request of that token that still waits",
		run:      testReleaseWithdraws,
	},
}

// notHeld ends the case unless a release of s finds nothing to give back.
func (s *share) notHeld() {
	s.x.Helper()
	s.x.wantKind(s.tryRelease(), "release by a token that holds nothing", nil, driver.NotHeld)
}

func testRelease(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		for range 10 {
			name := x.name()
			x.take(a, x.request(name, mode)).release()
			x.take(b, x.exclusive(name)).release()
			x.take(a, x.request(name, mode)).release()
			x.free(a, name)
		}
	}
}

func testReleaseOwner(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		nobody := &share{x: x, engine: a, req: x.request(name, mode), grant: driver.Grant{Fence: 1, FenceSpan: 1}}
		nobody.notHeld()
		s := x.take(b, x.request(name, mode))
		nobody.grant = s.grant // all but the token is the owner's
		nobody.notHeld()
		nobody.engine = b
		nobody.notHeld()
		s.alive()
		x.taken(a, name)
		s.release()

		if x.caps.Expires {
			dead := x.take(a, x.short(name, mode))
			next := x.freed(b, x.exclusive(name), anyTime, dead.end())
			dead.notHeld()
			next.alive()
			x.taken(a, name)
		}
	}
}

func testReleaseRepeat(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		s := x.take(a, x.request(name, mode))
		s.release()
		s.notHeld() // nobody holds the name
		next := x.take(b, x.exclusive(name))
		s.notHeld()
		s.notHeld()
		x.taken(a, name)
		next.alive()
		next.release()
		next = x.take(a, x.request(name, mode)) // the same engine, another token
		s.notHeld()
		x.taken(b, name)
		next.alive()
	}
}

func testReleaseOne(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		if mode == driver.Exclusive || mode == driver.Upgradeable && !x.caps.Shared {
			continue // is alone anyway
		}
		name := x.name()
		first := x.take(a, x.request(name, mode))
		other := x.request(name, mode)
		if mode == driver.Upgradeable {
			other.Mode = driver.Shared
		}
		second := x.take(a, other)
		first.release()
		second.alive()
		x.taken(b, name)
		second.release()
		x.free(b, name)
	}
	// Another name is another share.
	one, two := x.take(a, x.exclusive(x.name())), x.take(a, x.exclusive(x.name()))
	one.release()
	two.alive()
	x.taken(b, two.req.Name)
}

func testReleaseWithdraws(x *env) {
	a, b, c := x.open(), x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		holder := x.take(a, x.exclusive(name))
		waiting := x.queue(b, x.request(name, mode))
		var behind *pending
		if x.caps.FIFO {
			behind = x.queue(c, x.exclusive(name))
		}
		withdrawn := &share{x: x, engine: b, req: waiting.req, grant: driver.Grant{Fence: 1, FenceSpan: 1}}
		if err := withdrawn.tryRelease(); err != nil {
			x.wantKind(err, "release by a token that waits", nil, driver.NotHeld)
		}
		x.taken(c, name) // the holder's share is not what was given up

		// The call itself may end, or ask anew. Then it has lost its place.
		waiting.over(x.Pause)
		if behind != nil {
			holder.release()
			holder = behind.granted()
			x.absent(b, waiting.req)
		}
		waiting.cancel()
		waiting.ended()
		holder.release()
		x.free(a, name)
		time.Sleep(x.Pause)
		x.free(c, name)
	}
}
