package fence_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
)

// patience bounds every wait: long, because machines are busy.
const patience = 30 * time.Second

// serve starts a server with next behind a guard.
func serve(t *testing.T, cfg fence.HTTPConfig, next http.HandlerFunc) *httptest.Server {
	t.Helper()
	h, err := fence.NewHTTP(new(fence.Memory), cfg)
	must(t, err)
	s := httptest.NewServer(h.Handler(next))
	t.Cleanup(s.Close)
	return s
}

// send makes a request under a lease, nil for none, and returns the response with its body read.
func send(t *testing.T, s *httptest.Server, method string, l fence.Lease, opens bool) (*http.Response, string) {
	t.Helper()
	client := s.Client()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if l != nil {
		client = &http.Client{Transport: &fence.Transport{Base: s.Client().Transport, Opens: opens}}
		ctx = fence.NewContext(ctx, l)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.URL, strings.NewReader("body"))
	must(t, err)
	response, err := client.Do(r)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response, string(body)
}

func nothing(http.ResponseWriter, *http.Request) {}

func TestHTTP(t *testing.T) {
	var seen fence.Lease
	s := serve(t, fence.HTTPConfig{}, func(_ http.ResponseWriter, r *http.Request) { seen, _ = fence.FromContext(r.Context()) })
	name := "invoice/2026 %25 ü"
	a, b := fence.Of(name, 33), fence.Of(name, 34)
	for i, step := range []struct {
		method string
		lease  fence.Lease
		opens  bool
		status int
		stored int64 // 412 only
	}{
		{"PUT", a, false, 412, 0}, // not opened
		{"GET", a, false, 200, 0},
		{"PUT", a, false, 200, 0},
		{"PUT", b, false, 412, 33},
		{"PUT", b, true, 200, 0}, // blind
		{"DELETE", b, false, 200, 0},
		{"PATCH", a, false, 412, 34},
		{"POST", a, true, 412, 34},
		{"GET", a, false, 412, 34},
		{"HEAD", a, false, 412, 34},
		{"GET", nil, false, 200, 0},
		{"PUT", nil, false, 428, 0},
		{"PUT", fence.Of("other", 1), true, 200, 0},
	} {
		seen = nil
		r, body := send(t, s, step.method, step.lease, step.opens)
		if r.StatusCode != step.status {
			t.Fatalf("step %d: %s: %d %s, want %d", i, step.method, r.StatusCode, body, step.status)
		}
		if let := step.status == 200; let && step.lease != nil && (seen == nil || seen.Name() != step.lease.Name() || seen.Fence() != step.lease.Fence()) {
			t.Errorf("step %d: the handler sees the lease %v", i, seen)
		}
		if step.status != 412 {
			if err := fence.ResponseError(r); err != nil {
				t.Errorf("step %d: %v", i, err)
			}
			continue
		}
		wantStale(t, fence.ResponseError(r), step.lease.Fence(), step.stored)
		if r.Header.Get("Content-Type") != "application/problem+json" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("step %d: headers %v", i, r.Header)
		}
		if step.method == "HEAD" {
			continue
		}
		var p struct {
			Type, Title, Detail, Name string
			Status                    int
			Fence, Stored             int64
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil || p.Type != "urn:holdfast:stale-fence" || p.Status != 412 ||
			p.Name != name || p.Fence != step.lease.Fence() || p.Stored != step.stored || p.Detail == "" || p.Title == "" {
			t.Errorf("step %d: problem %s (%v)", i, body, err)
		}
	}
}

func TestHTTPOptional(t *testing.T) {
	s := serve(t, fence.HTTPConfig{Optional: true}, nothing)
	if r, _ := send(t, s, "PUT", nil, false); r.StatusCode != 200 {
		t.Errorf("without a fence: %s", r.Status)
	}
	if r, _ := send(t, s, "PUT", fence.Of("n", 1), false); r.StatusCode != 412 {
		t.Errorf("with one that was not opened: %s", r.Status)
	}
}

// Whatever the headers say, nobody gets in by them being wrong, and a number from the future
// shuts nobody out.
func TestHTTPBadHeaders(t *testing.T) {
	s := serve(t, fence.HTTPConfig{}, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
	future := strconv.FormatInt(time.Now().Add(25*time.Hour).UnixMicro(), 10)
	for i, h := range []http.Header{
		{fence.HeaderName: {"n"}},
		{fence.HeaderFence: {"1"}},
		{fence.HeaderOpen: {"yes"}},
		{fence.HeaderName: {""}, fence.HeaderFence: {""}, fence.HeaderOpen: {"", ""}},
		{fence.HeaderName: {"n", "n"}, fence.HeaderFence: {"1"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"1", "2"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"1"}, fence.HeaderOpen: {"true"}},
		{fence.HeaderName: {"%zz"}, fence.HeaderFence: {"1"}},
		{fence.HeaderName: {"%00"}, fence.HeaderFence: {"1"}},
		{fence.HeaderName: {"%ff"}, fence.HeaderFence: {"1"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"0"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"-1"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"1.76e+15"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"0x21"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {future}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"9007199254740991"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"9223372036854775807"}},
		{fence.HeaderName: {"n"}, fence.HeaderFence: {"9223372036854775808"}},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = h
		w := httptest.NewRecorder()
		s.Config.Handler.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), `"detail"`) {
			t.Errorf("%d: %v: %d %s", i, h, w.Code, w.Body)
		}
	}
}

// A store that does not answer lets nobody pass, and what it says is not for strangers.
func TestHTTPStoreFails(t *testing.T) {
	h, err := fence.NewHTTP(brokenStore{}, fence.HTTPConfig{Ahead: -1})
	must(t, err)
	s := httptest.NewServer(h.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })))
	defer s.Close()
	for _, method := range []string{"GET", "PUT"} {
		r, body := send(t, s, method, fence.Of("n", fence.MaxFence), false)
		if r.StatusCode != 503 || strings.Contains(body, "db.internal") {
			t.Errorf("%s: %d %s", method, r.StatusCode, body)
		}
	}
}

type brokenStore struct{}

func (brokenStore) Open(context.Context, fence.Lease) error {
	return &holdfast.Error{Op: "open", Kind: holdfast.ErrUnavailable, Err: errors.New("db.internal is down")}
}

func (brokenStore) Check(context.Context, fence.Lease) error {
	return errors.New("db.internal is down")
}

// A request of the old holder is being handled when the new holder comes: it is told, the rest
// of its body is not waited for, and the new holder's is handled only when its handler has
// returned.
func TestHTTPOvertakes(t *testing.T) {
	type event string
	events := make(chan event, 10)
	finish := make(chan struct{})
	finished := sync.OnceFunc(func() { close(finish) })
	defer finished()
	s := serve(t, fence.HTTPConfig{}, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != "PUT" {
			events <- "the new holder reads"
			return
		}
		events <- "the old holder's handler runs"
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the old holder's body came to its end")
		}
		<-r.Context().Done()
		if cause := context.Cause(r.Context()); !errors.Is(cause, holdfast.ErrStale) {
			t.Errorf("the old holder's context ended with %v", cause)
		}
		events <- "the old holder's handler is told"
		<-finish
		events <- "the old holder's handler returns"
	})
	next := func(want event) {
		t.Helper()
		select {
		case got := <-events:
			if got != want {
				t.Fatalf("%s, want: %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("not within %v: %s", patience, want)
		}
	}

	// The old holder is paused in the middle of its upload.
	body, upload := io.Pipe()
	defer upload.Close()
	old := make(chan struct{})
	go func() {
		defer close(old)
		client := http.Client{Transport: &fence.Transport{Base: s.Client().Transport, Lease: fence.Of("n", 33), Opens: true}}
		r, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL, body)
		if err != nil {
			t.Error(err)
			return
		}
		if response, err := client.Do(r); err == nil {
			response.Body.Close()
			t.Errorf("half an upload was answered with %s", response.Status)
		}
	}()
	_, err := io.WriteString(upload, "half of it")
	must(t, err)
	next("the old holder's handler runs")

	status := make(chan int, 1)
	go func() {
		r, _ := send(t, s, "GET", fence.Of("n", 34), false)
		status <- r.StatusCode
	}()
	next("the old holder's handler is told")
	select {
	case e := <-events:
		t.Fatalf("while the old holder's handler runs: %s", e)
	case <-time.After(50 * time.Millisecond): // a chance to be wrong
	}
	finished()
	next("the old holder's handler returns")
	next("the new holder reads")
	if got := <-status; got != 200 {
		t.Errorf("the new holder gets %d", got)
	}
	upload.Close()
	<-old
}

// Requests of one holder, and of holders of different names, are handled side by side.
func TestHTTPSideBySide(t *testing.T) {
	var inside sync.WaitGroup
	inside.Add(3)
	s := serve(t, fence.HTTPConfig{}, func(_ http.ResponseWriter, r *http.Request) {
		inside.Done()
		together := make(chan struct{})
		go func() { inside.Wait(); close(together) }()
		select {
		case <-together:
		case <-time.After(patience):
			t.Error("one waits for another")
		}
		if err := r.Context().Err(); err != nil {
			t.Errorf("a request was ended: %v", err)
		}
	})
	var all sync.WaitGroup
	for _, l := range []fence.Lease{fence.Of("n", 33), fence.Of("n", 33), fence.Of("m", 34)} {
		all.Go(func() {
			if r, _ := send(t, s, "GET", l, false); r.StatusCode != 200 {
				t.Errorf("status %d", r.StatusCode)
			}
		})
	}
	all.Wait()
}

// A request that was overtaken when all of it had arrived gets its answer, and its connection
// serves the next one.
func TestHTTPConnectionGoesOn(t *testing.T) {
	running := make(chan struct{}, 1)
	s := serve(t, fence.HTTPConfig{}, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		if l, _ := fence.FromContext(r.Context()); l.Fence() == 33 {
			running <- struct{}{}
			<-r.Context().Done()
		} else if err := r.Context().Err(); err != nil {
			t.Errorf("the context of a new request has ended: %v", err)
		}
	})
	old := s.Client().Transport.(*http.Transport).Clone()
	old.MaxConnsPerHost = 1
	client := http.Client{Transport: &fence.Transport{Base: old, Opens: true}}
	defer client.CloseIdleConnections()
	put := func(n int64) int {
		ctx, cancel := context.WithTimeout(fence.NewContext(t.Context(), fence.Of("n", n)), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "PUT", s.URL, strings.NewReader("body"))
		var response *http.Response
		if err == nil {
			response, err = client.Do(r)
		}
		if err != nil {
			t.Error(err)
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	status := make(chan int, 1)
	go func() { status <- put(33) }()
	<-running
	if r, _ := send(t, s, "GET", fence.Of("n", 34), false); r.StatusCode != 200 {
		t.Errorf("the new holder: %s", r.Status)
	}
	if got := <-status; got != 200 {
		t.Errorf("the overtaken one: %d", got)
	}
	if got := put(35); got != 200 {
		t.Errorf("afterwards: %d", got)
	}
}

// Who waits for an older request no longer than its own context does, gets no answer that lets
// it believe to be alone.
func TestHTTPWaitsNoLongerThanAsked(t *testing.T) {
	running, finish := make(chan struct{}), make(chan struct{})
	h, err := fence.NewHTTP(new(fence.Memory), fence.HTTPConfig{})
	must(t, err)
	handler := h.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			t.Error("the new holder's handler was called")
			return
		}
		close(running)
		<-finish
	}))
	do := func(ctx context.Context, method, number string) int {
		r := httptest.NewRequestWithContext(ctx, method, "/", nil)
		r.Header = http.Header{fence.HeaderName: {"n"}, fence.HeaderFence: {number}, fence.HeaderOpen: {"yes"}}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	old := make(chan int)
	go func() { old <- do(t.Context(), "PUT", "33") }()
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if code := do(ctx, "GET", "34"); code != 503 {
		t.Errorf("status %d", code)
	}
	close(finish)
	<-old
}

func TestTransport(t *testing.T) {
	var got http.Header
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		got = r.Header
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	})
	do := func(tr fence.Transport, ctx context.Context) (*http.Request, error) {
		got, tr.Base = nil, base
		r, err := http.NewRequestWithContext(ctx, "PUT", "http://127.0.0.1/", nil)
		must(t, err)
		_, err = tr.RoundTrip(r)
		return r, err
	}
	inContext := fence.NewContext(t.Context(), fence.Of("a b/ü", 1760000000123456))

	r, err := do(fence.Transport{Lease: fence.Of("other", 1)}, inContext)
	must(t, err)
	name, _ := url.PathUnescape(got.Get(fence.HeaderName))
	if name != "a b/ü" || got.Get(fence.HeaderFence) != "1760000000123456" || got.Get(fence.HeaderOpen) != "" {
		t.Errorf("sent %v", got)
	}
	if len(r.Header) != 0 {
		t.Errorf("the caller's request was changed: %v", r.Header)
	}
	_, err = do(fence.Transport{Lease: fence.Of("other", 1), Opens: true}, t.Context())
	must(t, err)
	if got.Get(fence.HeaderName) != "other" || got.Get(fence.HeaderOpen) != "yes" {
		t.Errorf("sent %v", got)
	}

	for _, l := range []fence.Lease{nil, fence.Of("n", 0)} {
		_, err = do(fence.Transport{Lease: l}, t.Context())
		wantInvalid(t, err, "fence.Transport")
		if got != nil {
			t.Errorf("a request went out under %v", l)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHTTPBadSettings(t *testing.T) {
	_, err := fence.NewHTTP(nil, fence.HTTPConfig{})
	wantInvalid(t, err, "store is nil")
}
