package mysqllock

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Defaults and bounds of Config, and the TTLs of this engine.
const (
	// DefaultTable is the default of Config.Table.
	DefaultTable = "holdfast_lock"

	// DefaultConnections is the default of Config.Connections, MaxConnections its bound.
	DefaultConnections = 4
	MaxConnections     = 64

	// DefaultTimeout is the default of Config.Timeout.
	DefaultTimeout = 5 * time.Second

	// MinTTL bounds the TTL of a lease, DefaultTTL is that of a lease that names none. The server
	// counts in whole seconds, and rounds up.
	MinTTL     = time.Second
	DefaultTTL = 10 * time.Second

	// DefaultMaxTTL is the default of Config.MaxTTL, LongestTTL its bound.
	DefaultMaxTTL = time.Minute
	LongestTTL    = 24 * time.Hour

	// MaxPermits is the largest limit of a semaphore.
	MaxPermits = 1 << 20
)

// Config configures an engine. The zero value is ready for use.
type Config struct {
	// Prefix stands before every name to make the name of its GET_LOCK. Those names are one
	// space for the whole server. Default: "holdfast:", the schema of Table and ":", so that
	// each schema has locks of its own. Up to 128 bytes.
	Prefix string

	// RawNames makes the name itself that of the GET_LOCK, with nothing before it. Clients
	// that call GET_LOCK with that name share the lock. Names that GET_LOCK could confuse are
	// hashed all the same, see docs/mysqllock.md.
	RawNames bool

	// Table is where fences and holders are written down, with or without a schema:
	// "holdfast_lock" or "ops.holdfast_lock". It is created on first use where the user may.
	// Without a schema it lies in the one that the connection has chosen. Values are in a second
	// table, whose name is this one and "_values". Clients that share
	// names have to share the table, or fences are not in order among them.
	Table string

	// Connections is how many connections of the DB the engine takes at most, all in all: one
	// for all that is tried and held, and the others to wait on for locks that are held, each
	// of which then keeps what it was granted until the release. Waits beyond that poll; with 1
	// all of them do. Once values are used, one of them is for those. 1 to 64; default 4.
	Connections int

	// MaxTTL is the longest TTL of a lease. The locks of a process live in one session, which
	// the server ends when it was silent for the longest TTL among them: one long TTL makes
	// the others' holders known to be dead later. MinTTL to 24 h; default 1 min.
	MaxTTL time.Duration

	// Timeout bounds one statement, beyond what it waits for a lock. A session that does not
	// answer in time is given up, and what it holds is lost. A read timeout of the driver has
	// to be longer than 3 s, or waiting becomes polling. 100 ms to 1 min; default 5 s.
	Timeout time.Duration

	// SingleNode says that all clients of these locks talk to one and the same node of a
	// Galera cluster, or of a group with several primaries. Without it such servers are
	// refused: a GET_LOCK is known to its own node only.
	SingleNode bool

	_ struct{}
}

func (c Config) withDefaults() Config {
	if c.Table == "" {
		c.Table = DefaultTable
	}
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	if c.MaxTTL == 0 {
		c.MaxTTL = DefaultMaxTTL
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	return c
}

// tableName is what needs no quoting beyond backticks.
var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// validate returns every violation.
func (c Config) validate() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.RawNames && c.Prefix != "", "Prefix is %.64q and RawNames is set: choose one", c.Prefix)
	check(len(c.Prefix) > 128, "Prefix has %d bytes: shorten it to 128", len(c.Prefix))
	if c.Prefix != "" && len(c.Prefix) <= 128 {
		err := driver.CheckName(c.Prefix)
		check(err != nil, "Prefix is %.64q: leave out control characters and write it in UTF-8", c.Prefix)
	}
	check(!tableName.MatchString(c.Table),
		"Table is %.64q: write table or schema.table, each of 1 to 63 letters, digits and _", c.Table)
	check(c.Connections < 1 || c.Connections > MaxConnections, "Connections is %d: it must be 1 to %d", c.Connections, MaxConnections)
	check(c.MaxTTL < MinTTL || c.MaxTTL > LongestTTL, "MaxTTL is %v: it must be %v to %v", c.MaxTTL, MinTTL, LongestTTL)
	check(c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute, "Timeout is %v: it must be 100ms to 1m", c.Timeout)
	if len(errs) > 0 {
		return driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return nil
}
