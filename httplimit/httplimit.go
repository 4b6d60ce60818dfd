// Package httplimit limits how often a web service may be called, for all its instances
// together, with a [holdfast.Limiter].
package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-go/holdfast"
)

// Config configures a middleware. Key and Rate are required.
type Config struct {
	// Key says on whose account a request goes: each key has a limiter of its own. It is 1
	// to about 500 bytes of UTF-8 without control characters, for example the name of an
	// authenticated user. The address of the caller is only as good as whoever wrote it: behind
	// a proxy it is the proxy's, and the headers that proxies add can be forged. An empty key
	// lets the request pass without being counted.
	Key func(*http.Request) string

	// Rate is how much each key may.
	Rate holdfast.Rate

	// Cost is for how much a request counts, at most Rate.AtOnce. Default: 1.
	Cost func(*http.Request) int64

	// Policy is the name of the limit in the headers. Default: "default".
	Policy string

	// Refuse answers a request that does not pass. The headers are set by then. Default: 429
	// with a line of text.
	Refuse http.Handler

	// Failed answers a request when the limiter cannot. Default: nil, the request passes when
	// the engine is down; a service that must not be called more often than the rate, come what
	// may, answers 503 here. One whose key or cost is invalid is answered 400 by default, and one
	// whose context has ended 503: who hangs up at once would get around the limit otherwise.
	Failed func(w http.ResponseWriter, r *http.Request, err error)

	_ struct{}
}

// Middleware returns what puts the limit before a handler. Every answer tells how much is left
// in the fields RateLimit-Policy and RateLimit of the IETF's draft "RateLimit header fields
// for HTTP", and one that was refused tells in Retry-After (RFC 9110) after how many seconds
// the request would pass. It fails with holdfast.ErrInvalid when cfg is incomplete.
func Middleware(c *holdfast.Client, cfg Config) (func(http.Handler) http.Handler, error) {
	if cfg.Policy == "" {
		cfg.Policy = "default"
	}
	if cfg.Refuse == nil {
		cfg.Refuse = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "too many requests", http.StatusTooManyRequests)
		})
	}
	var wrong []error
	if c == nil {
		wrong = append(wrong, errors.New("the client is nil"))
	}
	if cfg.Key == nil {
		wrong = append(wrong, errors.New("the Key is nil: say on whose account a request goes"))
	}
	if c != nil {
		wrong = append(wrong, c.Limiter("rate", cfg.Rate).Err())
	}
	for _, b := range []byte(cfg.Policy) {
		if b < ' ' || b > '~' || b == '"' || b == '\\' {
			wrong = append(wrong, fmt.Errorf("the Policy is %q: it must be ASCII without quotes", cfg.Policy))
			break
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, &holdfast.Error{Op: "httplimit", Kind: holdfast.ErrInvalid, Outcome: holdfast.NotApplied, Err: err}
	}
	policy := fmt.Sprintf("%q;q=%d;w=%d", cfg.Policy, cfg.Rate.Limit(), seconds(cfg.Rate.Window()))
	return func(next http.Handler) http.Handler {
		return &limited{client: c, cfg: cfg, policy: policy, next: next}
	}, nil
}

type limited struct {
	client *holdfast.Client
	cfg    Config
	policy string
	next   http.Handler
}

// ServeHTTP implements http.Handler.
func (l *limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := l.cfg.Key(r)
	if key == "" {
		l.next.ServeHTTP(w, r)
		return
	}
	cost := int64(1)
	if l.cfg.Cost != nil {
		cost = l.cfg.Cost(r)
	}
	d, err := l.client.Limiter(key, l.cfg.Rate).Allow(r.Context(), cost)
	if err != nil {
		l.failed(w, r, err)
		return
	}
	h := w.Header()
	h.Set("RateLimit-Policy", l.policy)
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", l.cfg.Policy, d.Remaining, seconds(d.ResetAfter)))
	if !d.Allowed {
		h.Set("Retry-After", strconv.FormatInt(seconds(d.RetryAfter), 10))
		l.cfg.Refuse.ServeHTTP(w, r)
		return
	}
	l.next.ServeHTTP(w, r)
}

// failed answers a request that could not be counted.
func (l *limited) failed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case l.cfg.Failed != nil:
		l.cfg.Failed(w, r, err)
	case errors.Is(err, holdfast.ErrInvalid):
		http.Error(w, "the request cannot be counted", http.StatusBadRequest)
	case r.Context().Err() != nil:
		http.Error(w, "the request has ended", http.StatusServiceUnavailable)
	default:
		l.next.ServeHTTP(w, r)
	}
}

// seconds rounds up: who retries after a second that was rounded down comes too early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
