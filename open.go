package holdfast

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// Open returns a client on the engine that rawURL names, for example mem:// or
// file:///var/lib/holdfast. The package of the engine has to be imported, if only for its
// side effect. Fields of cfg may be given in the URL as well, by their names in kebab-case:
// ttl, renew-interval, owner, max-local-handovers, local-handover-window, release-timeout;
// what stands in the URL counts. Parameters that nobody knows are an error.
//
// ctx bounds the opening only. Passwords never appear in errors.
func Open(ctx context.Context, rawURL string, cfg Config) (*Client, error) {
	engine, cfg, err := openEngine(ctx, rawURL, cfg)
	if err != nil {
		// A password with a bare / ? or # runs on into the path, the query or the fragment.
		if u, e := url.Parse(rawURL); e == nil && u.User == nil && strings.Contains(rawURL, "@") {
			err = driver.Fail(driver.Invalid, errUnreadable)
		}
		e := &Error{Op: "open", Kind: ErrUnavailable, Outcome: NotApplied, Err: err}
		var d *driver.Error
		if errors.As(err, &d) {
			e.Kind, e.Err = kindOf(d.Kind), d.Err
		}
		return nil, e
	}
	c, err := New(engine, cfg)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return c, nil
}

func openEngine(ctx context.Context, rawURL string, cfg Config) (driver.Engine, Config, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's error quotes what it stumbled over, and that may be a password.
		return nil, cfg, driver.Fail(driver.Invalid, errUnreadable)
	}
	scheme, ok := driver.Lookup(u.Scheme)
	if !ok {
		return nil, cfg, driver.Fail(driver.Invalid, unknownScheme(u.Scheme))
	}
	s := driver.NewSettings(u)
	cfg.TTL = s.Duration("ttl", cfg.TTL)
	cfg.RenewInterval = s.Duration("renew-interval", cfg.RenewInterval)
	cfg.Owner = s.String("owner", cfg.Owner)
	cfg.MaxLocalHandovers = s.Int("max-local-handovers", cfg.MaxLocalHandovers)
	cfg.LocalHandoverWindow = s.Duration("local-handover-window", cfg.LocalHandoverWindow)
	cfg.ReleaseTimeout = s.Duration("release-timeout", cfg.ReleaseTimeout)
	if err := s.ErrSoFar(); err != nil {
		return nil, cfg, err
	}
	engine, err := scheme.Open(ctx, s.Rest(u))
	return engine, cfg, err
}

func unknownScheme(name string) error {
	var known []string
	for _, s := range driver.Schemes() {
		known = append(known, s.Example)
	}
	if len(known) == 0 {
		return fmt.Errorf("scheme %q is not known, nor is any other: import an engine's package", name)
	}
	return fmt.Errorf("scheme %q is not known: use one of %s, or import the engine's package", shorten(name), strings.Join(known, ", "))
}

var errUnreadable = errors.New("URL cannot be read: write scheme://user:password@host/path?setting=value, " +
	"with special characters of user and password percent-encoded")
