package zklock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/urltls"
)

const example = "zk://h1:2181,h2:2181,h3:2181/locks"

// securePort is the port of TLS where none is named: there is none that all use, and this is
// the one of ZooKeeper's own guide.
const securePort = 2281

func init() {
	for name, example := range map[string]string{"zk": example, "zks": "zks://h1:2281,h2:2281,h3:2281/locks?ca=/etc/zookeeper/ca.pem"} {
		driver.Register(driver.Scheme{
			Name: name, Example: example, Open: openURL,
			Capabilities: capabilitiesOf(DefaultSessionTimeout, ""),
		})
	}
}

// Open returns an engine on the ensemble that rawURL names, with a session of its own, once
// that is established. The form is
//
//	zk://user:password@h1:2181,h2:2181,h3:2181/path/of/locks
//
// and the same with zks for TLS. The port is 2181 where none is named, 2281 for TLS. The path
// is Config.Root: what Curator's users have as the chroot of their connection string and the
// path before the lock's name. User and password are those of digest authentication.
// Parameters:
//
//   - recipe (mutex or read-write), session-timeout and timeout are fields of cfg;
//   - ca names a file with the authorities to trust, in place of the system's; cert and key
//     name the files of a certificate to show; insecure=on turns the check of the servers'
//     certificates off. They are for zks only, and may not be given beside Config.TLS.
//
// A URL comes before cfg. ctx bounds the opening only.
func Open(ctx context.Context, rawURL string, cfg Config) (*Engine, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, driver.Failf(driver.Invalid, "the URL cannot be read: write %s, with special characters of a password percent-encoded", example)
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
	servers, err := readURL(u, &cfg)
	if err != nil {
		return nil, err
	}
	return connect(ctx, servers, cfg)
}

// New returns an engine on the ensemble of those servers, host:port each, with a session of its
// own, once that is established. ctx bounds the opening only.
//
// There is no engine on a connection that the program has already: the client library tells
// neither how long its session lasts nor when it moves to another, and both decide how long a
// lease may be relied on. What such a connection was made with, New takes as Config.TLS,
// Config.Dialer, Config.User and Config.ACL. To the servers it is one more connection and one
// more session.
func New(ctx context.Context, servers []string, cfg Config) (*Engine, error) {
	var errs []error
	if len(servers) == 0 {
		errs = append(errs, errors.New("servers are missing: name them as host:port"))
	}
	port := zk.DefaultPort
	if cfg.TLS != nil {
		port = securePort
	}
	addrs := make([]string, len(servers))
	for i, server := range servers {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("servers[%d]: "+format, append([]any{i}, args...)...))
		}
		if addrs[i] = address(server, port, fail); server == "" {
			fail("it is empty: write host:port")
		}
	}
	cfg = cfg.withDefaults()
	errs = append(errs, cfg.validate())
	if err := errors.Join(errs...); err != nil {
		return nil, driver.Fail(driver.Invalid, err)
	}
	return connect(ctx, addrs, cfg)
}

// connect returns an engine as cfg says, which is complete and valid.
func connect(ctx context.Context, servers []string, cfg Config) (*Engine, error) {
	e := newEngine(cfg)
	if err := e.session.connect(servers, cfg.SessionTimeout); err != nil {
		return nil, driver.Failf(driver.Unavailable, "%s: %w", strings.Join(servers, ","), err)
	}
	if err := e.greet(ctx, strings.Join(servers, ",")); err != nil {
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

// readURL takes u apart. Errors never quote what may be a password.
func readURL(u *url.URL, cfg *Config) (servers []string, err error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("URL: "+format, args...)) }
	port := zk.DefaultPort
	switch u.Scheme {
	case "zk":
		if cfg.TLS != nil {
			fail("its scheme is zk, and Config.TLS is set: write zks")
		}
	case "zks":
		port = securePort
	default:
		fail("its scheme is %.16q: write %s", u.Scheme, example)
	}
	if u.Opaque != "" || u.Fragment != "" {
		fail("it is not of the form %s; write a # in a password as %%23", example)
	}
	if u.User != nil {
		cfg.User = u.User.Username()
		cfg.Password, _ = u.User.Password()
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		servers = append(servers, address(host, port, fail))
	}
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		cfg.Root = path
	}
	s := driver.NewSettings(u)
	if u.Scheme == "zks" && cfg.TLS == nil {
		cfg.TLS = urltls.Read(s, fail)
	}
	switch recipe := s.String("recipe", ""); recipe {
	case "":
	case "mutex":
		cfg.Recipe = Mutex
	case "read-write":
		cfg.Recipe = ReadWrite
	default:
		fail("parameter \"recipe\" is %.32q: write mutex or read-write", recipe)
	}
	cfg.SessionTimeout = s.Duration("session-timeout", cfg.SessionTimeout)
	cfg.Timeout = s.Duration("timeout", cfg.Timeout)
	*cfg = cfg.withDefaults()
	errs = append(errs, s.Err(), cfg.validate())
	if err := errors.Join(errs...); err != nil {
		return nil, driver.Fail(driver.Invalid, err)
	}
	return servers, nil
}

// address returns host with a port where it has none.
func address(host string, usual int, fail func(string, ...any)) string {
	u := url.URL{Host: host}
	switch port := u.Port(); {
	case host == "":
		return "127.0.0.1:" + strconv.Itoa(usual)
	case u.Hostname() == "":
		fail("a host is empty: write a name or an address before the port")
	case port == "":
		return strings.TrimSuffix(host, ":") + ":" + strconv.Itoa(usual)
	default:
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			fail("port %.10q is not 1 to 65535", port)
		}
	}
	return host
}

// greet waits for the session and learns how long it lasts.
func (e *Engine) greet(ctx context.Context, servers string) error {
	if _, err := e.session.ready(ctx, e.cfg.SessionTimeout); err != nil {
		d := e.classify(err)
		d.Err = fmt.Errorf("%s: %w", servers, d.Err)
		return d
	}
	e.session.mu.Lock()
	timeout := e.session.timeout
	e.session.floor = timeout
	e.session.mu.Unlock()
	if timeout < sessionShare*MinTTL {
		return driver.Failf(driver.Invalid, "the servers negotiate sessions of %v: raise their maxSessionTimeout to %v or more", timeout, sessionShare*MinTTL)
	}
	e.caps = capabilitiesOf(timeout, servers)
	if e.cfg.User == "" {
		return nil
	}
	// Sent anew by the library on every connection, before anything else.
	_, err := do(ctx, &e.session, func(c *zk.Conn) (struct{}, error) {
		return struct{}{}, c.AddAuth("digest", []byte(e.cfg.User+":"+e.cfg.Password))
	})
	if err != nil {
		return e.classify(err)
	}
	return nil
}
