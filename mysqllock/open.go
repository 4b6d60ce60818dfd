package mysqllock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

func init() {
	driver.Register(driver.Scheme{
		Name: "mysql", Example: "mysql://user:password@127.0.0.1:3306/app", Open: openURL,
		Capabilities: capabilitiesOf(Config{}.withDefaults()),
	})
}

// Open returns an engine on the server that rawURL names, with a DB of its own, after the server
// has answered. The form is
//
//	mysql://user:password@host:3306/schema
//
// with special characters percent-encoded. Fields of cfg may be given as parameters in
// kebab-case: prefix (empty for raw names), table, connections, max-ttl, timeout, single-node; further tls
// (on, off, skip-verify, or a name that was registered with the driver; default off). The
// program has to import github.com/go-sql-driver/mysql, or another driver of the name "mysql"
// that reads the same DSNs. ctx bounds the opening only.
func Open(ctx context.Context, rawURL string, cfg Config) (*Engine, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's error quotes what it stumbled over, and that may be a password.
		return nil, driver.Failf(driver.Invalid, "the URL cannot be read: write mysql://user:password@host:3306/schema, with special characters percent-encoded")
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
	dsn, instance, err := readURL(u, &cfg)
	if err != nil {
		return nil, err
	}
	const name = "mysql"
	if !slices.Contains(sql.Drivers(), name) {
		return nil, driver.Failf(driver.Unsupported, `no database/sql driver of the name %q: import _ "github.com/go-sql-driver/mysql"`, name)
	}
	db, err := sql.Open(name, dsn)
	if err != nil {
		// The driver's error may quote the DSN.
		return nil, driver.Failf(driver.Invalid, "the driver cannot read the DSN made of the URL: is the name in the parameter tls registered with it?")
	}
	db.SetMaxOpenConns(cfg.withDefaults().Connections)
	e, err := start(ctx, db, cfg)
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	e.owned, e.caps.Instance = true, instance
	return e, nil
}

// readURL returns what a URL says as the driver wants it, and the server's address.
func readURL(u *url.URL, cfg *Config) (dsn, instance string, err error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("URL: "+format, args...)) }
	schema := strings.TrimPrefix(u.Path, "/")
	if u.Opaque != "" || u.Fragment != "" || strings.Contains(schema, "/") {
		fail("it is not of the form mysql://user:password@host:3306/schema; percent-encode / and # in a password")
	}
	if _, _, ok := cutSchema(cfg.Table); schema == "" && !ok && !u.Query().Has("table") {
		fail("it names no schema: write mysql://host:3306/schema")
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "3306"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		fail("port %.10q is not 1 to 65535", port)
	}
	s := driver.NewSettings(u)
	security := readSettings(s, cfg)
	if err := s.Err(); err != nil {
		errs = append(errs, err)
	}
	user, password := "", ""
	if u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	if strings.ContainsRune(user, ':') {
		fail("the user's name has a colon, which no DSN can carry: use New with a DB of your own")
	}
	if len(errs) > 0 {
		return "", "", driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	checked := cfg.withDefaults()
	if err := checked.validate(); err != nil {
		return "", "", err
	}
	addr := net.JoinHostPort(host, port)
	dsn = fmt.Sprintf("%s:%s@tcp(%s)/%s?timeout=%s&tls=%s", user, password, addr, url.PathEscape(schema), checked.Timeout, url.QueryEscape(security))
	return dsn, addr + "/" + schema, nil
}

// readSettings reads the parameters and returns the driver's word for tls.
func readSettings(s *driver.Settings, cfg *Config) string {
	const none = "\x00"
	if prefix := s.String("prefix", none); prefix != none {
		cfg.Prefix, cfg.RawNames = prefix, prefix == ""
	}
	cfg.Table = s.String("table", cfg.Table)
	cfg.Connections = s.Int("connections", cfg.Connections)
	cfg.MaxTTL = s.Duration("max-ttl", cfg.MaxTTL)
	cfg.Timeout = s.Duration("timeout", cfg.Timeout)
	cfg.SingleNode = s.Bool("single-node", cfg.SingleNode)
	switch security := s.String("tls", "off"); security {
	case "on", "true":
		return "true"
	case "off", "false", "":
		return "false"
	default:
		return security
	}
}

// cutSchema splits the name of a table.
func cutSchema(table string) (schema, name string, ok bool) { return strings.Cut(table, ".") }
