package fence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast"
)

// The headers of a request under a lease. A refusal answers with HeaderFence: the fence that is
// registered.
const (
	HeaderName  = "Holdfast-Name"  // the lock's name, percent-encoded
	HeaderFence = "Holdfast-Fence" // its fence, in decimal
	HeaderOpen  = "Holdfast-Open"  // "yes": the request registers the fence, though it writes
)

// HTTPConfig configures an [HTTP] guard. The zero value is ready for use.
type HTTPConfig struct {
	// Optional lets requests that write pass without a fence. By default they are answered
	// with 428; requests that read always pass without.
	Optional bool

	// Ahead is how far a fence may be ahead of this server's clock, as fences are
	// microseconds since 1970 on most engines and less on the others: what is larger is
	// refused with 400, so that one request cannot shut out all that come after it. Default
	// 24 h. A negative Ahead turns it off, and leaves the bound of MaxFence.
	Ahead time.Duration

	_ struct{}
}

// HTTP guards the handlers of a web server. Requests name their lease in headers, which
// [Transport] sets:
//
//   - A request that reads (GET, HEAD, OPTIONS, TRACE) registers its fence, so that holders open
//     with their first reading.
//   - A request that writes (any other method) needs the fence that is registered. With
//     HeaderOpen it registers its own: for those who write without having read.
//   - Whoever is refused gets 412 and a problem (RFC 9457) in the body; 428 without a fence, 400
//     with headers that are wrong, 503 when the store does not answer.
//
// A handler does not run beside one with a larger fence of the same name: as soon as a fence is
// registered, the contexts of older requests end with holdfast.ErrStale as their cause, and what
// is missing of their bodies can no longer be read, so that a client that was paused in the
// middle of an upload keeps nobody waiting (its connection is closed, with
// http.ErrAbortHandler); then the newer one waits until their handlers have returned. A client
// that does not take its answer is for http.Server.WriteTimeout. That makes check and write one
// step in one process. Handlers of other processes, and what a
// handler leaves running, are not waited for: where there are several servers, let handlers check
// again at what they write to, with the lease that [FromContext] finds in the request's context.
//
// A reading that a cache answers registers nothing, and the write after it is refused; let
// answers that holders read not be cached.
//
// The headers are not proof of anything. Whoever can send requests can claim to hold any lock, and
// a fence of tomorrow shuts out everybody until then. Let only those who are authenticated and
// may take the lock come here, and take the headers from all others where they enter.
//
// It is safe for concurrent use.
type HTTP struct {
	store Store
	cfg   HTTPConfig
	gate  gate
}

// NewHTTP returns a guard that registers fences in store. What is wrong with its arguments is
// reported as one holdfast.ErrInvalid.
func NewHTTP(store Store, cfg HTTPConfig) (*HTTP, error) {
	if store == nil {
		return nil, invalid("new fence.HTTP", "", errors.New("store is nil: pass new(fence.Memory), a fence.File, or the Store of a fence.SQL"))
	}
	if cfg.Ahead == 0 {
		cfg.Ahead = 24 * time.Hour
	}
	return &HTTP{store: store, cfg: cfg}, nil
}

// Handler returns next behind the guard. The handlers of one guard share its fences.
func (h *HTTP) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead ||
			r.Method == http.MethodOptions || r.Method == http.MethodTrace
		n, opens, err := h.lease(r)
		switch {
		case err != nil:
			refuse(w, http.StatusBadRequest, err)
			return
		case n == numbers{} && (reads || h.cfg.Optional):
			next.ServeHTTP(w, r)
			return
		case n == numbers{}:
			refuse(w, http.StatusPreconditionRequired, invalid("fence.HTTP", "", fmt.Errorf(
				"the request has no fence: send %s and %s", HeaderName, HeaderFence)))
			return
		}
		if h.serve(next, w, r, n, reads || opens) {
			// The deadline of a read that may have come after the end of the body makes the
			// server end the contexts of all later requests on this connection.
			panic(http.ErrAbortHandler)
		}
	})
}

// serve lets a request through that the store accepts, and reports whether it was cut off.
func (h *HTTP) serve(next http.Handler, w http.ResponseWriter, r *http.Request, n numbers, opens bool) bool {
	body := &upload{ReadCloser: r.Body}
	body.over.Store(r.Body == nil || r.Body == http.NoBody)
	visit, ctx := h.gate.enter(r.Context(), n, func() bool {
		// Where there are no deadlines, as in tests without a connection, the handler is
		// waited for.
		return !body.over.Load() && http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) == nil
	})
	func() {
		defer visit.leave()
		check := h.store.Check
		if opens {
			check = h.store.Open
		}
		err := check(ctx, n)
		if err == nil {
			err = visit.proceed(ctx)
		}
		if cause := context.Cause(ctx); errors.Is(cause, holdfast.ErrStale) {
			err = cause // overtaken meanwhile
		}
		switch {
		case errors.Is(err, holdfast.ErrStale):
			refuse(w, http.StatusPreconditionFailed, err)
		case err != nil:
			refuse(w, http.StatusServiceUnavailable, err)
		default:
			r = r.WithContext(NewContext(ctx, n))
			if r.Body != nil {
				r.Body = body
			}
			next.ServeHTTP(w, r)
		}
	}()
	return visit.isCut
}

// upload is the body of a request, which knows whether it was read to its end.
type upload struct {
	io.ReadCloser
	over atomic.Bool
}

func (u *upload) Read(b []byte) (int, error) {
	n, err := u.ReadCloser.Read(b)
	if err == io.EOF {
		u.over.Store(true)
	}
	return n, err
}

// lease reads the headers. It returns the zero numbers where there are none.
func (h *HTTP) lease(r *http.Request) (n numbers, opens bool, err error) {
	const op = "fence.HTTP"
	var errs violations
	one := func(header string) string {
		values := r.Header.Values(header)
		errs.check(len(values) > 1, "%s is there %d times: send it once", header, len(values))
		return r.Header.Get(header)
	}
	encoded, number, open := one(HeaderName), one(HeaderFence), one(HeaderOpen)
	if encoded == "" && number == "" && open == "" && len(errs) == 0 {
		return numbers{}, false, nil
	}
	errs.check(open != "" && open != "yes", "%s is %.20q: send yes, or leave it out", HeaderOpen, open)
	n.name, err = url.PathUnescape(encoded)
	errs.check(err != nil, "%s is %.80q: percent-encode the name", HeaderName, encoded)
	n.fence, err = strconv.ParseInt(number, 10, 64)
	errs.check(err != nil, "%s is %.40q: send the fence in decimal", HeaderFence, number)
	errs.check(h.cfg.Ahead > 0 && n.fence > time.Now().Add(h.cfg.Ahead).UnixMicro(),
		"%s is %d: that is more than %v ahead of this server's clock in microseconds", HeaderFence, n.fence, h.cfg.Ahead)
	if len(errs) > 0 {
		return numbers{}, false, invalid(op, n.name, errs...)
	}
	if n, err = read(r.Context(), op, n); err != nil {
		return numbers{}, false, err
	}
	return n, open == "yes", nil
}

// problem is the body of a refusal.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Name   string `json:"name,omitempty"`
	Fence  int64  `json:"fence,omitempty"`  // that was shown
	Stored int64  `json:"stored,omitempty"` // that is registered
}

// refuse answers in place of the handler. What the store says of itself stays here: it may
// name servers.
func refuse(w http.ResponseWriter, status int, err error) {
	p := problem{Type: "about:blank", Title: http.StatusText(status), Status: status}
	var e *holdfast.Error
	if errors.As(err, &e) {
		p.Name = e.Name
		if e.Err != nil && status != http.StatusServiceUnavailable {
			p.Detail = e.Err.Error()
		}
	}
	var s *StaleError
	if errors.As(err, &s) {
		p.Type, p.Title = "urn:holdfast:stale-fence", "Stale fence"
		p.Fence, p.Stored = s.Fence, s.Stored
		w.Header().Set(HeaderFence, strconv.FormatInt(s.Stored, 10))
	}
	body, err := json.Marshal(p)
	if err != nil { // a problem has nothing that cannot be written
		body = nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}
