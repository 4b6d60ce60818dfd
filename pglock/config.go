package pglock

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Encoding says how a name becomes the key of an advisory lock. See docs/pglock.md.
type Encoding uint8

// The encodings.
const (
	// Hashed is the first quarter of a SHA-256 of schema and name: 64 bits. Engines
	// with different schemas have nothing to do with each other.
	Hashed Encoding = iota

	// DotNet is the encoding of DistributedLock for .NET with allowHashing: its
	// PostgresDistributedLock and PostgresDistributedReaderWriterLock exclude the locks of
	// this engine and are excluded by them, in the same database. The schema is no part of
	// the key, so all engines of the database need the same one, or fences lose their order.
	DotNet
)

// String returns the name of the encoding.
func (e Encoding) String() string {
	switch e {
	case Hashed:
		return "Hashed"
	case DotNet:
		return "DotNet"
	}
	return fmt.Sprintf("Encoding(%d)", e)
}

// Defaults and bounds of Config, and the TTLs of this engine.
const (
	// DefaultSchema is the default of Config.Schema.
	DefaultSchema = "holdfast"

	// DefaultConnections is the default of Config.Connections, MaxConnections its bound.
	DefaultConnections = 4
	MaxConnections     = 64

	// MinTTL bounds the TTL of a lease, DefaultTTL is that of a lease that names none.
	MinTTL     = 100 * time.Millisecond
	DefaultTTL = 10 * time.Second

	// DefaultMaxTTL is the default of Config.MaxTTL, LongestTTL its bound.
	DefaultMaxTTL = time.Minute
	LongestTTL    = 24 * time.Hour

	// MaxPermits is the largest limit of a semaphore: every permit that is held takes room
	// in the server's table of locks.
	MaxPermits = 1000
)

// Config configures an engine. The zero value is ready for use.
type Config struct {
	// Schema is the database schema of the sequence and the tables that the engine needs. It
	// is created when it is not there; see [Setup] for where the role may not. A lower-case
	// SQL name. Default "holdfast".
	Schema string

	// Encoding makes keys of names. The same for all processes. Default Hashed.
	Encoding Encoding

	// Connections is how many connections of the pool the engine takes at most, all in all:
	// one that holds the locks, and the others to wait on for locks that are held, each of
	// which then keeps what it was granted until the release. Waits beyond that poll. With 1
	// all of them do. While values are in use, one of them is for those. 1 to 64; default 4.
	Connections int

	// MaxTTL is the longest TTL of a lease. The locks of a process live in one session, which
	// the server ends when it was silent for the longest TTL among them: one long TTL makes
	// the others' holders known to be dead later. MinTTL to 24 h; default 1 min.
	MaxTTL time.Duration

	// Heartbeat is how often a session in which locks live is heard of at least, whatever their
	// TTLs. It is how soon the engine notices the end of the session, and what people see of
	// the locks of other processes is about as old. 10 ms to 10 s; default 1 s.
	Heartbeat time.Duration

	// Timeout is how long opening a session, or a statement while no locks are held, may
	// take. While locks are held the engine hopes for an answer for as long as they live.
	// 10 ms to 1 min; default 5 s.
	Timeout time.Duration

	_ struct{}
}

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = DefaultSchema
	}
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	if c.MaxTTL == 0 {
		c.MaxTTL = DefaultMaxTTL
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	return c
}

// schemaName is what Schema may be: a name that means the same with quotes and without, and
// that cannot end a quotation.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// validate returns every violation.
func (c Config) validate() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(!schemaName.MatchString(c.Schema), "Schema is %.64q: use 1 to 63 of a-z, 0-9 and _, not beginning with a digit", c.Schema)
	check(c.Encoding > DotNet, "Encoding is %d: use one of the constants", uint8(c.Encoding))
	check(c.Connections < 1 || c.Connections > MaxConnections, "Connections is %d: it must be 1 to %d", c.Connections, MaxConnections)
	check(c.MaxTTL < MinTTL || c.MaxTTL > LongestTTL, "MaxTTL is %v: it must be %v to %v", c.MaxTTL, MinTTL, LongestTTL)
	check(c.MaxTTL%time.Millisecond != 0, "MaxTTL is %v: it must be whole milliseconds", c.MaxTTL)
	check(c.Heartbeat < 10*time.Millisecond || c.Heartbeat > 10*time.Second, "Heartbeat is %v: it must be 10ms to 10s", c.Heartbeat)
	check(c.Timeout < 10*time.Millisecond || c.Timeout > time.Minute, "Timeout is %v: it must be 10ms to 1m", c.Timeout)
	if len(errs) > 0 {
		return driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return nil
}
