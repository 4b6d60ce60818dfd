package zklock_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// TestTLS: a server that shows a certificate and demands one is reached with both, by a URL
// and by a Config, over more than one connection; and with anything less it is said that it is
// TLS.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := testserver.ZooKeeper(t, testserver.ZooKeeperOptions{TLS: &testserver.TLSOptions{ClientCert: true}})
	ca, addr := s.CA(), s.SecureAddr()
	file := func(key, path string) string { return key + "=" + url.QueryEscape(path) }
	mine, other := ca.Issue("me", false), testserver.NewCA(t)
	foreign := other.Issue("me", false)
	trust, show := file("ca", ca.File()), file("cert", mine.Cert)+"&"+file("key", mine.Key)

	t.Run("URL", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, query := range []string{trust, "insecure=on"} {
			hf, err := holdfast.Open(ctx, "zks://"+addr+"/url?"+show+"&"+query, holdfast.Config{})
			if err != nil {
				t.Fatal(err)
			}
			lease, err := hf.Mutex("n").Lock(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := lease.Unlock(); err != nil {
				t.Error(err)
			}
			if d, err := hf.Diagnose(ctx); err != nil || !hasFact(d, addr, "standalone") {
				t.Errorf("%+v, %v: want the server to say over TLS who it is", d, err)
			}
			if err := hf.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("Config", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, s.Addr(), patient)
		p := testserver.Proxy(t, addr)
		var dialled atomic.Int64
		l.cfg.TLS = ca.ClientConfig()
		l.cfg.Dialer = func(network, address string, limit time.Duration) (net.Conn, error) {
			dialled.Add(1)
			return net.DialTimeout(network, address, limit)
		}
		e, err := zklock.New(l.context(), []string{p.Addr()}, l.cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		c := l.take(e, request("n", driver.Exclusive, long))
		p.Cut()
		l.eventually("the claim is renewed", func() bool { return e.Renew(l.context(), []driver.Claim{c})[0] == nil })
		if n := dialled.Load(); n < 2 {
			t.Errorf("the dialer was called %d times, want once for each connection", n)
		}
		// A connection on which nothing moves is left in time, with what TLS has to say unsaid.
		p.Freeze()
		ctx, cancel := context.WithTimeout(l.context(), 100*time.Millisecond)
		defer cancel()
		if err := e.Renew(ctx, []driver.Claim{c})[0]; err == nil {
			t.Error("a claim was renewed over a connection that is frozen")
		}
		p.Refuse()
		p.Cut()
		p.Heal()
		l.eventually("the claim is renewed", func() bool { return e.Renew(l.context(), []driver.Claim{c})[0] == nil })
		l.release(e, c)
	})
	for says, raw := range map[string]string{
		"wrong authority":      "zks://" + addr + "?" + show + "&" + file("ca", other.File()),
		"system's authorities": "zks://" + addr + "?" + show,
		"no certificate":       "zks://" + addr + "?" + trust,
		"foreign certificate":  "zks://" + addr + "?" + trust + "&" + file("cert", foreign.Cert) + "&" + file("key", foreign.Key),
		"plain to TLS":         "zk://" + addr + "?",
		"TLS to plain":         "zks://" + s.Addr() + "?" + trust + "&" + show,
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := zklock.Open(ctx, raw+"&session-timeout=3s&timeout=1s", zklock.Config{})
			var d *driver.Error
			if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != driver.NotApplied || !strings.Contains(err.Error(), "TLS") {
				t.Errorf("error is %v, want one that says TLS", err)
			}
		})
	}
}

func hasFact(d holdfast.Diagnosis, subject, text string) bool {
	for _, f := range d.Facts {
		if strings.Contains(f.Name, subject) && strings.Contains(f.Value, text) {
			return true
		}
	}
	return false
}

// TestNewRefuses: what New cannot use is refused before anything is sent.
func TestNewRefuses(t *testing.T) {
	for want, servers := range map[string][]string{
		"servers are missing":   nil,
		"servers[1]: it is":     {"h1", ""},
		`servers[0]: port "0"`:  {"h1:0"},
		"servers[2]: a host is": {"h1", "h2", ":2181"},
		"SessionTimeout is 1ms": {"h1"},
		`servers[0]: a host is`: {":1"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := zklock.New(ctx, servers, zklock.Config{SessionTimeout: time.Millisecond})
		cancel()
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want one with %q", servers, err, want)
		}
	}
	for want, raw := range map[string]string{
		"write zks":   "zk://h",
		`"ca" is not`: "zks://h?ca=/none",
	} {
		var d *driver.Error
		if _, err := zklock.Open(context.Background(), raw, zklock.Config{TLS: &tls.Config{}}); !errors.As(err, &d) || d.Kind != driver.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s beside Config.TLS: error is %v, want one with %q", raw, err, want)
		}
	}
	for _, raw := range []string{"zks://h?ca=/none", "zks://h?cert=a", "zks://h?cert=/a&key=/b"} {
		var d *driver.Error
		if _, err := zklock.Open(context.Background(), raw, zklock.Config{}); !errors.As(err, &d) || d.Kind != driver.Invalid {
			t.Errorf("%s: error is %v, want an Invalid one", raw, err)
		}
	}
}
