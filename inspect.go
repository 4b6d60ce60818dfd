package holdfast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/holdfast-go/holdfast/driver"
)

// Info describes one name at one moment: who holds it, since when, until when, with which
// fence, and how many requests wait. It is out of date when it arrives.
type Info = driver.Info

// MaxList is the most that List returns.
const MaxList = 10_000

// Inspect describes one name. A name that is free has no holders.
func (c *Client) Inspect(ctx context.Context, name string) (Info, error) {
	var info Info
	err := c.withInspector(ctx, "inspect", name, func(ins driver.Inspector) (err error) {
		info, err = ins.Inspect(ctx, name)
		return err
	})
	return info, err
}

// List describes the names that start with prefix and are held, ordered by name, at most
// limit of them, 1 to MaxList. An empty prefix lists all.
func (c *Client) List(ctx context.Context, prefix string, limit int) ([]Info, error) {
	if limit < 1 || limit > MaxList {
		return nil, c.fail("list", prefix, ErrInvalid, fmt.Errorf("limit is %d: it must be 1 to %d", limit, MaxList))
	}
	var infos []Info
	err := c.withInspector(ctx, "list", "", func(ins driver.Inspector) (err error) {
		infos, err = ins.List(ctx, prefix, limit)
		return err
	})
	return infos, err
}

// Break says what to take from its holders, see [Client.Break].
type Break struct {
	// Fence is the fence that a holder must have for the break to happen: what Inspect
	// showed before you decided. 0 breaks whoever holds the name by then.
	Fence int64

	// Reason goes into the log and the engine's record, where it keeps one. Required.
	Reason string

	_ struct{}
}

// Break takes a lock from its holders and returns who they were. They are not asked: each
// finds out when its lease is renewed next, and until then may go on as if it held the lock.
// Only what checks fences is safe from that. It fails with ErrNotHeld when nobody holds the
// name and with ErrStale when nobody holds b.Fence; then nothing was changed.
func (c *Client) Break(ctx context.Context, name string, b Break) (Info, error) {
	if b.Reason == "" || b.Fence < 0 {
		return Info{}, c.fail("break", name, ErrInvalid, errors.New("a break needs a reason, and a fence that is not negative"))
	}
	var info Info
	err := c.withInspector(ctx, "break", name, func(ins driver.Inspector) (err error) {
		info, err = ins.Break(ctx, driver.BreakRequest{Name: name, Fence: b.Fence, By: c.cfg.Owner, Reason: b.Reason})
		return err
	})
	if err == nil && c.cfg.Logger != nil {
		c.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "lock broken", slog.String("name", name),
			slog.String("engine", c.caps.Engine), slog.Int64("fence", info.Fence), slog.String("reason", b.Reason))
	}
	return info, err
}

// withInspector calls f with the engine's ability to inspect.
func (c *Client) withInspector(ctx context.Context, op, name string, f func(driver.Inspector) error) error {
	if err := driver.CheckName(name); err != nil && op != "list" {
		return c.fail(op, name, ErrInvalid, err)
	}
	return withAbility(ctx, c, op, name, "cannot be inspected", f)
}

// withAbility calls f with an ability that not every engine has. It is the one place that
// asks for them; lacking says what an engine is like that has it not.
func withAbility[A any](ctx context.Context, c *Client, op, name, lacking string, f func(A) error) error {
	if c.closed.Load() {
		return c.fail(op, name, ErrClosed, nil)
	}
	if err := ctx.Err(); err != nil {
		return c.fail(op, name, nil, err)
	}
	able, ok := c.engine.(A)
	if !ok {
		return c.fail(op, name, ErrUnsupported, fmt.Errorf("%s %s", c.caps.Engine, lacking))
	}
	if err := f(able); err != nil {
		return c.wrap(op, name, err)
	}
	return nil
}
