package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/cluster"
	"github.com/holdfast-go/holdfast/memlock"
)

// two returns the handlers of two instances.
func two(t *testing.T, m *cluster.Memory) [2]http.Handler {
	t.Helper()
	var all [2]http.Handler
	for i := range all {
		h, err := handler(m.Client())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = h
	}
	return all
}

// ask makes one request and returns the status.
func ask(h http.Handler, method, path, key string) int {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Authorization", "Bearer "+key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// A customer's limit holds for both instances together, and for each customer apart.
func TestPerCustomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := two(t, cluster.InMemory(t))
		for i := range 8 {
			want := http.StatusOK
			if i >= 5 {
				want = http.StatusTooManyRequests
			}
			if code := ask(all[i%2], "GET", "/hello", "alice-key"); code != want {
				t.Errorf("request %d of alice: %d, want %d", i+1, code, want)
			}
		}
		if code := ask(all[0], "GET", "/hello", "bob-key"); code != http.StatusOK {
			t.Errorf("bob: %d", code)
		}
		for _, key := range []string{"", "mallory-key"} {
			if code := ask(all[0], "GET", "/hello", key); code != http.StatusUnauthorized {
				t.Errorf("key %q: %d", key, code)
			}
		}
		time.Sleep(20 * time.Second)
		if code := ask(all[1], "GET", "/hello", "alice-key"); code != http.StatusOK {
			t.Errorf("alice, later: %d", code)
		}
	})
}

// Mails go out two seconds apart, whoever sends them; who would wait for too long is told at once.
func TestMails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := two(t, cluster.InMemory(t))
		began := time.Now()
		if code := ask(all[0], "POST", "/mail", "alice-key"); code != http.StatusOK || time.Since(began) != 0 {
			t.Errorf("the first mail: %d after %v", code, time.Since(began))
		}
		if code := ask(all[1], "POST", "/mail", "bob-key"); code != http.StatusOK || time.Since(began) < 2*time.Second {
			t.Errorf("the second mail: %d after %v", code, time.Since(began))
		}
		codes := map[int]int{}
		answers := make(chan int)
		for i := range 4 {
			go func() { answers <- ask(all[i%2], "POST", "/mail", []string{"alice-key", "bob-key"}[i%2]) }()
		}
		for range 4 {
			codes[<-answers]++
		}
		if codes[http.StatusOK] != 1 || codes[http.StatusServiceUnavailable] != 3 {
			t.Errorf("of four mails within three seconds: %v", codes)
		}
	})
}

// When nobody can count, requests are answered and mails are not sent.
func TestEngineDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		all := two(t, m)
		m.Inject(func(memlock.Call) memlock.Fault { return memlock.Fault{Refuse: errors.New("down")} })
		for range 8 {
			if code := ask(all[0], "GET", "/hello", "alice-key"); code != http.StatusOK {
				t.Errorf("a request: %d", code)
			}
		}
		if code := ask(all[0], "POST", "/mail", "alice-key"); code != http.StatusServiceUnavailable {
			t.Errorf("a mail: %d", code)
		}
	})
}

// An instance that is told to end finishes the request that waits in it.
func TestServe(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	m := cluster.InMemory(t)
	i := m.Start(func(ctx context.Context, hf *holdfast.Client) error { return run(ctx, hf, l) })
	m.Inject(func(memlock.Call) memlock.Fault {
		select {
		case asked <- struct{}{}:
		default:
		}
		return memlock.Fault{Delay: 200 * time.Millisecond}
	})
	type answer struct {
		body string
		err  error
	}
	answers := make(chan answer, 1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	go func() {
		r, err := http.NewRequest("GET", "http://"+l.Addr().String()+"/hello", nil)
		if err != nil {
			answers <- answer{err: err}
			return
		}
		r.Header.Set("Authorization", "Bearer alice-key")
		w, err := client.Do(r)
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer w.Body.Close()
		body, err := io.ReadAll(w.Body)
		answers <- answer{string(body), err}
	}()
	select {
	case <-asked:
	case a := <-answers:
		t.Fatalf("answered %q, %v without being counted", a.body, a.err)
	}
	i.Stop()
	if a := <-answers; a.err != nil || a.body != "hello alice\n" {
		t.Errorf("the answer is %q, %v", a.body, a.err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("it listens still")
	}
}
