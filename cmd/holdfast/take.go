package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast"
)

// held is a lock that run holds.
type held struct {
	client *holdfast.Client
	lease  *holdfast.Lease
	owner  string
}

// inspectTimeout bounds the question who holds the lock, which only makes a message better.
const inspectTimeout = time.Second

// interrupted is a signal that came while the lock was waited for.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return i.signal.String() }

// take takes the lock as the flags say. The wait ends with --wait, and with a signal: then
// nothing is left behind.
func (a *app) take(f *runFlags, name string, signals <-chan os.Signal) (*held, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case s := <-signals:
			cancel(interrupted{s})
		case <-ctx.Done():
		}
	}()
	h, err := a.acquire(ctx, f, name)
	cancel(nil)
	<-stopped // from here on signals belong to whoever supervises the command
	var why interrupted
	if !errors.As(context.Cause(ctx), &why) {
		return h, err
	}
	if err == nil {
		a.giveBack(h)
	}
	return nil, &failure{exitSignal + signalNumber(why.signal), fmt.Errorf("stopped waiting for the lock %q: %w", name, why), ""}
}

func (a *app) acquire(ctx context.Context, f *runFlags, name string) (*held, error) {
	limit := f.wait
	if f.try {
		limit = callTimeout
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	c, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	u, _ := a.engineURL()
	h := &held{client: c, owner: a.ownerLabel(u)}
	lock, try := f.calls(c, name, h.options(f))
	if f.try || a.verbose {
		h.lease, err = try(ctx)
	}
	if !f.try && (!a.verbose || errors.Is(err, holdfast.ErrHeld)) {
		if err != nil {
			a.logf("waiting: %v", a.heldError(c, name, err))
		}
		h.lease, err = lock(ctx)
	}
	if errors.Is(err, holdfast.ErrHeld) || f.ranOut(ctx, err) && isHeld(c, name) {
		err = a.heldFailure(c, f, name, err)
	}
	if err != nil {
		_ = c.Close() // the first error is the one to tell
		return nil, err
	}
	a.logf("took %q with fence %d", name, h.lease.Fence())
	return h, nil
}

func (h *held) options(f *runFlags) []holdfast.Option {
	opts := []holdfast.Option{holdfast.WithOwner(h.owner)}
	if f.ttl > 0 {
		opts = append(opts, holdfast.WithTTL(f.ttl))
	}
	if f.maxHold > 0 {
		opts = append(opts, holdfast.WithMaxHold(f.maxHold))
	}
	return opts
}

type acquireCall func(context.Context) (*holdfast.Lease, error)

// calls returns how to take the share that the flags ask for, waiting and not.
func (f *runFlags) calls(c *holdfast.Client, name string, opts []holdfast.Option) (lock, try acquireCall) {
	switch k, n, _ := f.share(); {
	case n > 0:
		s := c.Semaphore(name, n, opts...)
		return func(ctx context.Context) (*holdfast.Lease, error) { return s.Acquire(ctx, k) },
			func(ctx context.Context) (*holdfast.Lease, error) { return s.TryAcquire(ctx, k) }
	case f.shared:
		rw := c.RWMutex(name, opts...)
		return rw.RLock, rw.TryRLock
	}
	m := c.Mutex(name, opts...)
	return m.Lock, m.TryLock
}

// ranOut reports whether --wait was what ended the wait.
func (f *runFlags) ranOut(ctx context.Context, err error) bool {
	return f.wait > 0 && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == context.DeadlineExceeded
}

// isHeld tells a wait for somebody who holds the lock from one for an engine that is down, or
// that another process keeps from going on: the end of the wait looks the same for all.
func isHeld(c *holdfast.Client, name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
	defer cancel()
	info, err := c.Inspect(ctx, name)
	return err == nil && len(info.Holders) > 0
}

// heldFailure says who kept us from getting the lock.
func (a *app) heldFailure(c *holdfast.Client, f *runFlags, name string, err error) error {
	text := a.heldError(c, name, err)
	if f.try {
		return &failure{exitHeld, text, "without --try the command waits; --wait 30s limits that"}
	}
	text = fmt.Errorf("%w, and %v of waiting are over", text, f.wait)
	return &failure{exitHeld, text, "give it longer with --wait, or see 'holdfast show' and 'holdfast break'"}
}

// heldError describes the holder: the one that the engine named, or else the one that it
// names now.
func (a *app) heldError(c *holdfast.Client, name string, err error) error {
	var holders []holdfast.Holder
	if e, ok := errors.AsType[*holdfast.Error](err); ok && e.Holder != nil {
		holders = []holdfast.Holder{*e.Holder}
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
		defer cancel()
		if info, err := c.Inspect(ctx, name); err == nil {
			holders = info.Holders
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the lock %q is held", name)
	for i, h := range holders {
		if i == 3 {
			fmt.Fprintf(&b, " and %d others", len(holders)-i)
			break
		}
		if i > 0 {
			b.WriteString(" and")
		}
		fmt.Fprintf(&b, " by %q", h.Owner)
		if !h.Since.IsZero() {
			b.WriteString(" since " + clock(h.Since))
		}
		if !h.Until.IsZero() {
			b.WriteString(" until " + clock(h.Until))
		}
	}
	return errors.New(b.String())
}

// giveBack releases the lock and closes the client. It returns ErrLost for a lock that was
// not ours any more; what the engine could not be told, its TTL ends.
func (a *app) giveBack(h *held) error {
	err := h.lease.Unlock()
	switch {
	case err == nil:
		a.logf("released %q", h.lease.Name())
	case !errors.Is(err, holdfast.ErrLost):
		a.warnf("the lock %q could not be released, it ends by itself: %v", h.lease.Name(), err)
	}
	if closeErr := h.client.Close(); closeErr != nil {
		a.logf("closing the engine: %v", closeErr)
	}
	return err
}
