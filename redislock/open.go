package redislock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

func init() {
	for _, s := range []struct{ name, example string }{
		{"redis", "redis://127.0.0.1:6379"},
		{"rediss", "rediss://redis.example.com:6379"},
		{"redis+sentinel", "redis+sentinel://h1:26379,h2:26379,h3:26379/mymaster"},
		{"rediss+sentinel", "rediss+sentinel://h1:26379,h2:26379,h3:26379/mymaster"},
		{"redis+cluster", "redis+cluster://h1:6379,h2:6379,h3:6379"},
		{"rediss+cluster", "rediss+cluster://h1:6379,h2:6379,h3:6379"},
	} {
		cfg := Config{}.withDefaults(!strings.Contains(s.name, "+"), strings.Contains(s.name, "cluster"))
		driver.Register(driver.Scheme{
			Name: s.name, Example: s.example, Open: openURL, Capabilities: capabilitiesOf(cfg, ""),
		})
	}
}

// Open returns an engine on the deployment that rawURL names, with a client of its own, after
// the server has answered once. The forms are
//
//	redis://user:password@host:6379/db
//	redis+sentinel://user:password@h1:26379,h2:26379,h3:26379/master-name/db
//	redis+cluster://user:password@h1:6379,h2:6379
//
// and the same with rediss for TLS. Fields of cfg may be given as parameters in kebab-case:
// prefix (empty for raw keys), failover-grace (off, crash or partition), data-nodes, max-ttl,
// max-lag, timeout; further pool-size, sentinel-user, sentinel-password, and insecure=on for TLS
// without a check of the certificate. Without pool-size, callers who make many calls to a server
// on its own get connections for these, up to five beside those of the pool. ctx bounds the
// opening only.
func Open(ctx context.Context, rawURL string, cfg Config) (*Engine, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, driver.Failf(driver.Invalid, "the URL cannot be read: write redis://user:password@host:6379/0, with special characters percent-encoded")
	}
	return open(ctx, u, cfg)
}

func openURL(ctx context.Context, u *url.URL) (driver.Engine, error) {
	e, err := open(ctx, u, Config{})
	if err != nil {
		return nil, err // not e: it would be an interface that is not nil
	}
	return e, nil
}

func open(ctx context.Context, u *url.URL, cfg Config) (*Engine, error) {
	var o options
	if err := o.read(u, &cfg); err != nil {
		return nil, err
	}
	client := o.client()
	e, err := New(client, cfg)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	e.owned, e.opened = true, &o
	if err := e.greet(ctx); err != nil {
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

// greet asks the deployment for what New could not know.
func (e *Engine) greet(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- e.client.Ping(ctx).Err() }()
	select {
	case err := <-done:
		if err != nil {
			if wrong := e.opened.mistaken(ctx, e.scheme(), err); wrong != nil {
				return wrong
			}
			return e.unreachable(ctx, err)
		}
	case <-ctx.Done():
		return e.unreachable(ctx, ctx.Err())
	}
	return e.discover(ctx)
}

func (e *Engine) unreachable(ctx context.Context, err error) error {
	d := e.classify(err)
	d.Outcome = driver.NotApplied
	switch {
	case ctx.Err() != nil:
	case errors.Is(d.Err, context.DeadlineExceeded):
		d.Err = fmt.Errorf("%s does not answer within the timeout: is the address right, and does either side expect TLS? %w", e.caps.Instance, d.Err)
	default:
		d.Err = fmt.Errorf("%s does not answer: %w", e.caps.Instance, d.Err)
	}
	return d
}

// options is what a URL says of the connection.
type options struct {
	kind             string // "", "sentinel" or "cluster"
	addrs            []string
	user, password   string
	master           string
	sentinelUser     string
	sentinelPassword string
	db, pool         int
	tls              *tls.Config
	timeout          time.Duration
}

// read takes u apart. Errors never quote what may be a password.
func (o *options) read(u *url.URL, cfg *Config) error {
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	o.kind = kind
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("URL: "+format, args...)) }
	if u.User != nil {
		o.user = u.User.Username()
		o.password, _ = u.User.Password()
	}
	if u.Opaque != "" || u.Fragment != "" {
		fail("it is not of the form %s://host:6379; write a # in a password as %%23", u.Scheme)
	}
	o.addrs = addresses(u.Host, kind == "sentinel", fail)
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	if kind == "sentinel" {
		o.master, path = path[0], path[1:]
		if o.master == "" {
			fail("it names no master: write %s://h1,h2,h3/mymaster", u.Scheme)
		}
	}
	if len(path) > 0 && path[0] != "" {
		n, err := strconv.Atoi(path[0])
		if err != nil || n < 0 || kind == "cluster" && n != 0 || len(path) > 1 {
			fail("the path is not a database number: write /0, and none for a Cluster")
		}
		o.db = n
	}
	s := driver.NewSettings(u)
	o.settings(s, cfg, fail)
	if scheme == "rediss" {
		o.tls = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Bool("insecure", false)}
	}
	if err := s.Err(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	// What the engine refuses is refused before a client is made.
	defaults := cfg.withDefaults(kind == "", kind == "cluster")
	o.timeout = defaults.Timeout
	return defaults.validate()
}

func (o *options) settings(s *driver.Settings, cfg *Config, fail func(string, ...any)) {
	const none = "\x00"
	if prefix := s.String("prefix", none); prefix != none {
		cfg.Prefix, cfg.RawKeys = prefix, prefix == ""
	}
	switch grace := s.String("failover-grace", none); grace {
	case none:
	case "off":
		cfg.Safety = SingleProcess
	case "crash":
		cfg.Safety = CrashSafe
	case "partition":
		cfg.Safety = PartitionSafe
	default:
		fail("parameter \"failover-grace\" is %.32q: write off, crash or partition", grace)
	}
	cfg.DataNodes = s.Int("data-nodes", cfg.DataNodes)
	cfg.MaxTTL = s.Duration("max-ttl", cfg.MaxTTL)
	cfg.MaxLag = s.Duration("max-lag", cfg.MaxLag)
	cfg.Timeout = s.Duration("timeout", cfg.Timeout)
	if o.pool = s.Int("pool-size", 0); o.pool < 0 || o.pool > 10000 {
		fail("parameter \"pool-size\" is %d: it must be 1 to 10000", o.pool)
	}
	if o.kind == "sentinel" {
		o.sentinelUser, o.sentinelPassword = s.String("sentinel-user", ""), s.String("sentinel-password", "")
	}
}

// addresses splits the hosts of a URL and adds the usual port where there is none.
func addresses(hosts string, sentinel bool, fail func(string, ...any)) []string {
	port := ":6379"
	if sentinel {
		port = ":26379"
	}
	var all []string
	for host := range strings.SplitSeq(hosts, ",") {
		u := url.URL{Host: host}
		switch {
		case u.Hostname() == "" && (host != "" || strings.Contains(hosts, ",")), u.Hostname() == "" && u.Port() != "":
			fail("the host is empty: write a name or an address before the port")
		case host == "":
			all = append(all, "127.0.0.1"+port)
		case u.Port() == "":
			all = append(all, strings.TrimSuffix(host, ":")+port)
		default:
			if n, err := strconv.Atoi(u.Port()); err != nil || n < 1 || n > 65535 {
				fail("port %.10q is not 1 to 65535", u.Port())
			}
			all = append(all, host)
		}
	}
	return all
}

const noRetries = -1 // in the library's terms

// client makes the client. Its scripts are not repeated by the library, and its calls end
// with their context.
func (o *options) client() redis.UniversalClient {
	switch o.kind {
	case "sentinel":
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: o.master, SentinelAddrs: o.addrs, Username: o.user, Password: o.password, DB: o.db,
			SentinelUsername: o.sentinelUser, SentinelPassword: o.sentinelPassword, TLSConfig: o.tls,
			MaxRetries: noRetries, PoolSize: o.pool, ContextTimeoutEnabled: true,
			DialTimeout: o.timeout, ReadTimeout: o.timeout, WriteTimeout: o.timeout, DialerRetries: 1,
		})
	case "cluster":
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: o.addrs, Username: o.user, Password: o.password, TLSConfig: o.tls,
			MaxRetries: noRetries, PoolSize: o.pool, ContextTimeoutEnabled: true,
			DialerRetries: 1, // a node that is down is to be found out soon, and its successor
			DialTimeout:   o.timeout, ReadTimeout: o.timeout, WriteTimeout: o.timeout,
		})
	}
	return redis.NewClient(o.server())
}

// server is for a client of a server on its own.
func (o *options) server() *redis.Options {
	return &redis.Options{
		Addr: o.addrs[0], Username: o.user, Password: o.password, DB: o.db, TLSConfig: o.tls,
		MaxRetries: noRetries, PoolSize: o.pool, ContextTimeoutEnabled: true,
		DialTimeout: o.timeout, ReadTimeout: o.timeout, WriteTimeout: o.timeout, DialerRetries: 1,
	}
}
