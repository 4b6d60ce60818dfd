package redislock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

func init() {
	for name, example := range map[string]string{
		"redlock":  "redlock://h1:6379,h2:6379,h3:6379,h4:6379,h5:6379",
		"redlocks": "redlocks://h1:6379,h2:6379,h3:6379,h4:6379,h5:6379",
	} {
		driver.Register(driver.Scheme{
			Name: name, Example: example, Open: openQuorumURL,
			Capabilities: quorumCapabilities(QuorumConfig{}.withDefaults(), ""),
		})
	}
}

// OpenQuorum returns an engine on the masters that the URLs name, with clients of its own,
// after a majority has answered once. There is one URL for each node,
//
//	redis://user:password@host:6379/db
//
// or rediss for TLS, so that each may have a user, a password and a database of its own, and
// the parameters timeout, pool-size and insecure of [Open]. A single URL may name all nodes
// instead, where they differ in nothing but their addresses:
//
//	redlock://user:password@h1:6379,h2:6379,h3:6379/db
//
// or redlocks for TLS, which takes the fields of cfg as well: prefix (empty for raw keys),
// max-ttl, group, timeout. ctx bounds the opening only.
func OpenQuorum(ctx context.Context, urls []string, cfg QuorumConfig) (*Quorum, error) {
	if len(urls) == 1 && strings.HasPrefix(strings.ToLower(urls[0]), "redlock") {
		u, err := url.Parse(urls[0])
		if err != nil {
			return nil, driver.Failf(driver.Invalid, "the URL cannot be read: write redlock://user:password@h1:6379,h2:6379,h3:6379/0, with special characters percent-encoded, and a port for the last host where another one has one")
		}
		return openQuorum(ctx, u, cfg)
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	var errs []error
	nodes := make([]options, len(urls))
	for i, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("the URL of node %d cannot be read: write redis://user:password@host:6379/0, with special characters percent-encoded", i+1))
		} else if err := nodes[i].readNode(u, cfg); err != nil {
			errs = append(errs, fmt.Errorf("node %d: %w", i+1, err))
		}
	}
	if len(errs) > 0 {
		return nil, driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return connect(ctx, nodes, cfg)
}

func openQuorumURL(ctx context.Context, u *url.URL) (driver.Engine, error) {
	q, err := openQuorum(ctx, u, QuorumConfig{})
	if err != nil {
		return nil, err // not q: it would be an interface that is not nil
	}
	return q, nil
}

// openQuorum opens what one URL names.
func openQuorum(ctx context.Context, u *url.URL, cfg QuorumConfig) (*Quorum, error) {
	s := driver.NewSettings(u)
	const none = "\x00"
	if prefix := s.String("prefix", none); prefix != none {
		cfg.Prefix, cfg.RawKeys = prefix, prefix == ""
	}
	cfg.MaxTTL = s.Duration("max-ttl", cfg.MaxTTL)
	cfg.Group = s.String("group", cfg.Group)
	if err := s.ErrSoFar(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	one := *s.Rest(u)
	one.Scheme = map[string]string{"redlock": "redis", "redlocks": "rediss"}[u.Scheme]
	if one.Scheme == "" {
		return nil, driver.Failf(driver.Invalid, "the scheme is %.32q: write redlock://, or redlocks:// for TLS", u.Scheme)
	}
	var nodes []options
	for host := range strings.SplitSeq(u.Host, ",") {
		one.Host = host
		var o options
		if err := o.readNode(&one, cfg); err != nil {
			return nil, err
		}
		nodes = append(nodes, o)
	}
	return connect(ctx, nodes, cfg)
}

// readNode takes the URL of one node apart.
func (o *options) readNode(u *url.URL, cfg QuorumConfig) error {
	if u.Scheme != "redis" && u.Scheme != "rediss" {
		return driver.Failf(driver.Invalid, "its scheme is %.32q: write redis:// or rediss://, for a server on its own", u.Scheme)
	}
	if u.Hostname() == "" {
		return driver.Failf(driver.Invalid, "the host is empty: write a name or an address for each node")
	}
	own := Config{Timeout: cfg.Timeout}
	if err := o.read(u, &own); err != nil {
		return err
	}
	if own != (Config{Timeout: own.Timeout}) || len(o.addrs) != 1 {
		return driver.Failf(driver.Invalid, "a node has one address, and takes the parameters timeout, pool-size and insecure: prefix and max-ttl are the quorum's, and the others have no meaning there")
	}
	return nil
}

// connect makes the clients and the engine, and waits until a majority has answered.
func connect(ctx context.Context, nodes []options, cfg QuorumConfig) (*Quorum, error) {
	clients := make([]redis.UniversalClient, len(nodes))
	for i := range nodes {
		clients[i] = nodes[i].client()
	}
	q, err := NewQuorum(clients, cfg)
	if err != nil {
		for _, c := range clients {
			_ = c.Close()
		}
		return nil, err
	}
	for i, n := range q.nodes {
		n.owned, n.opened = true, &nodes[i]
	}
	if err := q.greet(ctx); err != nil {
		_ = q.Close()
		return nil, err
	}
	return q, nil
}

// greet asks every node what it is, and waits until a majority of them can be used.
func (q *Quorum) greet(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	results := make([]NodeResult, len(q.nodes))
	answers := make(chan error, len(q.nodes))
	for i, n := range q.nodes {
		results[i] = NodeResult{Addr: n.addr}
		go func() {
			err := n.greet(ctx)
			mu.Lock()
			if results[i].Status = NodeGranted; err != nil {
				results[i].Status, results[i].Err = NodeFailed, err
			}
			mu.Unlock()
			answers <- err
		}()
	}
	good := 0
	for range q.nodes {
		if err := <-answers; err == nil {
			good++
		}
		if good == q.size.Majority() {
			return nil
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return driver.Fail(driver.Unavailable, &QuorumError{Status: QuorumMissing, Nodes: results, need: q.size.Majority()})
}
