package holdfast

import (
	"context"
	"time"
)

// Metrics receives what happens, for counters and histograms. Its methods are called from
// the goroutines that do the work, several at once; they must be quick, must not call back
// into the client, and must not panic. Names of locks are unbounded: think twice before they become labels.
type Metrics interface {
	// Acquired is called after every attempt to take a lock. err is nil when it was taken.
	Acquired(name string, how Acquisition, took time.Duration, err error)

	// Released is called after every Unlock that had something to release.
	Released(name string, held time.Duration, err error)

	// Renewed is called after every batch of renewals, with how many of them failed.
	Renewed(claims, failed int, took time.Duration)

	// Lost is called when a lease ended before it was released.
	Lost(name string, cause error)
}

// Acquisition says how a lock came to be held.
type Acquisition string

// The ways to hold a lock.
const (
	FromEngine Acquisition = "engine" // granted by the engine
	HandedOver Acquisition = "local"  // passed on by another goroutine of this process
	Joined     Acquisition = "joined" // joined the readers of this process
)

// Tracer opens a span around every call that may go to the engine. end is called once.
type Tracer interface {
	Start(ctx context.Context, op, name string) (_ context.Context, end func(err error))
}

// hooked reports whether any hook is set. Nobody pays for hooks that nobody uses.
func (c *Client) hooked() bool { return c.cfg.Metrics != nil || c.cfg.Tracer != nil }

// started begins the measurements of a call; the function it returns ends them.
func (c *Client) started(ctx context.Context, op, name string) (context.Context, func(Acquisition, error)) {
	begin := time.Now()
	var endSpan func(error)
	if c.cfg.Tracer != nil {
		ctx, endSpan = c.cfg.Tracer.Start(ctx, op, name)
	}
	return ctx, func(how Acquisition, err error) {
		if c.cfg.Metrics != nil {
			c.cfg.Metrics.Acquired(name, how, time.Since(begin), err)
		}
		if endSpan != nil {
			endSpan(err)
		}
	}
}
