//go:build unix

package interoptest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// resource is a guarded number, and how holders reach it. open, read and write are what its
// users do; a resource without a number has 0.
type resource interface {
	open(ctx context.Context, l fence.Lease) error
	read(ctx context.Context, l fence.Lease) (int, error)
	write(ctx context.Context, l fence.Lease, value int) error
	blind(ctx context.Context, l fence.Lease, value int) error // open and write at once
}

// stepper does parts of a write, so that its holder can be frozen between them.
type stepper func(ctx context.Context, step string, l fence.Lease, value int) error

// connect returns the resource of a kind at a place, as every process does for itself.
func connect(kind, target string) (resource, error) {
	switch kind {
	case "File":
		f, err := fence.NewFile(target, fence.FileConfig{})
		return fileResource{f, target}, err
	case "HTTP":
		return httpResource{target, new(http.Transport)}, nil
	case "Redis":
		c := redis.NewClient(&redis.Options{Addr: target})
		r, err := fence.NewRedis(scripts(c), fence.RedisConfig{})
		return redisResource{r, c}, err
	}
	return connectSQL(kind, target)
}

// reach is connect for this process.
func reach(t *testing.T, kind, target string) resource {
	t.Helper()
	r, err := connect(kind, target)
	must(t, err)
	if c, ok := r.(io.Closer); ok {
		t.Cleanup(func() { c.Close() })
	}
	return r
}

// scripts is what makes a guard's scripts run on a client of go-redis.
func scripts(c redis.UniversalClient) fence.RedisEval {
	return func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
		return redis.NewScript(script).Run(ctx, c, keys, args...).Result()
	}
}

type fileResource struct {
	*fence.File
	path string
}

func (r fileResource) open(ctx context.Context, l fence.Lease) error { return r.Open(ctx, l) }

func (r fileResource) read(context.Context, fence.Lease) (int, error) {
	data, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

func (r fileResource) write(ctx context.Context, l fence.Lease, value int) error {
	return r.Write(ctx, l, fmt.Append(nil, value))
}

func (r fileResource) blind(ctx context.Context, l fence.Lease, value int) error {
	if err := r.open(ctx, l); err != nil {
		return err
	}
	return r.write(ctx, l, value)
}

type redisResource struct {
	*fence.Redis
	client *redis.Client
}

func (r redisResource) open(ctx context.Context, l fence.Lease) error {
	return r.Open(ctx, l, "counter")
}

func (r redisResource) Close() error { return r.client.Close() }

func (r redisResource) read(ctx context.Context, _ fence.Lease) (int, error) {
	n, err := r.client.Get(ctx, "counter").Int()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return n, err
}

func (r redisResource) write(ctx context.Context, l fence.Lease, value int) error {
	return r.Set(ctx, l, "counter", value, 0)
}

func (r redisResource) blind(ctx context.Context, l fence.Lease, value int) error {
	if err := r.open(ctx, l); err != nil {
		return err
	}
	return r.write(ctx, l, value)
}

// httpResource is a number behind a web server: GET and PUT.
type httpResource struct {
	url  string
	base *http.Transport
}

func (r httpResource) Close() error { r.base.CloseIdleConnections(); return nil }

func (r httpResource) do(ctx context.Context, method string, l fence.Lease, opens bool, body string) (string, error) {
	client := http.Client{Transport: &fence.Transport{Base: r.base, Opens: opens}}
	request, err := http.NewRequestWithContext(fence.NewContext(ctx, l), method, r.url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil {
		err = fence.ResponseError(response)
	}
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return string(answer), err
}

func (r httpResource) open(ctx context.Context, l fence.Lease) error {
	_, err := r.do(ctx, http.MethodHead, l, false, "")
	return err
}

func (r httpResource) read(ctx context.Context, l fence.Lease) (int, error) {
	answer, err := r.do(ctx, http.MethodGet, l, false, "")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(answer)
}

func (r httpResource) write(ctx context.Context, l fence.Lease, value int) error {
	_, err := r.do(ctx, http.MethodPut, l, false, fmt.Sprint(value))
	return err
}

func (r httpResource) blind(ctx context.Context, l fence.Lease, value int) error {
	_, err := r.do(ctx, http.MethodPut, l, true, fmt.Sprint(value))
	return err
}

// serveNumber starts the web server, with its fences in store.
func serveNumber(t *testing.T, store fence.Store) string {
	t.Helper()
	guard, err := fence.NewHTTP(store, fence.HTTPConfig{})
	must(t, err)
	var mu sync.Mutex
	number := "0"
	s := httptest.NewServer(guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && r.Method == http.MethodPut {
			number = string(body)
		}
		_, _ = io.WriteString(w, number)
	})))
	t.Cleanup(s.Close)
	return s.URL
}

// TestFile and those below run on each resource what has to hold on all of them.
func TestFile(t *testing.T) {
	t.Parallel()
	common(t, "File", func(t *testing.T) string { return filepath.Join(t.TempDir(), "counter") })
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	t.Run("Memory", func(t *testing.T) {
		common(t, "HTTP", func(t *testing.T) string { return serveNumber(t, new(fence.Memory)) })
	})
	t.Run("File", func(t *testing.T) {
		common(t, "HTTP", func(t *testing.T) string {
			f, err := fence.NewFile(filepath.Join(t.TempDir(), "fences"), fence.FileConfig{})
			must(t, err)
			return serveNumber(t, f)
		})
	})
	t.Run("SQL", func(t *testing.T) {
		common(t, "HTTP", func(t *testing.T) string {
			db := newSQLite(t)
			guard, conn := db.guard(t), db.connect(t)
			must(t, guard.Init(patient(t), conn))
			return serveNumber(t, guard.Store(conn))
		})
	})
}

// common runs the tests of every resource; each gets a new one from place.
func common(t *testing.T, kind string, place func(*testing.T) string) {
	t.Run("FrozenHolder", func(t *testing.T) {
		t.Parallel()
		testFrozenHolder(t, kind, place(t))
	})
	t.Run("LostUpdate", func(t *testing.T) {
		t.Parallel()
		testLostUpdate(t, kind, place(t))
	})
	t.Run("Rules", func(t *testing.T) {
		t.Parallel()
		testRules(t, kind, place(t))
	})
}

// testFrozenHolder: a holder is frozen past its TTL after it has read. The lock goes to the
// next one, which does its work. The first wakes up, does not look at its lease, and is refused:
// its write and, should it think of beginning anew without taking the lock again, its Open.
func testFrozenHolder(t *testing.T, kind, place string) {
	locks := testserver.Redis(t, testserver.RedisOptions{})
	r := reach(t, kind, place)
	c := startHolder(t, locks, kind, place)
	c.says("done", "write")
	c.signal(syscall.SIGSTOP)

	l := lock(t, client(t, locks)) // when the TTL of the frozen one is over
	ctx := patient(t)
	must(t, r.open(ctx, l))
	value, err := r.read(ctx, l)
	must(t, err)
	if value != 1 {
		t.Fatalf("the new holder reads %d, want 1", value)
	}
	must(t, r.write(ctx, l, 10))

	c.signal(syscall.SIGCONT)
	c.says("stale", "write")
	c.says("stale", "open")
	c.says("stale", "write")
	if value, err := r.read(ctx, l); err != nil || value != 10 {
		t.Fatalf("after the late write the number is %d (%v), want 10", value, err)
	}
	must(t, r.write(ctx, l, 11))
	must(t, l.Unlock())
}

// testLostUpdate: A, with the smaller fence, writes late, between the reading and the writing of
// B. With checks of the writes alone, which is what a blind write has, both are accepted and A's
// is lost. B's Open before its reading closes that.
func testLostUpdate(t *testing.T, kind, place string) {
	r := reach(t, kind, place)
	ctx := patient(t)
	reader := fence.Of("reader", 1) // looks without a part in the locks
	number := func() int {
		t.Helper()
		n, err := r.read(ctx, reader)
		must(t, err)
		return n
	}

	must(t, r.open(ctx, reader))
	a, b := fence.Of(lockName, 33), fence.Of(lockName, 34)
	seenByA, seenByB := number(), number()
	must(t, r.blind(ctx, a, seenByA+1))
	must(t, r.blind(ctx, b, seenByB+1))
	if got := number(); got != 1 {
		t.Fatalf("two increments that were checked when written make %d; this was to show that one is lost", got)
	}

	a, b = fence.Of(lockName, 35), fence.Of(lockName, 36)
	must(t, r.open(ctx, a))
	seenByA, err := r.read(ctx, a)
	must(t, err)
	must(t, r.open(ctx, b))
	seenByB, err = r.read(ctx, b)
	must(t, err)
	wantStale(t, r.write(ctx, a, seenByA+1), 35, 36)
	must(t, r.write(ctx, b, seenByB+1))
	if got := number(); got != 2 {
		t.Fatalf("after one refused increment and one accepted one the number is %d, want 2", got)
	}
}

// testRules: the same numbers are let in and refused on every resource, the largest ones and
// those that a rounded number would confuse among them.
func testRules(t *testing.T, kind, place string) {
	r := reach(t, kind, place)
	ctx := patient(t)
	for _, n := range []int64{1, 33, 1760000000123456} {
		l, next := fence.Of(lockName, n), fence.Of(lockName, n+1)
		must(t, r.open(ctx, l))
		must(t, r.open(ctx, l)) // again, as after a reply that was lost
		must(t, r.write(ctx, l, 1))
		must(t, r.write(ctx, l, 1)) // the same value too
		wantStale(t, r.write(ctx, next, 2), n+1, n)
		must(t, r.blind(ctx, next, 2))
		wantStale(t, r.write(ctx, l, 3), n, n+1)
		wantStale(t, r.open(ctx, l), n, n+1)
		must(t, r.write(ctx, next, 4))
	}
	last := int64(1760000000123457)
	for _, name := range []string{"The Counter", "the counter ", "the c\u00f6unter", "the co\u0308unter", "%_'\"\\`", strings.Repeat("x", 512)} {
		wantStale(t, r.write(ctx, fence.Of(name, last), 5), last, 0)
		must(t, r.blind(ctx, fence.Of(name, 7), 6)) // smaller, under another name
		must(t, r.write(ctx, fence.Of(name, 7), 7))
	}
	must(t, r.write(ctx, fence.Of(lockName, last), 8))
	if got, err := r.read(ctx, fence.Of(lockName, last)); err != nil || got != 8 {
		t.Fatalf("the number is %d (%v), want 8", got, err)
	}
}
