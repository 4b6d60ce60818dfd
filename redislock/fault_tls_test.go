package redislock_test

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// Whatever is wrong with TLS, nothing is sent, and the error says that it is TLS.
func TestFaultTLS(t *testing.T) {
	t.Parallel()
	plain := newLab(t, testserver.RedisOptions{})
	secure := newLab(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{}})
	mutual := newLab(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{ClientCert: true}})
	expired := newLab(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{Expired: true}})
	named := newLab(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{Hosts: []string{"redis.example.com"}}})
	noCert := mutual.server.TLSConfig()
	noCert.Certificates = nil
	wrongName := named.server.TLSConfig()
	wrongName.ServerName = "127.0.0.1"
	for _, c := range []struct {
		name    string
		l       *lab
		config  *tls.Config
		text    string
		unknown bool // that nothing was sent cannot be told
	}{
		{"wrong authority", secure, testserver.NewCA(t).ClientConfig(), "unknown authority", false},
		{"expired", expired, expired.server.TLSConfig(), "expired", false},
		{"wrong name", named, wrongName, "doesn't contain any IP SANs", false},
		{"no client certificate", mutual, noCert, "certificate required", false},
		{"plain to TLS", secure, nil, "TLS", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &lab{t, c.l.server}
			client := l.application(c.l.server.Addr(), func(o *redis.Options) { o.TLSConfig = c.config })
			_, err := client.Mutex("name").TryLock(l.patience())
			if c.unknown {
				if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), c.text) {
					l.Errorf("error is %v", err)
				}
			} else {
				l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, c.text, "check TLS on both sides")
			}
			if n := l.scripts(); n != 0 {
				l.Errorf("%d script calls", n)
			}
		})
	}
	for _, c := range []struct{ name, url, text string }{
		{"unknown authority", "rediss://" + secure.server.Addr() + "?timeout=10s", "check TLS on both sides"},
		{"plain to TLS", "redis://" + secure.server.Addr(), "TLS (rediss://)"},
		{"TLS to plain", "rediss://" + plain.server.Addr() + "?timeout=300ms", "TLS"},
	} {
		t.Run("open "+c.name, func(t *testing.T) {
			l := &lab{t, plain.server}
			_, err := holdfast.Open(l.patience(), c.url, holdfast.Config{})
			l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, c.text)
		})
	}
	for _, l := range []*lab{secure, mutual} {
		good := l.application(l.server.Addr(), func(o *redis.Options) { o.TLSConfig = l.server.TLSConfig() })
		l.unlock(l.lock(good, "name"))
	}
	insecure, err := holdfast.Open(secure.patience(), "rediss://"+secure.server.Addr()+"?insecure=on", holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer insecure.Close()
	secure.unlock(secure.lock(insecure, "name"))
}
