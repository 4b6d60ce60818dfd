package redislock

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// Safety is what a lock is worth when the server fails. See docs/redislock.md for what each
// level rests on.
type Safety uint8

// The levels.
const (
	// DefaultSafety is SingleProcess on a server on its own, PartitionSafe behind Sentinel,
	// and CrashSafe on a Cluster.
	DefaultSafety Safety = iota

	// SingleProcess: exclusive while the server's process lives and keeps its data and its
	// clock. Costs nothing.
	SingleProcess

	// CrashSafe: also across a crash, a restart with lost or without data, and a failover of
	// a master that is dead or unreachable for everybody. Two masters at once break it. A
	// server that has just started or was just promoted grants nothing new for a MaxTTL.
	CrashSafe

	// PartitionSafe: also while an isolated master lives on. A master that does not see a
	// majority of the data nodes acknowledge grants nothing.
	PartitionSafe
)

// String returns the level's name.
func (s Safety) String() string {
	switch s {
	case SingleProcess:
		return "SingleProcess"
	case CrashSafe:
		return "CrashSafe"
	case PartitionSafe:
		return "PartitionSafe"
	}
	return "default"
}

// Defaults and bounds of Config, and the TTLs of this engine.
const (
	// DefaultPrefix is the default of Config.Prefix.
	DefaultPrefix = "holdfast:"

	// MinTTL and MaxTTL bound the TTL of a lease and Config.MaxTTL.
	MinTTL = 50 * time.Millisecond
	MaxTTL = 24 * time.Hour

	// DefaultTTL is that of a lease with SingleProcess.
	DefaultTTL = 10 * time.Second

	// FailoverTTL is the default TTL, and the default of Config.MaxTTL, with CrashSafe and
	// PartitionSafe: long enough for holders to outlive a failover.
	FailoverTTL = 30 * time.Second

	// MaxDataNodes bounds Config.DataNodes.
	MaxDataNodes = 9
)

// Config configures an engine. The zero value is ready for use.
type Config struct {
	// Prefix stands before every name to make its key. Default "holdfast:". Clients of
	// other libraries exclude each other with holdfast where the keys are the same.
	Prefix string

	// RawKeys makes the name itself the key, with nothing before it.
	RawKeys bool

	// Safety is the level of safety. SingleProcess turns the failover grace off.
	Safety Safety

	// DataNodes is how many data nodes, the master and its replicas, a master's data is on,
	// in a Cluster for each master. PartitionSafe needs DataNodes/2 replicas to acknowledge.
	// 2 to MaxDataNodes; default 3.
	DataNodes int

	// MaxTTL is the longest TTL of a lease. With CrashSafe and PartitionSafe it is how long
	// nothing new is granted after a failover. It has to be the same for all clients of the
	// deployment. MinTTL to 24 h; default 30 s with those levels, 24 h with SingleProcess.
	MaxTTL time.Duration

	// MaxLag is how old may be what a replica acknowledged last, in whole seconds, and one more
	// that it takes replicas to do so by themselves. The same for all clients. 1 s to 60 s; default 3 s.
	MaxLag time.Duration

	// Timeout bounds the exchange of one call with a server, for clients that Open makes.
	// 10 ms to 1 min; default 1 s.
	Timeout time.Duration

	_ struct{}
}

func (c Config) withDefaults(standalone, cluster bool) Config {
	if c.Prefix == "" && !c.RawKeys {
		c.Prefix = DefaultPrefix
	}
	if c.Safety == DefaultSafety {
		switch {
		case standalone:
			c.Safety = SingleProcess
		case cluster:
			c.Safety = CrashSafe
		default:
			c.Safety = PartitionSafe
		}
	}
	if c.DataNodes == 0 {
		c.DataNodes = 3
	}
	if c.MaxTTL == 0 {
		c.MaxTTL = FailoverTTL
		if c.Safety == SingleProcess {
			c.MaxTTL = MaxTTL
		}
	}
	if c.MaxLag == 0 {
		c.MaxLag = 3 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
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
	check(strings.ContainsAny(c.Prefix, "{}"), "Prefix is %.64q: leave braces out, they would put all locks into one slot", c.Prefix)
	check(strings.HasPrefix(c.Prefix, companions), "Prefix is %.64q: what begins with %q is for companion keys; choose another", c.Prefix, companions)
	check(c.Safety > PartitionSafe, "Safety is %d: use one of the constants", c.Safety)
	check(c.DataNodes < 2 || c.DataNodes > MaxDataNodes, "DataNodes is %d: it must be 2 to %d", c.DataNodes, MaxDataNodes)
	check(c.MaxTTL < MinTTL || c.MaxTTL > MaxTTL, "MaxTTL is %v: it must be %v to %v", c.MaxTTL, MinTTL, MaxTTL)
	check(c.MaxTTL%time.Millisecond != 0, "MaxTTL is %v: it must be whole milliseconds", c.MaxTTL)
	check(c.MaxLag < time.Second || c.MaxLag > time.Minute || c.MaxLag%time.Second != 0,
		"MaxLag is %v: it must be whole seconds, 1 to 60", c.MaxLag)
	check(c.Timeout < 10*time.Millisecond || c.Timeout > time.Minute, "Timeout is %v: it must be 10ms to 1m", c.Timeout)
	if len(errs) > 0 {
		return driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return nil
}

// failover is what decides how long a new master holds back.
func (c Config) failover() protocol.Constants {
	f := protocol.Constants{MaxTTL: c.MaxTTL, Lag: c.MaxLag}
	if c.Safety == PartitionSafe {
		f.Replicas = protocol.Majority(c.DataNodes)
	}
	return f
}

// constants is what the gate of the scripts is told: the same for all clients of a
// deployment, or empty where there is no gate.
func (c Config) constants() string {
	if c.Safety == SingleProcess {
		return ""
	}
	return c.failover().String()
}

// silence is how long a new master confirms nothing at all.
func (c Config) silence() time.Duration { return c.failover().Silence() }

// grace is how long a server grants nothing new after its first answer.
func (c Config) grace() time.Duration {
	if c.Safety == SingleProcess {
		return 0
	}
	return c.failover().Grace()
}

// companions is what all keys that are not locks begin with.
const companions = "holdfast."
