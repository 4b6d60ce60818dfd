package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// labPatience bounds every wait of the fault tests. It is far below labTTL: what happens within
// the one did not need the other to run out.
const (
	labPatience = 20 * time.Second
	labTTL      = time.Minute
)

// lab is one server, and clients of it that stand for processes.
type lab struct {
	*testing.T
	server *testserver.RedisServer
}

func newLab(t *testing.T, options testserver.RedisOptions) *lab {
	t.Helper()
	return &lab{t, testserver.Redis(t, options)}
}

// engineAt returns an engine on what listens at addr, with a client as Open makes it. The
// query is that of the URL.
func (l *lab) engineAt(addr, query string) *redislock.Engine {
	l.Helper()
	e, err := redislock.Open(l.patience(), "redis://"+addr+"?"+query, redislock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	return e
}

// warm makes the server know the scripts: both, of which a lock that is free needs one.
func (l *lab) warm() {
	l.Helper()
	c := l.process()
	l.unlock(l.lock(c, "warm"))
	permit, err := c.Semaphore("warm permit", 1).TryAcquire(l.patience(), 1)
	if err != nil {
		l.Fatal(err)
	}
	l.unlock(permit)
}

// client returns a client on e with leases that outlive the test. It is closed at the end.
func (l *lab) client(e driver.Engine) *holdfast.Client { return l.clientWith(e, labTTL) }

func (l *lab) clientWith(e driver.Engine, ttl time.Duration) *holdfast.Client {
	l.Helper()
	c, err := holdfast.New(e, holdfast.Config{TTL: ttl, Owner: "lab"})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() }) // may fail: the server may be gone by then
	return c
}

// process returns a client of its own on the server.
func (l *lab) process() *holdfast.Client {
	l.Helper()
	return l.client(l.engineAt(l.server.Addr(), ""))
}

// application returns a client on a connection as applications have it: go-redis with its
// defaults, which repeats what fails. It goes through addr.
func (l *lab) application(addr string, change ...func(*redis.Options)) *holdfast.Client {
	l.Helper()
	return l.client(l.applicationEngine(addr, change...))
}

func (l *lab) applicationEngine(addr string, change ...func(*redis.Options)) *redislock.Engine {
	l.Helper()
	o := &redis.Options{Addr: addr, ReadTimeout: 500 * time.Millisecond, DialTimeout: time.Second}
	for _, f := range change {
		f(o)
	}
	r := redis.NewClient(o)
	l.Cleanup(func() { r.Close() })
	e, err := redislock.New(r, redislock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	return e
}

// patience returns a context that ends when a call takes too long.
func (l *lab) patience() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), labPatience)
	l.Cleanup(cancel)
	return ctx
}

// do carries out a command on the server.
func (l *lab) do(args ...string) any {
	l.Helper()
	reply, err := l.server.Do(args...)
	if err != nil {
		l.Fatalf("%q: %v", args, err)
	}
	return reply
}

// key returns the value of the key of name, "" where there is none.
func (l *lab) key(name string) string {
	l.Helper()
	v, _ := l.do("GET", "holdfast:"+name).(string)
	return v
}

func (l *lab) free(name string) bool { l.Helper(); return l.key(name) == "" }

// waiting returns how many requests stand in the queue of name.
func (l *lab) waiting(name string) int {
	l.Helper()
	n, _ := l.do("ZCARD", "holdfast.q:holdfast:"+name).(int64)
	return int(n)
}

// list is a reply that is a list of strings.
func (l *lab) list(args ...string) []string {
	l.Helper()
	var all []string
	reply, _ := l.do(args...).([]any)
	for _, v := range reply {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// scripts returns how many script calls the server has carried out or refused so far.
func (l *lab) scripts() int {
	l.Helper()
	info, err := l.server.Info()
	if err != nil {
		l.Fatal(err)
	}
	return statOf(info["cmdstat_evalsha"], "calls", "rejected_calls") + statOf(info["cmdstat_eval"], "calls", "rejected_calls")
}

// statOf adds up fields of a line of INFO commandstats.
func statOf(line string, fields ...string) (sum int) {
	for part := range strings.SplitSeq(line, ",") {
		k, v, _ := strings.Cut(part, "=")
		for _, f := range fields {
			if n, err := strconv.Atoi(v); err == nil && k == f {
				sum += n
			}
		}
	}
	return sum
}

// eventually waits for a condition.
func (l *lab) eventually(what string, condition func() bool) {
	l.Helper()
	for deadline := time.Now().Add(labPatience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("never: %s", what)
		}
	}
}

// lock takes a lock, waiting for it if need be.
func (l *lab) lock(c *holdfast.Client, name string, opts ...holdfast.Option) *holdfast.Lease {
	l.Helper()
	lease, err := c.Mutex(name, opts...).Lock(l.patience())
	if err != nil {
		l.Fatalf("lock %q: %v", name, err)
	}
	return lease
}

func (l *lab) unlock(lease *holdfast.Lease) {
	l.Helper()
	if err := lease.Unlock(); err != nil {
		l.Fatalf("unlock %q: %v", lease.Name(), err)
	}
}

// waiter is a goroutine that waits for a lock.
type waiter struct {
	l      *lab
	cancel context.CancelFunc
	done   chan struct{}
	lease  *holdfast.Lease
	err    error
}

// waiter starts a goroutine that waits for a lock, and returns when it stands in the queue.
func (l *lab) waiter(c *holdfast.Client, name string, opts ...holdfast.Option) *waiter {
	l.Helper()
	before := l.waiting(name)
	w := l.waits(c, name, opts...)
	l.eventually("a place in the queue", func() bool { return l.waiting(name) > before })
	return w
}

// waits is waiter for one that may not get a place.
func (l *lab) waits(c *holdfast.Client, name string, opts ...holdfast.Option) *waiter {
	ctx, cancel := context.WithCancel(l.patience())
	w := &waiter{l: l, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.lease, w.err = c.Mutex(name, opts...).Lock(ctx)
	}()
	l.Cleanup(func() { cancel(); <-w.done })
	return w
}

// granted waits until the waiter has its lock.
func (w *waiter) granted() *holdfast.Lease {
	w.l.Helper()
	<-w.done
	if w.err != nil {
		w.l.Fatalf("waiting: %v", w.err)
	}
	return w.lease
}

// stillWaits fails when the waiter's call has ended.
func (w *waiter) stillWaits() {
	w.l.Helper()
	if w.over() {
		w.l.Fatalf("the wait has ended: %+v, %v", w.lease, w.err)
	}
}

// over reports whether the waiter's call has ended.
func (w *waiter) over() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// failed checks what a call failed with.
func (l *lab) failed(err error, kind error, outcome holdfast.Outcome, texts ...string) {
	l.Helper()
	var e *holdfast.Error
	if !errors.As(err, &e) {
		l.Fatalf("error is %v, want one of this library", err)
	}
	if !errors.Is(err, kind) || e.Outcome != outcome {
		l.Fatalf("error is %q with outcome %v, want %v and %v", err, e.Outcome, kind, outcome)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			l.Errorf("error %q does not say %q", err, text)
		}
	}
}

// scale returns how often a race is repeated: n, or HOLDFAST_CROWD times n in long runs.
func scale(n int) int {
	if os.Getenv("HOLDFAST_CROWD") != "" {
		return 10 * n
	}
	return n
}

// tidy waits until nothing is left on the server but what all names share.
func (l *lab) tidy() {
	l.Helper()
	var keys []string
	for deadline := time.Now().Add(labPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if keys = l.list("KEYS", "*"); len(keys) == 1 && keys[0] == "holdfast.fence" {
			return
		}
	}
	l.Errorf("%d keys are left, among them %q: want the fence counter only", len(keys), keys[:min(10, len(keys))])
}
