package drivertest

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var asyncCases = []testCase{
	{
		name: "async-release",
		sentence: "give the share back as Release does, without being called again, and call " +
			"done once with what Release would have answered",
		needs: []ability{asyncReleaser},
		run:   testAsyncRelease,
	}, {
		name:     "async-order",
		sentence: "not let a later request for the name through the same engine overtake the release",
		needs:    []ability{asyncReleaser},
		run:      testAsyncOrder,
	}, {
		name:     "async-close",
		sentence: "call done before Close returns",
		needs:    []ability{asyncReleaser},
		run:      testAsyncClose,
	},
}

// releaseAsync begins to give s back and returns where the answer arrives.
func (s *share) releaseAsync() <-chan error {
	answer := make(chan error, 2)
	s.engine.(driver.AsyncReleaser).ReleaseAsync(s.claim(), func(err error) { answer <- err })
	return answer
}

// answered waits for the answer to a release.
func (x *env) answered(answer <-chan error) error {
	x.Helper()
	select {
	case err := <-answer:
		return err
	case <-time.After(x.Slack):
		x.Fatalf("a release was not answered within %v", x.Slack)
		return nil
	}
}

func testAsyncRelease(x *env) {
	a, b := x.open(), x.open()
	for _, mode := range x.modes() {
		name := x.name()
		s := x.take(a, x.request(name, mode))
		answer := s.releaseAsync()
		if err := x.answered(answer); err != nil {
			x.Fatalf("release: %v", err)
		}
		next := x.take(b, x.exclusive(name))
		x.wantKind(x.answered(s.releaseAsync()), "release by a token that holds nothing", nil, driver.NotHeld)
		x.taken(a, name)
		next.release()
		time.Sleep(x.Pause)
		if len(answer) > 0 {
			x.Errorf("a release was answered twice")
		}
	}
}

func testAsyncOrder(x *env) {
	e := x.open()
	name := x.name()
	s := x.take(e, x.exclusive(name))
	for range 100 {
		answer := s.releaseAsync()
		s = x.take(e, x.exclusive(name)) // is refused when it arrives before the release
		if err := x.answered(answer); err != nil {
			x.Fatalf("release: %v", err)
		}
	}
	s.release()
}

func testAsyncClose(x *env) {
	e := x.open()
	const n = 20
	var held []*share
	for range n {
		held = append(held, x.take(e, x.exclusive(x.name())))
	}
	var answers atomic.Int64
	for _, s := range held {
		e.(driver.AsyncReleaser).ReleaseAsync(s.claim(), func(error) { answers.Add(1) })
	}
	if err := e.Close(); err != nil {
		x.Fatalf("Close: %v", err)
	}
	if got := answers.Load(); got != n {
		x.Errorf("%d of %d releases were answered when Close returned", got, n)
	}
}
