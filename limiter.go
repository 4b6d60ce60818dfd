package holdfast

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Limiter lets so much pass in so much time, for all processes together. It is a cheap handle
// and safe for concurrent use; goroutines that ask together share a round trip, and are
// answered in the order in which they came to it.
//
// Time goes by the engine's clock. When the engine does not answer, Allow fails: whether to
// let pass then is the caller's decision.
type Limiter struct {
	client *Client
	step   driver.Count
	err    error
}

// Limiter returns the handle of the limiter of that name. Handles of one name should have one rate;
// one of another rule fails with ErrInvalid as long as the other's count lives. A name or
// rate that is wrong is reported by every use, as an ErrInvalid.
func (c *Client) Limiter(name string, rate Rate) *Limiter {
	l := &Limiter{client: c, step: driver.Count{
		Name: "limiter:" + name, Rule: rate.rule, Limit: rate.limit, Burst: rate.burst, Window: rate.window,
	}}
	if rate.rule == 0 {
		l.err = c.fail("limiter", name, ErrInvalid, errors.New("rate is empty: make one with FixedWindow, SlidingWindow or Pace"))
		return l
	}
	l.err = c.checkStep("limiter", name, l.step)
	return l
}

// Decision is the answer of a Limiter.
type Decision struct {
	// Allowed says that what was asked for passes, and was counted.
	Allowed bool
	// Remaining is how much would pass at once now.
	Remaining int64
	// RetryAfter is when what was asked for would pass if nobody else came, 0 when it did.
	RetryAfter time.Duration
	// ResetAfter is when everything that was counted will be forgotten.
	ResetAfter time.Duration
}

// Allow asks for n to pass, and counts it if it does. With 0 it looks. n is at most what the
// rate lets pass at once. After an error with Unknown outcome n may be counted.
func (l *Limiter) Allow(ctx context.Context, n int64) (Decision, error) {
	if l.err != nil {
		return Decision{}, l.err
	}
	step := l.step
	step.N = n
	if err := driver.CheckCount(step); err != nil {
		return Decision{}, l.client.fail("allow", step.Name, ErrInvalid, err)
	}
	got, err := l.client.count(ctx, "allow", step)
	if err != nil {
		return Decision{}, err
	}
	return Decision{got.Allowed, got.Remaining, got.RetryAfter, got.ResetAfter}, nil
}

// Wait waits until n pass, or ctx ends. It fails at once, with ErrHeld and the context's
// error to come, when ctx has a deadline before n could pass; with ErrUnavailable when the engine
// does not answer; with ErrClosed when the client is closed. There is no order among those who
// wait: who waits for much may wait for ever beside many who wait for little.
func (l *Limiter) Wait(ctx context.Context, n int64) error {
	for {
		d, err := l.Allow(ctx, n)
		if err != nil || d.Allowed {
			return err
		}
		pause := d.RetryAfter + rand.N(d.RetryAfter/16+time.Millisecond) // not all at once
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d.RetryAfter {
			return l.client.fail("wait", l.step.Name, ErrHeld,
				fmt.Errorf("passes in %v at the earliest: %w", d.RetryAfter, context.DeadlineExceeded))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return l.client.fail("wait", l.step.Name, ErrHeld, ctx.Err())
		case <-l.client.renewer.ctx.Done(): // the client was closed
			timer.Stop()
			return l.client.fail("wait", l.step.Name, ErrClosed, nil)
		}
	}
}

// Err returns what is wrong with the limiter's name or rate, nil where nothing is.
func (l *Limiter) Err() error { return l.err }

// Rate returns the limiter's rate.
func (l *Limiter) Rate() Rate {
	return Rate{l.step.Rule, l.step.Limit, l.step.Burst, l.step.Window}
}

// Reset forgets what was counted.
func (l *Limiter) Reset(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	_, err := l.client.count(ctx, "reset", driver.Count{Name: l.step.Name, Rule: driver.Forget})
	return err
}
