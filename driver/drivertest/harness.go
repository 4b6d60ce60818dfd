// Package drivertest is the conformance suite for engines of holdfast.
//
// The contract of an engine is a list of named sentences in package driver. This package has
// one case of that name for each. An engine's own test describes the engine in a [Harness]
// and hands it to [Run]:
//
//	func TestConformance(t *testing.T) {
//		drivertest.Run(t, drivertest.Harness{
//			New: func(t drivertest.T) drivertest.Store {
//				store := memlock.NewStore(memlock.Config{})
//				return drivertest.Store{Open: func() driver.Engine { return store.Engine() }}
//			},
//			TTL: 100 * time.Millisecond,
//		})
//	}
//
// Cases use what the engine declares in its Capabilities and no more. What was skipped for
// the lack of an ability is printed in one table at the end.
//
// No case asserts that something is fast. A case fails because something happened that must
// not happen, or because something that must happen did not within [Harness.Slack].
package drivertest

import (
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// T is the part of *testing.T that cases use. *testing.B has it as well.
type T interface {
	Helper()
	Name() string
	TempDir() string
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Harness describes an engine to [Run] and [Benchmark].
type Harness struct {
	// New prepares what one case works on. Cases draw random names, so that stores may lie
	// on one server; only [names] takes short names such as ".." as well and wants them to
	// itself. Required.
	New func(t T) Store

	// TTL is the shortest TTL that works well on the engine, for the cases in which shares
	// run out. A machine that sleeps for longer than this in the middle of a case makes it
	// start again. Default: the engine's MinTTL.
	TTL time.Duration

	// Slack is how late things may be on a busy machine: how long a case waits for what has
	// to happen. It takes time only when something is wrong. Default: 10 s.
	Slack time.Duration

	// Pause is how long a case watches for what must not happen, and how long a request is
	// given to join the queue of an engine that cannot count its waiters. Default: 20 ms.
	Pause time.Duration

	// Rounds is how often the cases about races try. Default: 1000.
	Rounds int

	// FakeTime runs every case in a bubble of testing/synctest. It is for engines that live
	// within the process and are timed by the time package.
	FakeTime bool
}

// Store is what several engines share, as several processes share a server.
type Store struct {
	// Open opens one more engine, as one more process would. The case closes it. Goroutines
	// that Open starts count as the engine's own. Required.
	Open func() driver.Engine

	// Advance lets d pass, for engines whose clock is moved by hand. Default: time.Sleep.
	Advance func(d time.Duration)
}

func (h Harness) withDefaults(caps driver.Capabilities) Harness {
	if h.TTL == 0 {
		h.TTL = caps.MinTTL
	}
	if h.Slack == 0 {
		h.Slack = 10 * time.Second
	}
	if h.Pause == 0 {
		h.Pause = 20 * time.Millisecond
	}
	if h.Rounds == 0 {
		h.Rounds = 1000
	}
	return h
}
