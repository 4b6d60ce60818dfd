package etcdlock_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// labPatience bounds every wait of these tests. It is long because machines are busy.
const labPatience = 60 * time.Second

// lab is a test with a cluster of its own.
type lab struct {
	*testing.T
	cluster *testserver.EtcdCluster
	timeout time.Duration // of the engines' exchanges; 0 for the default
}

func newLab(t *testing.T, options testserver.EtcdOptions) *lab {
	t.Parallel()
	return &lab{T: t, cluster: testserver.Etcd(t, options)}
}

// patientTimeout is for exchanges that have to outlast an election, or what else a test does to
// a cluster: much longer than the default, for machines on which that takes long.
const patientTimeout = 20 * time.Second

func (l *lab) patience() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), labPatience)
	l.Cleanup(cancel)
	return ctx
}

// raw returns a client of etcd's on those addresses.
func (l *lab) raw(addrs ...string) *clientv3.Client {
	l.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: addrs, Logger: zap.NewNop()})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

// engine returns an engine on those addresses, as a process has one.
func (l *lab) engine(addrs ...string) *etcdlock.Engine {
	l.Helper()
	e, err := etcdlock.New(l.raw(addrs...), etcdlock.Config{Timeout: l.timeout})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { e.Close() })
	return e
}

// process returns what a process locks with, on those addresses or the whole cluster.
func (l *lab) process(ttl time.Duration, addrs ...string) *holdfast.Client {
	l.Helper()
	if len(addrs) == 0 {
		addrs = l.cluster.Addrs()
	}
	return l.client(l.engine(addrs...), ttl)
}

func (l *lab) client(e *etcdlock.Engine, ttl time.Duration) *holdfast.Client {
	l.Helper()
	c, err := holdfast.New(e, holdfast.Config{TTL: ttl})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

// lock takes a lock that is free or about to be. A machine so busy that the cluster does not
// answer in time is no reason to give up.
func (l *lab) lock(c *holdfast.Client, name string) *holdfast.Lease {
	l.Helper()
	ctx := l.patience()
	for {
		lease, err := c.Mutex(name).Lock(ctx)
		if err == nil {
			return lease
		}
		if ctx.Err() != nil || !errors.Is(err, holdfast.ErrUnavailable) {
			l.Fatalf("lock %s: %v", name, err)
		}
	}
}

func (l *lab) unlock(lease *holdfast.Lease) {
	l.Helper()
	if err := lease.Unlock(); err != nil {
		l.Fatalf("unlock: %v", err)
	}
}

// eventually fails unless ok holds within a time that no test should need.
func (l *lab) eventually(what string, ok func() bool) {
	l.Helper()
	for end := time.Now().Add(labPatience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("never came true: %s", what)
		}
	}
}

// waiting counts who waits for a name.
func (l *lab) waiting(e *etcdlock.Engine, name string) int {
	info, err := e.Inspect(l.patience(), name)
	if err != nil {
		return -1
	}
	return info.Waiters
}

// waiter is a call of Lock in a goroutine of its own.
type waiter struct {
	l     *lab
	done  chan struct{}
	lease *holdfast.Lease
	err   error
}

// waiter starts a call and returns when it waits. Until then it may be told that the cluster
// is unavailable, and asks again.
func (l *lab) waiter(c *holdfast.Client, e *etcdlock.Engine, name string) *waiter {
	l.Helper()
	w := &waiter{l: l, done: make(chan struct{})}
	ctx := l.patience()
	before := l.waiting(e, name)
	var waits atomic.Bool
	go func() {
		defer close(w.done)
		for {
			w.lease, w.err = c.Mutex(name).Lock(ctx)
			if waits.Load() || ctx.Err() != nil || !errors.Is(w.err, holdfast.ErrUnavailable) {
				return
			}
		}
	}()
	l.eventually("it waits", func() bool { return l.waiting(e, name) > max(0, before) })
	waits.Store(true)
	return w
}

func (w *waiter) over() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *waiter) granted() *holdfast.Lease {
	w.l.Helper()
	select {
	case <-w.done:
	case <-time.After(labPatience):
		w.l.Fatal("a call of Lock does not return")
	}
	if w.err != nil {
		w.l.Fatalf("lock: %v", w.err)
	}
	return w.lease
}

// ends fails unless the lease is lost, and its holder told so.
func (l *lab) ends(lease *holdfast.Lease) {
	l.Helper()
	select {
	case <-lease.Context().Done():
	case <-time.After(labPatience):
		l.Fatal("the lease does not end")
	}
	if cause := context.Cause(lease.Context()); !errors.Is(cause, holdfast.ErrLost) {
		l.Fatalf("the lease ended with %v, want %v", cause, holdfast.ErrLost)
	}
}

// outlives returns when the lease is older than its TTL and stands.
func (l *lab) outlives(lease *holdfast.Lease, began time.Time, ttl time.Duration) {
	l.Helper()
	l.eventually("the lease outlives its TTL", func() bool {
		if err := context.Cause(lease.Context()); err != nil {
			l.Fatalf("the lease has ended: %v", err)
		}
		return time.Since(began) > ttl+ttl/2
	})
}

func newToken() (token driver.Token) {
	rand.Read(token[:])
	return token
}
