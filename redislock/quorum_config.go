package redislock

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// The bounds of the number of nodes of a quorum. More nodes than MaxQuorum make every lock
// dearer, and no safer.
const (
	MinQuorum = 3
	MaxQuorum = 15
)

// QuorumConfig configures a [Quorum]. The zero value is ready for use.
type QuorumConfig struct {
	// Prefix stands before every name to make its key, the same on each node. Default
	// "holdfast:". Clients of RedLock libraries exclude each other with holdfast where the keys
	// and the nodes are the same.
	Prefix string

	// RawKeys makes the name itself the key, with nothing before it.
	RawKeys bool

	// MaxTTL is the longest TTL of a lease, and how long a node that has restarted grants
	// nothing: what it has forgotten must have ended by then. It has to be the same for all
	// clients of the nodes. MinTTL to 24 h; default 30 s.
	MaxTTL time.Duration

	// Group tells one set of nodes from another, so that clients that were given different nodes
	// do not share locks by a majority here and another there. Default: a fingerprint of the
	// addresses. Give it where clients know the same nodes by different addresses, and another
	// one whenever the nodes change. 1 to 32 letters, digits and hyphens; the same for all clients.
	Group string

	// Timeout bounds the exchange of one call with a node, for clients that OpenQuorum makes.
	// It is not what a slow node costs: nobody waits for a minority. 10 ms to 1 min; default 1 s.
	Timeout time.Duration

	_ struct{}
}

// engine is the configuration of what talks to one node.
func (c QuorumConfig) engine() Config {
	return Config{Prefix: c.Prefix, RawKeys: c.RawKeys, MaxTTL: c.MaxTTL, Timeout: c.Timeout, Safety: SingleProcess}
}

func (c QuorumConfig) withDefaults() QuorumConfig {
	if c.MaxTTL == 0 {
		c.MaxTTL = FailoverTTL
	}
	e := c.engine().withDefaults(true, false)
	c.Prefix, c.Timeout = e.Prefix, e.Timeout
	return c
}

// validate returns every violation.
func (c QuorumConfig) validate() error {
	odd := func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	var group error
	if len(c.Group) > 32 || strings.ContainsFunc(c.Group, odd) {
		group = driver.Failf(driver.Invalid, "Group is %.40q: write 1 to 32 letters, digits and hyphens", c.Group)
	}
	return join(c.engine().withDefaults(true, false).validate(), group)
}

// groupOf is the group of nodes at these addresses.
func (c QuorumConfig) groupOf(addrs []string) string {
	if c.Group != "" {
		return c.Group
	}
	sorted := slices.Sorted(slices.Values(addrs))
	sum := sha256.Sum256([]byte(strings.Join(sorted, ",")))
	return hex.EncodeToString(sum[:6])
}

// checkNodes returns every violation of what the nodes of a quorum have to be.
func checkNodes(clients []redis.UniversalClient) ([]*redis.Client, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if n := len(clients); n < MinQuorum || n > MaxQuorum {
		fail("there are %d nodes: give %d to %d, best an odd number; for one server use New", n, MinQuorum, MaxQuorum)
	}
	nodes := make([]*redis.Client, len(clients))
	seen := make(map[string]int)
	for i, client := range clients {
		c, ok := client.(*redis.Client)
		switch {
		case !ok || c == nil:
			fail("node %d is a client of type %T: use a *redis.Client for one server; a Cluster or a Ring is no independent node", i+1, client)
			continue
		case c.Options().Addr == sentinelAddr:
			fail("node %d is behind Sentinel: a replica that takes over has forgotten what was promised; use masters without failover", i+1)
			continue
		}
		nodes[i] = c
		if first, dup := seen[c.Options().Addr]; dup {
			fail("nodes %d and %d are both %s: give each server once", first+1, i+1, c.Options().Addr)
		}
		seen[c.Options().Addr] = i
	}
	if len(errs) > 0 {
		return nil, driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return nodes, nil
}
