package httplimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/httplimit"
	"github.com/holdfast-go/holdfast/memlock"
)

func Example() {
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()
	limit, err := httplimit.Middleware(hf, httplimit.Config{
		Key:  func(r *http.Request) string { user, _, _ := r.BasicAuth(); return user },
		Rate: holdfast.SlidingWindow(1, time.Minute),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	api := limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	for range 2 {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth("alice", "secret")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// 200 "default";q=1;w=60
	// 429 "default";q=1;w=60
}

func client(t *testing.T) (*memlock.Store, *holdfast.Client) {
	t.Helper()
	store := memlock.NewStore(memlock.Config{Clock: memlock.NewManualClock()})
	c, err := holdfast.New(store.Engine(), holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return store, c
}

// call makes one request on the account of user.
func call(h http.Handler, user string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User", user)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var ok = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

func user(r *http.Request) string { return r.Header.Get("User") }

func TestHeaders(t *testing.T) {
	_, c := client(t)
	limit, err := httplimit.Middleware(c, httplimit.Config{Key: user, Rate: holdfast.FixedWindow(3, 1500*time.Millisecond), Policy: "burst",
		Cost: func(*http.Request) int64 { return 2 }})
	if err != nil {
		t.Fatal(err)
	}
	h := limit(ok)
	for i, want := range []struct {
		code              int
		state, retryAfter string
	}{{200, `"burst";r=1;t=2`, ""}, {429, `"burst";r=1;t=2`, "2"}} {
		w := call(h, "alice")
		if w.Code != want.code || w.Header().Get("RateLimit") != want.state || w.Header().Get("Retry-After") != want.retryAfter ||
			w.Header().Get("RateLimit-Policy") != `"burst";q=3;w=2` {
			t.Errorf("call %d: %d %v", i, w.Code, w.Header())
		}
	}
	if w := call(h, "bob"); w.Code != 200 {
		t.Errorf("another key: %d", w.Code)
	}
	for range 3 {
		if w := call(h, ""); w.Code != 200 || w.Header().Get("RateLimit") != "" {
			t.Errorf("no key: %d %v", w.Code, w.Header())
		}
	}
}

func TestEngineDown(t *testing.T) {
	store, c := client(t)
	store.Inject(func(memlock.Call) memlock.Fault { return memlock.Fault{Refuse: errors.New("down")} })
	cfg := httplimit.Config{Key: user, Rate: holdfast.Pace(1, time.Second, 1)}
	open, err := httplimit.Middleware(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Failed = func(w http.ResponseWriter, _ *http.Request, err error) {
		if !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("Failed is told %v", err)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	shut, err := httplimit.Middleware(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if w := call(open(ok), "alice"); w.Code != 200 {
		t.Errorf("by default: %d", w.Code)
	}
	if w := call(shut(ok), "alice"); w.Code != 503 {
		t.Errorf("with Failed: %d", w.Code)
	}
}

func TestBadInput(t *testing.T) {
	_, c := client(t)
	rate := holdfast.Pace(1, time.Second, 1)
	for what, make := range map[string]func() error{
		"no key":  func() error { _, err := httplimit.Middleware(c, httplimit.Config{Rate: rate}); return err },
		"no rate": func() error { _, err := httplimit.Middleware(c, httplimit.Config{Key: user}); return err },
		"bad rate": func() error {
			_, err := httplimit.Middleware(c, httplimit.Config{Key: user, Rate: holdfast.Pace(5, time.Second, 6)})
			return err
		},
		"no client": func() error { _, err := httplimit.Middleware(nil, httplimit.Config{Key: user, Rate: rate}); return err },
		"policy": func() error {
			_, err := httplimit.Middleware(c, httplimit.Config{Key: user, Rate: rate, Policy: "a\"b"})
			return err
		},
	} {
		if err := make(); !errors.Is(err, holdfast.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Nobody gets around the limit with a key or cost that it cannot count, or by hanging up.
func TestNoWayAround(t *testing.T) {
	_, c := client(t)
	limit, err := httplimit.Middleware(c, httplimit.Config{
		Key: user, Rate: holdfast.Pace(1, time.Second, 1),
		Cost: func(r *http.Request) int64 { return int64(len(r.Header.Get("Cost"))) + 1 },
	})
	if err != nil {
		t.Fatal(err)
	}
	reached := false
	h := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	request := func(ctx context.Context, user, cost string) int {
		t.Helper()
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		r.Header.Set("User", user)
		r.Header.Set("Cost", cost)
		h.ServeHTTP(w, r)
		if reached {
			t.Error("the request passed")
		}
		return w.Code
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if code := request(gone, "alice", ""); code != http.StatusServiceUnavailable {
		t.Errorf("a caller that is gone: %d", code)
	}
	if code := request(t.Context(), strings.Repeat("a", 600), ""); code != http.StatusBadRequest {
		t.Errorf("a key that is too long: %d", code)
	}
	if code := request(t.Context(), "alice", "x"); code != http.StatusBadRequest {
		t.Errorf("a cost that never passes: %d", code)
	}
}
