package interoptest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// quorumMeeting is where node-redlock and ours share five servers.
type quorumMeeting struct {
	*testing.T
	servers []*testserver.RedisServer
	them    client
	hf      *holdfast.Client
}

func newQuorumMeeting(t *testing.T) *quorumMeeting {
	t.Helper()
	t.Parallel()
	m := &quorumMeeting{T: t}
	var clients []redis.UniversalClient
	for range 5 {
		s := testserver.Redis(t, testserver.RedisOptions{})
		m.servers = append(m.servers, s)
		clients = append(clients, dial(t, s))
	}
	m.them = startNode(t, "redlock", m.servers...)
	q, err := redislock.NewQuorum(clients, redislock.QuorumConfig{Prefix: "locks:", MaxTTL: long})
	if err != nil {
		t.Fatal(err)
	}
	if m.hf, err = holdfast.New(q, holdfast.Config{TTL: long, Owner: "ours"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.hf.Close() })
	if err := m.hf.Init(m.context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *quorumMeeting) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.Cleanup(cancel)
	return ctx
}

// TestQuorumExclusion: on the same five servers node-redlock's locks and ours exclude each
// other, both ways, with two of the servers down as well.
func TestQuorumExclusion(t *testing.T) {
	m := newQuorumMeeting(t)
	for _, down := range []int{0, 2} {
		for _, s := range m.servers[:down] {
			s.Kill()
		}
		l, err := m.hf.Mutex("a").TryLock(m.context())
		if err != nil {
			t.Fatalf("our lock, %d servers down: %v", down, err)
		}
		if _, err := m.them.acquire("locks:a", long); !errors.Is(err, errHeld) {
			t.Fatalf("their try of our lock: %v", err)
		}
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		theirs, err := m.them.acquire("locks:a", long)
		if err != nil {
			t.Fatalf("their lock, %d servers down: %v", down, err)
		}
		if _, err := m.hf.Mutex("a").TryLock(m.context()); !errors.Is(err, holdfast.ErrHeld) {
			t.Fatalf("our try of their lock: %v", err)
		}
		if ok, err := theirs.extend(long); !ok || err != nil {
			t.Fatalf("their extension: %v, %v", ok, err)
		}
		done := make(chan error, 1)
		go func() { // a library that tells nobody of its release is polled for
			l, err := m.hf.Mutex("a").Lock(m.context())
			if err == nil {
				err = l.Unlock()
			}
			done <- err
		}()
		if ok, err := theirs.release(); !ok || err != nil {
			t.Fatalf("their release: %v, %v", ok, err)
		}
		if err := <-done; err != nil {
			t.Fatalf("our wait for their lock: %v", err)
		}
	}
}

// TestQuorumTogether: in a crowd of both nobody is in at the same time as another.
func TestQuorumTogether(t *testing.T) {
	m := newQuorumMeeting(t)
	const each = 30
	var inside, ours, theirs atomic.Int32
	visit := func() {
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d are in", n)
		}
		time.Sleep(time.Millisecond)
		inside.Add(-1)
	}
	end := time.Now().Add(patience)
	var all sync.WaitGroup
	all.Go(func() {
		for theirs.Load() < each && time.Now().Before(end) {
			l, err := m.them.acquire("locks:b", long)
			if errors.Is(err, errHeld) {
				time.Sleep(time.Millisecond)
				continue
			}
			if err != nil {
				t.Errorf("their lock: %v", err)
				return
			}
			visit()
			theirs.Add(1)
			if ok, err := l.release(); !ok || err != nil {
				t.Errorf("their release: %v, %v", ok, err)
				return
			}
		}
	})
	for range 3 {
		all.Go(func() {
			for theirs.Load() < each && time.Now().Before(end) {
				l, err := m.hf.Mutex("b").TryLock(m.context())
				if errors.Is(err, holdfast.ErrHeld) {
					time.Sleep(3 * time.Millisecond)
					continue
				}
				if err != nil {
					t.Errorf("our lock: %v", err)
					return
				}
				visit()
				ours.Add(1)
				if err := l.Unlock(); err != nil {
					t.Errorf("our unlock: %v", err)
					return
				}
				time.Sleep(3 * time.Millisecond)
			}
		})
	}
	all.Wait()
	t.Logf("they were in %d times, we %d times", theirs.Load(), ours.Load())
	if theirs.Load() < each || ours.Load() == 0 {
		t.Errorf("somebody was kept out")
	}
}
