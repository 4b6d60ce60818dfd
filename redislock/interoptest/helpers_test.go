package interoptest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

const (
	// patience bounds every wait: long, because machines are busy.
	patience = 30 * time.Second

	// soon is how long a wait may take that is not to depend on long.
	soon = 15 * time.Second

	// long is a TTL that no test outlives.
	long = 5 * time.Minute
)

// meeting is where a library's client and ours share one name on one server.
type meeting struct {
	*testing.T
	library
	them   client
	redis  *redis.Client // looks from outside
	server *testserver.RedisServer
	name   string
	key    string
}

// config is what makes ours use the library's keys.
func (m *meeting) config() redislock.Config {
	return redislock.Config{Prefix: m.prefix, RawKeys: m.prefix == ""}
}

// client returns one of ours, as a process of its own would have.
func (m *meeting) client() *holdfast.Client {
	m.Helper()
	e, err := redislock.New(dial(m, m.server), m.config())
	if err != nil {
		m.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{Owner: "ours", TTL: long})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		if err := hf.Close(); err != nil {
			m.Errorf("Close: %v", err)
		}
	})
	return hf
}

func (m *meeting) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.Cleanup(cancel)
	return ctx
}

// theyTake has them take the lock, which is free.
func (m *meeting) theyTake(ttl time.Duration) lock {
	m.Helper()
	l, err := m.them.acquire(m.key, ttl)
	if err != nil {
		m.Fatalf("their lock: %v", err)
	}
	return l
}

// theyAreRefused has them try to take the lock, which is held.
func (m *meeting) theyAreRefused() {
	m.Helper()
	before := m.value()
	if _, err := m.them.acquire(m.key, long); !errors.Is(err, errHeld) {
		m.Fatalf("their try: %v, want %v", err, errHeld)
	}
	if after := m.value(); after != before {
		m.Fatalf("their try changed the key from %q to %q", before, after)
	}
}

// theyRelease has them give back the lock, which they hold.
func (m *meeting) theyRelease(l lock) {
	m.Helper()
	if ok, err := l.release(); err != nil || !ok {
		m.Fatalf("their release: %v, %v", ok, err)
	}
}

// value returns what is under the key, empty when it is free.
func (m *meeting) value() string {
	m.Helper()
	v, err := m.redis.Get(context.Background(), m.key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		m.Fatal(err)
	}
	return v
}

// weTake has ours take the lock, which is free.
func (m *meeting) weTake(mu *holdfast.Mutex) *holdfast.Lease {
	m.Helper()
	l, err := mu.TryLock(m.context())
	if err != nil {
		m.Fatalf("our lock: %v", err)
	}
	return l
}

// weRelease has ours give back what they hold.
func (m *meeting) weRelease(leases ...*holdfast.Lease) {
	m.Helper()
	for _, l := range leases {
		if err := l.Unlock(); err != nil {
			m.Fatalf("our unlock: %v", err)
		}
	}
}

// outcome is what came of a Lock in the background.
type outcome struct {
	lease *holdfast.Lease
	err   error
}

// weWait starts a Lock and returns when it stands in the queue.
func (m *meeting) weWait(hf *holdfast.Client) <-chan outcome {
	m.Helper()
	done := make(chan outcome, 1)
	ctx := m.context()
	go func() {
		l, err := hf.Mutex(m.name).Lock(ctx)
		done <- outcome{l, err}
	}()
	m.until("our request waits", func() bool {
		info, err := hf.Inspect(m.context(), m.name)
		if err != nil {
			m.Fatal(err)
		}
		return info.Waiters == 1
	})
	return done
}

// weGet returns the lease that a Lock in the background gets within a time.
func (m *meeting) weGet(done <-chan outcome, within time.Duration) *holdfast.Lease {
	m.Helper()
	select {
	case o := <-done:
		if o.err != nil {
			m.Fatalf("our lock: %v", o.err)
		}
		return o.lease
	case <-time.After(within):
		m.Fatalf("our lock was not granted within %v", within)
	}
	return nil
}

// weAreWaiting fails when the Lock in the background has ended.
func (m *meeting) weAreWaiting(done <-chan outcome) {
	m.Helper()
	select {
	case o := <-done:
		m.Fatalf("our lock ended while they hold theirs: %v", o.err)
	default:
	}
}

// until waits for a condition.
func (m *meeting) until(what string, ok func() bool) {
	m.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.Fatalf("not within %v: %s", patience, what)
		}
	}
}
