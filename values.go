package holdfast

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// readValue, writeValue and awaitValue are the engine's, with the errors of this package. A
// write that is refused as stale returns what is stored as well.

func (c *Client) readValue(ctx context.Context, op, name string) (v driver.Value, err error) {
	err = c.withValues(ctx, op, name, func(values driver.Values) (err error) {
		v, err = values.ReadValue(ctx, name)
		return err
	})
	return v, err
}

func (c *Client) writeValue(ctx context.Context, op string, w driver.Write) (v driver.Value, err error) {
	if err := driver.CheckWrite(w); err != nil {
		return v, c.fail(op, w.Name, ErrInvalid, err)
	}
	err = c.withValues(ctx, op, w.Name, func(values driver.Values) (err error) {
		v, err = values.WriteValue(ctx, w)
		return err
	})
	return v, err
}

func (c *Client) awaitValue(ctx context.Context, op, name string, version int64) (v driver.Value, err error) {
	err = c.withValues(ctx, op, name, func(values driver.Values) (err error) {
		v, err = values.AwaitValue(ctx, name, version)
		return err
	})
	return v, err
}

func (c *Client) withValues(ctx context.Context, op, name string, f func(driver.Values) error) error {
	return withAbility(ctx, c, op, name, "stores no values", f)
}

// changeValue reads a value and writes what change makes of it, again from the start when
// another process was faster. change returns nil to leave it as it is.
func (c *Client) changeValue(ctx context.Context, op, name string, change func(driver.Value) *driver.Write) (driver.Value, error) {
	v, err := c.readValue(ctx, op, name)
	for tries := 0; err == nil; tries++ {
		w := change(v)
		if w == nil {
			return v, nil
		}
		w.Name, w.If = name, v.Version
		v, err = c.writeValue(ctx, op, *w)
		if err == nil {
			return v, nil
		}
		if e, ok := err.(*Error); ok && e.Kind == ErrStale {
			if err = pauseBriefly(ctx, tries); err != nil {
				err = c.wrap(op, name, err)
			}
		}
	}
	return v, err
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
