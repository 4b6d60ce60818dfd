package fence

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
)

// Transport sends requests under a lease, for resources behind [HTTP]. Use it for servers of
// your own: it tells each of them, and those that they redirect to, the name of the lock.
//
// It is safe for concurrent use, and is not to be changed after its first use.
type Transport struct {
	// Base sends the requests. Default http.DefaultTransport.
	Base http.RoundTripper

	// Lease is the lease of requests whose context carries none: see NewContext. A request
	// that has neither is not sent, and fails with holdfast.ErrInvalid.
	Lease Lease

	// Opens registers the fence with every request, not only with those that read. It is for
	// holders that write without having read; for others it takes the guard away.
	Opens bool
}

// RoundTrip sends the request with the headers of its lease. That the server refused it is in
// the response: see [ResponseError].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	const op = "fence.Transport"
	l, ok := FromContext(r.Context())
	if !ok {
		l = t.Lease
	}
	var n numbers
	var err error
	if l == nil {
		err = invalid(op, "", errors.New("the request has no lease: give its context one with NewContext, or set Transport.Lease"))
	} else {
		n, err = read(r.Context(), op, l)
	}
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as every RoundTripper has to
		}
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set(HeaderName, url.PathEscape(n.name))
	r.Header.Set(HeaderFence, strconv.FormatInt(n.fence, 10))
	r.Header.Del(HeaderOpen)
	if t.Opens {
		r.Header.Set(HeaderOpen, "yes")
	}
	return t.base().RoundTrip(r)
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// CloseIdleConnections closes those of Base, where it can: http.Client.CloseIdleConnections
// calls it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// ResponseError returns the refusal of an [HTTP] guard as an error that matches
// holdfast.ErrStale, and nil for any other response. It reads headers only, and leaves the body
// to the caller.
func ResponseError(r *http.Response) error {
	stored, err := strconv.ParseInt(r.Header.Get(HeaderFence), 10, 64)
	if err != nil || r.StatusCode != http.StatusPreconditionFailed || r.Request == nil {
		return nil
	}
	var n numbers
	n.name, _ = url.PathUnescape(r.Request.Header.Get(HeaderName)) // as RoundTrip wrote it
	n.fence, _ = strconv.ParseInt(r.Request.Header.Get(HeaderFence), 10, 64)
	return stale("fence.HTTP", n, stored)
}
