package etcdlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/urltls"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func init() {
	for _, s := range []struct{ name, example string }{
		{"etcd", "etcd://h1:2379,h2:2379,h3:2379"},
		{"etcds", "etcds://h1:2379,h2:2379,h3:2379?ca=/etc/etcd/ca.pem"},
	} {
		driver.Register(driver.Scheme{Name: s.name, Example: s.example, Open: openURL, Capabilities: capabilitiesOf("")})
	}
}

// Open returns an engine on the cluster that rawURL names, with a client of its own, after the
// cluster has answered once. The form is
//
//	etcd://user:password@h1:2379,h2:2379,h3:2379
//
// and the same with etcds for TLS. The port is 2379 where none is named. Parameters:
//
//   - prefix (empty for raw keys), timeout and max-txn-ops are fields of cfg;
//   - ca names a file with the authorities to trust, in place of the system's; cert and key
//     name the files of a certificate to show; insecure=on turns the check of the members'
//     certificates off. They are for etcds only.
//
// ctx bounds the opening only.
func Open(ctx context.Context, rawURL string, cfg Config) (*Engine, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The error quotes the URL, and with it the password.
		return nil, driver.Failf(driver.Invalid, "the URL cannot be read: write etcd://user:password@h1:2379,h2:2379, with special characters percent-encoded")
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
	config, err := read(u, &cfg)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, driver.Fail(driver.Unavailable, err)
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, unreachable(ctx, config, err)
	}
	e, err := New(client, cfg)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	e.owned = true
	if err := e.greet(ctx); err != nil {
		_ = e.Close()
		return nil, unreachable(ctx, config, err)
	}
	return e, nil
}

// greet asks the cluster for something that a majority has to agree on.
func (e *Engine) greet(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	_, err := e.client.Get(bounded, e.cfg.keysOf("%"), clientv3.WithPrefix(), clientv3.WithCountOnly())
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return cmp.Or(e.connectionError(ctx), err)
	}
	return err
}

// connectionError returns why there is no connection, nil when that is not known. The client
// waits for one until the time is over, and does not say why there was none; a call that does
// not wait is told.
func (e *Engine) connectionError(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	conn := e.client.ActiveConnection()
	_, err := pb.NewMaintenanceClient(conn).Status(bounded, &pb.StatusRequest{}, grpc.WaitForReady(false))
	if status.Code(err) != codes.Unavailable {
		return nil
	}
	return err
}

// unreachable is the error of a cluster that could not be opened.
func unreachable(ctx context.Context, config clientv3.Config, err error) error {
	v := verdictOn(err)
	hosts := instanceOf(config.Endpoints)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%s does not answer within the timeout: are the addresses right, does either side expect TLS, and is a majority up? %w", hosts, err)
	case v.advice != "":
		err = fmt.Errorf("%s: %w (%s)", hosts, err, v.advice)
	default:
		err = fmt.Errorf("%s does not answer: is the address right, and does either side expect TLS, or a certificate of the other? %w", hosts, err)
	}
	return driver.Fail(driver.Unavailable, err)
}

// read takes u apart. Errors never quote what may be a password.
func read(u *url.URL, cfg *Config) (clientv3.Config, error) {
	config := clientv3.Config{
		Logger:             zap.NewNop(), // what fails is told to who asked
		DialKeepAliveTime:  5 * time.Second,
		MaxCallSendMsgSize: 8 << 20, DialKeepAliveTimeout: 3 * time.Second,
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("URL: "+format, args...)) }
	if u.User != nil {
		config.Username = u.User.Username()
		config.Password, _ = u.User.Password()
		if config.Username == "" || config.Password == "" {
			fail("a user and a password go together: write user:password@, or neither")
		}
	}
	if u.Opaque != "" || u.Fragment != "" {
		fail("it is not of the form %s://host:2379; write a # in a password as %%23", u.Scheme)
	}
	if strings.Trim(u.Path, "/") != "" {
		fail("it has a path: write the prefix of the keys as ?prefix=")
	}
	secure := u.Scheme == "etcds"
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	for _, host := range hosts(u.Host, fail) {
		config.Endpoints = append(config.Endpoints, scheme+host)
	}
	s := driver.NewSettings(u)
	const none = "\x00"
	if prefix := s.String("prefix", none); prefix != none {
		cfg.Prefix, cfg.RawKeys = prefix, prefix == ""
	}
	cfg.Timeout = s.Duration("timeout", cfg.Timeout)
	cfg.MaxTxnOps = s.Int("max-txn-ops", cfg.MaxTxnOps)
	if secure {
		config.TLS = urltls.Read(s, fail)
	}
	if err := s.Err(); err != nil {
		errs = append(errs, err)
	}
	defaults := cfg.withDefaults()
	if err := defaults.validate(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return config, driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	config.DialTimeout = defaults.Timeout
	return config, nil
}

// hosts splits the hosts of a URL and adds the usual port where there is none.
func hosts(all string, fail func(string, ...any)) []string {
	const port = ":2379"
	var list []string
	for host := range strings.SplitSeq(all, ",") {
		u := url.URL{Host: host}
		switch {
		case u.Hostname() == "" && (host != "" || strings.Contains(all, ",")):
			fail("a host is empty: write a name or an address before the port")
		case host == "":
			list = append(list, "127.0.0.1"+port)
		case u.Port() == "":
			list = append(list, strings.TrimSuffix(host, ":")+port)
		default:
			if n, err := strconv.Atoi(u.Port()); err != nil || n < 1 || n > 65535 {
				fail("port %.10q is not 1 to 65535", u.Port())
			}
			list = append(list, host)
		}
	}
	return list
}
