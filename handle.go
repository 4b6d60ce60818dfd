package holdfast

import (
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// handle is what Mutex, RWMutex and Semaphore have in common: a name, the share of it to
// ask for, and the settings of the leases.
type handle struct {
	client        *Client
	name          string
	bucket        *bucket
	mode          driver.Mode
	weight, limit int

	ttl     time.Duration
	renewed bool          // every so often as the TTL says
	window  time.Duration // for local hand-overs
	maxHold time.Duration // 0: no limit
	owner   string
	async   bool // Unlock does not wait

	err error // what is wrong with the above; every use fails with it
}

// Option changes a setting of one handle.
type Option func(*handle) error

// WithTTL sets how long a lease lives without renewal. Default: Config.TTL.
func WithTTL(ttl time.Duration) Option {
	return func(h *handle) error {
		h.ttl = ttl
		return checkTTL(ttl, h.client.caps)
	}
}

// WithoutRenewal lets the lease end at its TTL unless Extend is called. A lease that was
// handed over by another goroutine of this process may have been granted up to the
// LocalHandoverWindow earlier, and ends that much earlier.
func WithoutRenewal() Option {
	return func(h *handle) error {
		h.renewed = false
		return nil
	}
}

// WithMaxHold ends the lease, as if it were lost, once it was held for d, so that a holder
// that hangs cannot keep the lock by renewing it for ever. d is at least the TTL.
func WithMaxHold(d time.Duration) Option {
	return func(h *handle) error {
		if d <= 0 {
			return fmt.Errorf("MaxHold is %v: it must be positive", d)
		}
		h.maxHold = d
		return nil
	}
}

// WithOwner sets the label that others see while this handle's leases hold the lock.
// Default: Config.Owner.
func WithOwner(label string) Option {
	return func(h *handle) error {
		h.owner = label
		return checkOwner(label)
	}
}

// newHandle returns a handle with the client's settings, opts applied, everything checked.
func (c *Client) newHandle(name string, mode driver.Mode, opts []Option) handle {
	h := handle{client: c, name: name, mode: mode, ttl: c.cfg.TTL, renewed: true, owner: c.cfg.Owner}
	h.bucket = c.bucket(name)
	var v violations
	v.check(driver.CheckName(name))
	for _, opt := range opts {
		v.check(opt(&h))
	}
	v.add(h.maxHold > 0 && h.maxHold < h.ttl, "MaxHold is %v: it must be at least the TTL of %v", h.maxHold, h.ttl)
	if every := c.cfg.RenewInterval; h.renewed {
		v.add(every >= h.ttl/2 && every > 0, "RenewInterval is %v: it must be below half the TTL of %v", every, h.ttl)
	}
	if h.window = c.cfg.LocalHandoverWindow; h.window == 0 {
		h.window = h.ttl / 10
	}
	v.add(h.window >= h.ttl/2 && h.ttl > 1, "LocalHandoverWindow is %v: it must be below half the TTL of %v", h.window, h.ttl)
	if err := v.join(); err != nil {
		h.err = c.fail("handle", name, ErrInvalid, err)
	}
	return h
}

// unsupported marks the handle as one that its engine cannot serve.
func (h *handle) unsupported(what string) {
	if h.err == nil {
		h.err = h.client.fail("handle", h.name, ErrUnsupported,
			fmt.Errorf("%s has no %s locks", h.client.caps.Engine, what))
	}
}

// Name returns the name that the handle is for.
func (h *handle) Name() string { return h.name }
