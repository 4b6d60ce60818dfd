package holdfast

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-go/holdfast/driver"
)

// Defaults and bounds of [Config].
const (
	// DefaultMaxLocalHandovers is how often in a row a process passes a lock on among its
	// own goroutines. At 64 the round trip to the engine is all but gone from the average,
	// and another process still waits for 64 short critical sections only.
	DefaultMaxLocalHandovers = 64

	// DefaultReleaseTimeout is long enough for a failing connection to be replaced once.
	DefaultReleaseTimeout = 2 * time.Second

	// MaxOwner is the longest owner label, in bytes.
	MaxOwner = 128
)

// Config configures a [Client]. The zero value is ready for use, and a field that is zero
// has the default that its comment names.
type Config struct {
	// TTL is how long a lease lives without renewal, unless its handle says otherwise.
	// Default: the engine's own (10 s, or 30 s where leases must outlive a failover).
	// Range: the engine's MinTTL to MaxTTL.
	TTL time.Duration

	// RenewInterval is how often a lease is renewed. Default: a third of its TTL, jittered.
	// Range: below half the TTL, so that one renewal may fail.
	RenewInterval time.Duration

	// Owner is the label of this process that others see when they ask who holds a lock.
	// Default: host name and process id. At most MaxOwner bytes, no control characters.
	Owner string

	// MaxLocalHandovers bounds how often in a row a lock passes between goroutines of this
	// process without going back to the engine, where other processes wait. Default: 64.
	// Negative: never.
	MaxLocalHandovers int

	// LocalHandoverWindow bounds for how long in all it does so. Default: a tenth of the
	// lease's TTL. Range: below half the TTL.
	LocalHandoverWindow time.Duration

	// ReleaseTimeout bounds Unlock and the clean-up behind calls whose outcome is unknown.
	// Default: 2 s.
	ReleaseTimeout time.Duration

	// Logger receives losses, breaks and failed clean-ups. Default: none.
	Logger *slog.Logger

	// Metrics and Tracer are called around the operations. Default: none, at no cost.
	Metrics Metrics
	Tracer  Tracer

	_ struct{}
}

func (c Config) withDefaults(caps driver.Capabilities) Config {
	if c.TTL == 0 {
		c.TTL = caps.DefaultTTL
	}
	if c.Owner == "" {
		c.Owner = defaultOwner()
	}
	switch {
	case c.MaxLocalHandovers == 0:
		c.MaxLocalHandovers = DefaultMaxLocalHandovers
	case c.MaxLocalHandovers < 0:
		c.MaxLocalHandovers = 0
	}
	if c.ReleaseTimeout == 0 {
		c.ReleaseTimeout = DefaultReleaseTimeout
	}
	return c
}

// validate returns every violation.
func (c Config) validate(caps driver.Capabilities) error {
	var v violations
	v.check(checkTTL(c.TTL, caps))
	v.add(c.RenewInterval < 0 || c.RenewInterval >= c.TTL/2 && c.RenewInterval > 0,
		"RenewInterval is %v: it must be positive and below half the TTL of %v", c.RenewInterval, c.TTL)
	v.check(checkOwner(c.Owner))
	v.add(c.LocalHandoverWindow < 0 || c.LocalHandoverWindow >= c.TTL/2 && c.LocalHandoverWindow > 0,
		"LocalHandoverWindow is %v: it must be positive and below half the TTL of %v", c.LocalHandoverWindow, c.TTL)
	v.add(c.ReleaseTimeout < 0, "ReleaseTimeout is %v: it must be positive", c.ReleaseTimeout)
	return v.join()
}

// violations gathers everything that is wrong with some settings.
type violations []error

func (v *violations) add(wrong bool, format string, args ...any) {
	if wrong {
		*v = append(*v, fmt.Errorf(format, args...))
	}
}

func (v *violations) check(err error) {
	if err != nil {
		*v = append(*v, err)
	}
}

func (v violations) join() error { return errors.Join(v...) }

func checkTTL(ttl time.Duration, caps driver.Capabilities) error {
	if ttl < caps.MinTTL || ttl > caps.MaxTTL {
		return fmt.Errorf("TTL is %v: %s takes %v to %v", ttl, caps.Engine, caps.MinTTL, caps.MaxTTL)
	}
	return nil
}

func checkOwner(owner string) error {
	if len(owner) > MaxOwner {
		return fmt.Errorf("owner has %d bytes: shorten it to %d", len(owner), MaxOwner)
	}
	if strings.ContainsFunc(owner, unicode.IsControl) || strings.ToValidUTF8(owner, "") != owner {
		return fmt.Errorf("owner %q has control characters or is not UTF-8", owner)
	}
	return nil
}

func defaultOwner() string {
	host, err := os.Hostname()
	if err != nil || checkOwner(host) != nil || len(host) > 64 {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
