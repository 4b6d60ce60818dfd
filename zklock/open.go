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
)

const example = "zk://h1:2181,h2:2181,h3:2181/locks"

func init() {
	driver.Register(driver.Scheme{
		Name: "zk", Example: example, Open: openURL,
		Capabilities: capabilitiesOf(DefaultSessionTimeout, ""),
	})
}

// Open returns an engine on the ensemble that rawURL names, with a session of its own, once
// that is established. The form is
//
//	zk://user:password@h1:2181,h2:2181,h3:2181/path/of/locks
//
// The path is Config.Root: what Curator's users have as the chroot of their connection string
// and the path before the lock's name. User and password are those of digest authentication.
// Further fields of cfg may be given as parameters: recipe (mutex or read-write),
// session-timeout, timeout. A URL comes before cfg. ctx bounds the opening only.
//
// There is no way to open an engine on a connection that the program has already: the client
// library tells neither how long its session lasts nor when it moves to another, and both
// decide how long a lease may be relied on.
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
	if u.Scheme != "zk" {
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
		servers = append(servers, address(host, fail))
	}
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		cfg.Root = path
	}
	s := driver.NewSettings(u)
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

// address returns host with the usual port where it has none.
func address(host string, fail func(string, ...any)) string {
	u := url.URL{Host: host}
	switch port := u.Port(); {
	case host == "":
		return "127.0.0.1:2181"
	case u.Hostname() == "":
		fail("a host is empty: write a name or an address before the port")
	case port == "":
		return strings.TrimSuffix(host, ":") + ":" + strconv.Itoa(zk.DefaultPort)
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
