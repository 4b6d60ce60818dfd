package etcdlock

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-go/holdfast/driver"
)

// Defaults and bounds of Config, and the TTLs of this engine.
const (
	// DefaultPrefix is the default of Config.Prefix.
	DefaultPrefix = "holdfast/"

	// MinTTL and MaxTTL bound the TTL of a lock. etcd counts in whole seconds.
	MinTTL = time.Second
	MaxTTL = 24 * time.Hour

	// DefaultTTL is that of a lock whose handle names none.
	DefaultTTL = 10 * time.Second

	// DefaultTimeout is the default of Config.Timeout: an election of a new leader, which
	// takes one to two seconds as etcd is configured by default, is over by then.
	DefaultTimeout = 4 * time.Second

	// DefaultMaxTxnOps is the default of Config.MaxTxnOps and that of etcd's own limit.
	DefaultMaxTxnOps = 128
)

// Config configures an engine. The zero value is ready for use.
type Config struct {
	// Prefix stands before every name to make the prefix of its keys. Default "holdfast/".
	// A lock of etcd's concurrency package, of etcdctl or of the lock service with the name
	// Prefix + name excludes the lock of this name, and is excluded by it.
	Prefix string

	// RawKeys makes the name itself the prefix of its keys, with nothing before it.
	RawKeys bool

	// Timeout bounds each exchange with the cluster. A call may need a few. 100 ms to
	// 1 min; default 4 s.
	Timeout time.Duration

	// MaxTxnOps is the limit of operations in one transaction that the cluster was started
	// with, --max-txn-ops. 16 to 10000; default 128.
	MaxTxnOps int

	_ struct{}
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" && !c.RawKeys {
		c.Prefix = DefaultPrefix
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxTxnOps == 0 {
		c.MaxTxnOps = DefaultMaxTxnOps
	}
	return c
}

// validate returns every violation.
func (c Config) validate() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.RawKeys && c.Prefix != "", "Prefix is %.64q and RawKeys is set: choose one", c.Prefix)
	check(len(c.Prefix) > 128, "Prefix has %d bytes: shorten it to 128", len(c.Prefix))
	check(strings.ContainsFunc(c.Prefix, unicode.IsControl), "Prefix has control characters: remove them")
	check(!utf8.ValidString(c.Prefix), "Prefix is not valid UTF-8: choose another")
	check(c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute, "Timeout is %v: it must be 100ms to 1m", c.Timeout)
	check(c.MaxTxnOps < 16 || c.MaxTxnOps > 10000, "MaxTxnOps is %d: it must be 16 to 10000", c.MaxTxnOps)
	if len(errs) > 0 {
		return driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return nil
}
