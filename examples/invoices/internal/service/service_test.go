package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/service"
)

// lines is a log that can be waited for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await returns the attributes of the first line with that message.
func (l *lines) await(t *testing.T, message string) map[string]any {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(l.String()) {
			var attributes map[string]any
			if json.Unmarshal([]byte(line), &attributes) == nil && attributes["msg"] == message {
				return attributes
			}
		}
	}
	t.Fatalf("no %q in\n%s", message, l)
	return nil
}

// instance is a service on SQLite and locks in files.
type instance struct {
	url  string
	log  *lines
	stop func() int
}

func start(t *testing.T, more map[string]string) *instance {
	t.Helper()
	folder := t.TempDir()
	env := map[string]string{
		"INVOICES_LISTEN":   "127.0.0.1:0",
		"INVOICES_DATABASE": "sqlite://" + filepath.Join(folder, "invoices.db"),
		"HOLDFAST_URL":      "file://" + filepath.Join(folder, "locks"),
	}
	for name, value := range more {
		env[name] = value
	}
	i := &instance{log: &lines{}}
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- service.Main(ctx, func(name string) string { return env[name] }, i.log) }()
	i.stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() { i.stop() })
	i.url = "http://" + i.log.await(t, service.ListeningMessage)["address"].(string)
	return i
}

// do makes a request and returns status and body.
func (i *instance) do(t *testing.T, method, path, key, body string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, i.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", key)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func TestService(t *testing.T) {
	t.Parallel()
	i := start(t, nil)
	const good = `{"customer": "somebody", "cents": 100}`
	for _, c := range []struct {
		name, method, path, key, body string
		status                        int
		text                          string
	}{
		{"the first", "POST", "/invoices", "a", good, 201, `"number":1,`},
		{"its repetition", "POST", "/invoices", "a", good, 200, `"number":1,`},
		{"its key for another", "POST", "/invoices", "a", `{"customer": "somebody", "cents": 101}`, 422, "take a new one"},
		{"the second", "POST", "/invoices", "b", good, 201, `"number":2,`},
		{"no key", "POST", "/invoices", "", good, 400, "Idempotency-Key"},
		{"no customer", "POST", "/invoices", "c", `{"cents": 100}`, 400, "customer"},
		{"no amount", "POST", "/invoices", "c", `{"customer": "somebody"}`, 400, "cents"},
		{"a field too many", "POST", "/invoices", "c", `{"customer": "somebody", "cents": 1, "number": 7}`, 400, "JSON"},
		{"too long", "POST", "/invoices", "c", `{"customer": "` + strings.Repeat("x", 5000) + `"}`, 400, "JSON"},
		{"all", "GET", "/invoices", "", "", 200, `"number":2,`},
		{"one", "GET", "/invoices?limit=1", "", "", 200, `"number":1,`},
		{"after the first", "GET", "/invoices?after=1", "", "", 200, `"number":2,`},
		{"none", "GET", "/invoices?limit=0", "", "", 400, "limit"},
		{"health", "GET", "/healthz", "", "", 200, "ok"},
		{"metrics", "GET", "/metrics", "", "", 200, `invoices_request_seconds_count{status="201"} 2`},
		{"metrics of the lock", "GET", "/metrics", "", "", 200, `invoices_lock_held_seconds_count 2`},
		{"another way", "DELETE", "/invoices", "", "", 405, ""},
	} {
		status, body, _ := i.do(t, c.method, c.path, c.key, c.body)
		if status != c.status || !strings.Contains(body, c.text) {
			t.Errorf("%s: %d, %s", c.name, status, body)
		}
	}
	if code := i.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, i.log)
	}
}

// A request that cannot be served in time says so, and that it may be repeated.
func TestDeadline(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	shared := map[string]string{
		"INVOICES_DATABASE": "sqlite://" + filepath.Join(folder, "invoices.db"),
		"HOLDFAST_URL":      "file://" + filepath.Join(folder, "locks"), "INVOICES_REQUEST_TIMEOUT": "200ms",
	}
	i := start(t, shared)
	release := hold(t, shared["HOLDFAST_URL"])
	const good = `{"customer": "somebody", "cents": 100}`
	status, body, header := i.do(t, "POST", "/invoices", "a", good)
	if status != 503 || !strings.Contains(body, "same key") || header.Get("Retry-After") == "" {
		t.Errorf("%d, %s, %v", status, body, header)
	}
	release()
	if status, body, _ := i.do(t, "POST", "/invoices", "a", good); status != 201 {
		t.Errorf("%d, %s", status, body)
	}
}

// Who is told to end answers what is under way, and leaves the lock to others.
func TestDrain(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	engine := "file://" + filepath.Join(folder, "locks")
	i := start(t, map[string]string{"HOLDFAST_URL": engine})
	release := hold(t, engine)
	status := make(chan int)
	go func() {
		got, _, _ := i.do(t, "POST", "/invoices", "a", `{"customer": "somebody", "cents": 100}`)
		status <- got
	}()
	code := make(chan int)
	awaitWaiting(t, i)
	go func() { code <- i.stop() }()
	i.log.await(t, "draining")
	release()
	if got := <-status; got != 201 {
		t.Errorf("the request that was under way got %d", got)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit code %d\n%s", got, i.log)
	}
	hold(t, engine)() // whoever comes next gets it
}

func TestSettings(t *testing.T) {
	good := map[string]string{"INVOICES_DATABASE": "sqlite:///tmp/x", "HOLDFAST_URL": "redis://127.0.0.1"}
	for name, value := range map[string]string{
		"INVOICES_LISTEN": "8080", "INVOICES_DATABASE": "", "INVOICES_STRATEGY": "luck", "HOLDFAST_URL": "mem://",
		"INVOICES_INSTANCE": "-1", "INVOICES_REQUEST_TIMEOUT": "1h", "INVOICES_DRAIN_TIMEOUT": "ten", "INVOICES_LOG_LEVEL": "loud",
	} {
		_, err := service.FromEnvironment(func(asked string) string {
			if asked == name {
				return value
			}
			return good[asked]
		})
		var wrong *service.SettingError
		if !errors.As(err, &wrong) || wrong.Name != name {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	if _, err := service.FromEnvironment(func(name string) string { return good[name] }); err != nil {
		t.Error(err)
	}
}

// Passwords are in no log, whatever is wrong with the URL that has them.
func TestPasswordsStaySecret(t *testing.T) {
	const secret = "s3cr3t"
	for _, env := range []map[string]string{
		{"INVOICES_STRATEGY": "none", "INVOICES_DATABASE": "postgres://user:" + secret + "@127.0.0.1:1/invoices"},
		{"INVOICES_STRATEGY": "none", "INVOICES_DATABASE": "postgres://user:" + secret + "%zz@127.0.0.1/invoices"},
		{"INVOICES_STRATEGY": "none", "INVOICES_DATABASE": "postgres://user:" + secret + "/1@127.0.0.1/invoices"},
		{"INVOICES_STRATEGY": "none", "INVOICES_DATABASE": "odd://user:" + secret + "@127.0.0.1/invoices"},
		{"INVOICES_DATABASE": "sqlite://" + filepath.Join(t.TempDir(), "x.db"), "HOLDFAST_URL": "redis://user:" + secret + "@127.0.0.1:1"},
		{"INVOICES_DATABASE": "sqlite://" + filepath.Join(t.TempDir(), "x.db"), "HOLDFAST_URL": "redis://user:" + secret + "#@127.0.0.1:1"},
	} {
		log := &lines{}
		if code := service.Main(t.Context(), func(name string) string { return env[name] }, log); code == 0 {
			t.Errorf("%v does not fail", env)
		}
		if strings.Contains(log.String(), secret) || log.String() == "" {
			t.Error(log)
		}
	}
}
