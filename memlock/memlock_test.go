package memlock_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

func request(name string, mode driver.Mode) driver.Request {
	req := driver.Request{Name: name, Mode: mode, Owner: "test", TTL: time.Hour, Span: 1}
	rand.Read(req.Token[:])
	return req
}

// take gets a share that has to be free.
func take(t *testing.T, e driver.Engine, req driver.Request) driver.Claim {
	t.Helper()
	g, err := e.Acquire(t.Context(), req)
	if err != nil {
		t.Fatalf("Acquire(%q): %v", req.Name, err)
	}
	return req.Claim(g)
}

func release(t *testing.T, e driver.Engine, c driver.Claim) {
	t.Helper()
	if err := e.Release(t.Context(), c); err != nil {
		t.Fatalf("Release(%q): %v", c.Name, err)
	}
}

// wantKind ends the test unless err is of that kind and outcome.
func wantKind(t *testing.T, err error, kind driver.Kind, outcome driver.Outcome) {
	t.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != kind || d.Outcome != outcome {
		t.Fatalf("error is %v, want %v, outcome %v", err, kind, outcome)
	}
}

// later makes a request that waits and returns where its error arrives.
func later(t *testing.T, e driver.Engine, req driver.Request) <-chan error {
	req.Wait = true
	err := make(chan error, 1)
	go func() {
		_, e := e.Acquire(t.Context(), req)
		err <- e
	}()
	return err
}

func openURL(t *testing.T, raw string) (driver.Engine, error) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	scheme, ok := driver.Lookup("mem")
	if !ok {
		t.Fatal("scheme mem is not registered")
	}
	return scheme.Open(t.Context(), u)
}

func TestURLNamesShareStores(t *testing.T) {
	tests := []struct {
		a, b   string
		shared bool
	}{
		{"mem://", "mem://", false},
		{"mem://", "mem://url-test", false},
		{"mem://url-test", "mem://url-test", true},
		{"mem://url-test", "mem://url-test/", true},
		{"mem://url-test", "mem://url-test-2", false},
	}
	for _, tt := range tests {
		t.Run(tt.a+" "+tt.b, func(t *testing.T) {
			a, errA := openURL(t, tt.a)
			b, errB := openURL(t, tt.b)
			if err := errors.Join(errA, errB); err != nil {
				t.Fatal(err)
			}
			c := take(t, a, request("n", driver.Exclusive))
			defer release(t, a, c)
			req := request("n", driver.Exclusive)
			g, err := b.Acquire(t.Context(), req)
			if shared := err != nil; shared != tt.shared {
				t.Errorf("shared is %v, want %v (%v)", shared, tt.shared, err)
			}
			if err == nil {
				release(t, b, req.Claim(g))
			}
		})
	}
	if e, err := openURL(t, "mem://url-test"); err != nil || e.Capabilities().Instance != "url-test" {
		t.Errorf("instance of a named store: %v, %v", e, err)
	}
}

func TestURLErrors(t *testing.T) {
	tests := []struct{ url, want string }{
		{"mem://user:hunter2@name", "no user"},
		{"mem://name:99", "port"},
		{"mem://name/path", "path"},
		{"mem://name?nonsense=1", `"nonsense"`},
		{"mem://?ttl=1s", `"ttl"`}, // the core takes its own out before
		{"mem://name?a=%zz", "query"},
		{"mem:name", "mem://"}, // would be a store of its own, not the one of that name
		{"mem://name#fragment", "mem://"},
	}
	for _, tt := range tests {
		e, err := openURL(t, tt.url)
		if err == nil {
			t.Errorf("%s opens %v, want an error", tt.url, e)
		} else if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, want a word of %q", tt.url, err, tt.want)
		}
	}
}

func TestNamesLeaveNothingBehind(t *testing.T) {
	const names, workers = 100_000, 8
	s := memlock.NewStore(memlock.Config{})
	e := s.Engine()
	held := take(t, e, request("kept", driver.Exclusive))
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range names / workers {
				req := request(fmt.Sprint(w, "/", i), driver.Exclusive)
				g, err := e.Acquire(context.Background(), req)
				if err == nil {
					_, err = e.Acquire(context.Background(), request(req.Name, driver.Shared))
				}
				var d *driver.Error
				if !errors.As(err, &d) || d.Kind != driver.Held {
					t.Errorf("%s: %v", req.Name, err)
				}
				if err := e.Release(context.Background(), req.Claim(g)); err != nil {
					t.Errorf("%s: %v", req.Name, err)
				}
			}
		})
	}
	all.Wait()
	if n := s.BooksForTest(); n != 1 {
		t.Errorf("%d names are remembered, want the one that is held", n)
	}
	release(t, e, held)
	if n := s.BooksForTest(); n != 0 {
		t.Errorf("%d names are remembered, want none", n)
	}
}

func TestRefusalsAndWaitsLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memlock.NewStore(memlock.Config{})
		e := s.Engine()
		c := take(t, e, request("n", driver.Exclusive))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, name := range []string{"n", "other"} {
			req := request(name, driver.Exclusive)
			e.Inspect(t.Context(), name)
			e.Renew(t.Context(), []driver.Claim{req.Claim(driver.Grant{})})
			e.Release(t.Context(), req.Claim(driver.Grant{}))
			e.Break(t.Context(), driver.BreakRequest{Name: "other"})
		}
		waiting := request("n", driver.Shared)
		waiting.Wait = true
		if _, err := e.Acquire(ctx, waiting); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait past a deadline: %v", err)
		}
		release(t, e, c)
		if n := s.BooksForTest(); n != 0 {
			t.Errorf("%d names are remembered, want none", n)
		}

		short := request("dead", driver.Exclusive)
		short.TTL = time.Second
		take(t, e, short)
		time.Sleep(time.Second)
		e.List(t.Context(), "", 10)
		if n := s.BooksForTest(); n != 0 {
			t.Errorf("%d names are remembered after an expiry, want none", n)
		}
	})
}

func TestMismatchNamesTheLimitInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := memlock.New(memlock.Config{})
		c := take(t, e, request("n", driver.Exclusive))
		waiting := request("n", driver.Permits)
		waiting.Weight, waiting.Limit = 1, 3
		granted := later(t, e, waiting)
		synctest.Wait()
		other := request("n", driver.Permits)
		other.Weight, other.Limit = 1, 5
		_, err := e.Acquire(t.Context(), other)
		wantKind(t, err, driver.Invalid, driver.NotApplied)
		if want := "limit is 5 here and 3 elsewhere"; !strings.Contains(err.Error(), want) {
			t.Errorf("error is %q, want %q", err, want)
		}
		release(t, e, c)
		if err := <-granted; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseTwice(t *testing.T) {
	e := memlock.New(memlock.Config{})
	for range 2 {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
