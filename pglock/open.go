package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

func init() {
	for _, scheme := range []string{"postgres", "postgresql"} {
		driver.Register(driver.Scheme{
			Name: scheme, Example: scheme + "://user:password@127.0.0.1:5432/app", Open: openURL,
			Capabilities: capabilitiesOf(Config{}.withDefaults(), &server{idle: true}),
		})
	}
}

// Open returns an engine on the database that rawURL names, in the form of
//
//	postgres://user:password@host:5432/database?sslmode=verify-full
//
// with a pool of its own. The program has to import a database driver: that of pgx, or lib/pq;
// Open takes the first of "pgx" and "postgres" that is registered. Fields of cfg may be given
// as parameters in kebab-case: schema, encoding (hashed or dotnet), connections, max-ttl,
// heartbeat, timeout. All others are the database driver's. ctx bounds the opening only.
func Open(ctx context.Context, rawURL string, cfg Config) (*Engine, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" {
		return nil, driver.Failf(driver.Invalid, "the URL cannot be read: write postgres://user:password@host:5432/database, with special characters percent-encoded")
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
	rest, err := readURL(u, &cfg)
	if err != nil {
		return nil, err
	}
	through, err := registered(sql.Drivers())
	if err != nil {
		return nil, err
	}
	db, err := sql.Open(through, rest.String())
	if err != nil {
		return nil, driver.Fail(driver.Invalid, withoutSecrets(err))
	}
	db.SetMaxIdleConns(0) // what is not the engine's has no use
	e, err := New(ctx, db, cfg)
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	e.owned = true
	return e, nil
}

// readURL takes the engine's own parameters out of u.
func readURL(u *url.URL, cfg *Config) (*url.URL, error) {
	s := driver.NewSettings(u)
	cfg.Schema = s.String("schema", cfg.Schema)
	cfg.Connections = s.Int("connections", cfg.Connections)
	cfg.MaxTTL = s.Duration("max-ttl", cfg.MaxTTL)
	cfg.Heartbeat = s.Duration("heartbeat", cfg.Heartbeat)
	cfg.Timeout = s.Duration("timeout", cfg.Timeout)
	var errs []error
	switch encoding := s.String("encoding", strings.ToLower(cfg.Encoding.String())); encoding {
	case "hashed":
		cfg.Encoding = Hashed
	case "dotnet":
		cfg.Encoding = DotNet
	default:
		errs = append(errs, fmt.Errorf("parameter \"encoding\" is %.32q: write hashed or dotnet", encoding))
	}
	if u.Fragment != "" {
		errs = append(errs, errors.New("the URL has a fragment: write a # in a password as %23"))
	}
	errs = append(errs, s.ErrSoFar(), cfg.withDefaults().validate())
	if err := errors.Join(errs...); err != nil {
		return nil, driver.Fail(driver.Invalid, err)
	}
	return s.Rest(u), nil
}

// registered returns the database driver to open a pool with.
func registered(names []string) (string, error) {
	for _, name := range []string{"pgx", "postgres"} {
		if slices.Contains(names, name) {
			return name, nil
		}
	}
	return "", driver.Failf(driver.Unsupported, "the program has no database driver for PostgreSQL: import _ \"github.com/jackc/pgx/v5/stdlib\" or _ \"github.com/lib/pq\"")
}
