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
	"github.com/holdfast-go/holdfast/zklock"
)

// meeting is where a library's client and ours share paths on one server.
type meeting struct {
	*testing.T
	them   *peer
	server string
}

func (m *meeting) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.Cleanup(cancel)
	return ctx
}

// client returns one of ours, as a process of its own would have.
func (m *meeting) client(recipe zklock.Recipe) *holdfast.Client {
	m.Helper()
	e, err := zklock.Open(m.context(), "zk://"+m.server+"/locks",
		zklock.Config{Recipe: recipe, SessionTimeout: 3 * time.Minute, Timeout: 20 * time.Second})
	if err != nil {
		m.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{Owner: "ours"})
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

// take is a way to take a share of ours, at once or waiting.
type take func(ctx context.Context, wait bool) (*holdfast.Lease, error)

func mutex(hf *holdfast.Client, name string) take {
	m := hf.Mutex(name)
	return func(ctx context.Context, wait bool) (*holdfast.Lease, error) {
		if wait {
			return m.Lock(ctx)
		}
		return m.TryLock(ctx)
	}
}

func reader(hf *holdfast.Client, name string) take {
	m := hf.RWMutex(name)
	return func(ctx context.Context, wait bool) (*holdfast.Lease, error) {
		if wait {
			return m.RLock(ctx)
		}
		return m.TryRLock(ctx)
	}
}

func permits(hf *holdfast.Client, name string, n, k int) take {
	s := hf.Semaphore(name, n)
	return func(ctx context.Context, wait bool) (*holdfast.Lease, error) {
		if wait {
			return s.Acquire(ctx, k)
		}
		return s.TryAcquire(ctx, k)
	}
}

func (m *meeting) weTake(ours take) *holdfast.Lease {
	m.Helper()
	l, err := ours(m.context(), true)
	if err != nil {
		m.Fatalf("our lock: %v", err)
	}
	return l
}

func (m *meeting) weAreRefused(ours take) {
	m.Helper()
	if _, err := ours(m.context(), false); !errors.Is(err, holdfast.ErrHeld) {
		m.Fatalf("our try: %v, want %v", err, holdfast.ErrHeld)
	}
}

// exclude has a share of theirs and one of ours keep each other out, in turn and waiting.
func (m *meeting) exclude(kind, name string, n int, ours take) {
	m.Helper()
	path := "/locks/" + name
	l := m.them.take(kind, path, n)
	m.weAreRefused(ours)
	granted := make(chan *holdfast.Lease, 1)
	ctx := m.context()
	go func() {
		lease, err := ours(ctx, true)
		if err != nil {
			m.Errorf("our lock: %v", err)
		}
		granted <- lease
	}()
	select {
	case <-granted:
		m.Fatalf("we were granted %s, which they hold as a %s", name, kind)
	case <-time.After(200 * time.Millisecond):
	}
	l.release()
	lease := <-granted
	if lease == nil {
		m.FailNow()
	}
	m.them.refused(kind, path, n)
	w := m.them.start(kind, path, n, patience)
	select {
	case a := <-w.answer:
		m.Fatalf("they were told %q, while we hold %s", a, name)
	case <-time.After(200 * time.Millisecond):
	}
	if err := lease.Unlock(); err != nil {
		m.Fatal(err)
	}
	if !w.got() {
		m.Fatal("they do not get what we gave back")
	}
	w.release()
}

// share has both hold a name at once.
func (m *meeting) share(kind, name string, n int, ours take) {
	m.Helper()
	lease := m.weTake(ours)
	l := m.them.take(kind, "/locks/"+name, n)
	again := m.weTake(ours)
	for _, x := range []*holdfast.Lease{lease, again} {
		if err := x.Unlock(); err != nil {
			m.Fatal(err)
		}
	}
	l.release()
}

// crowd has both sides lock one name as fast as they can, and counts who is inside.
func (m *meeting) crowd(kind, name string, ours take, rounds int) {
	m.Helper()
	var inside atomic.Int32
	var all sync.WaitGroup
	visit := func() {
		if inside.Add(1) != 1 {
			m.Error("two are inside")
		}
		time.Sleep(time.Millisecond)
		inside.Add(-1)
	}
	for range 3 {
		all.Go(func() {
			for range rounds {
				if lease, err := ours(m.context(), true); err != nil {
					m.Errorf("our lock: %v", err)
				} else {
					visit()
					_ = lease.Unlock()
				}
			}
		})
		all.Go(func() {
			for range rounds {
				l := m.them.start(kind, "/locks/"+name, 1, patience)
				if !<-granted(l) {
					m.Error("they do not get the lock")
					continue
				}
				visit()
				l.p.send("release %s", l.id)
				<-l.answer
			}
		})
	}
	all.Wait()
}

func granted(l *theirs) <-chan bool {
	c := make(chan bool, 1)
	select {
	case a := <-l.answer:
		c <- a == "yes"
	case <-time.After(patience):
		c <- false
	}
	return c
}

func TestCurator(t *testing.T) {
	server := testserver.ZooKeeper(t, testserver.ZooKeeperOptions{})
	m := &meeting{t, startCurator(t, server.Addr()), server.Addr()}
	a, rw := m.client(zklock.Mutex), m.client(zklock.ReadWrite)

	// InterProcessMutex.
	m.exclude("mutex", "invoice", 0, mutex(a, "invoice"))
	m.exclude("mutex", "a:b,c", 0, mutex(a, "a:b,c"))
	m.crowd("mutex", "busy", mutex(a, "busy"), 10)

	// InterProcessReadWriteLock: with our writers as its writers.
	m.exclude("write", "rw", 0, mutex(rw, "rw"))
	m.exclude("read", "rw", 0, mutex(rw, "rw"))
	m.exclude("write", "rw", 0, reader(rw, "rw"))
	m.exclude("write", "rw", 0, reader(a, "rw"))
	m.share("read", "rw", 0, reader(rw, "rw"))
	m.crowd("write", "busyrw", mutex(rw, "busyrw"), 10)

	// InterProcessSemaphoreV2.
	m.exclude("semaphore", "s1", 1, permits(a, "s1", 1, 1))
	m.share("semaphore", "s3", 3, permits(a, "s3", 3, 1))
	m.exclude("semaphore", "s3", 3, permits(a, "s3", 3, 3))
	m.crowd("semaphore", "s", permits(a, "s", 1, 1), 10)
	two := m.weTake(permits(a, "s3", 3, 2))
	one := m.them.take("semaphore", "/locks/s3", 3)
	m.them.refused("semaphore", "/locks/s3", 3)
	m.weAreRefused(permits(a, "s3", 3, 1))
	if err := two.Unlock(); err != nil {
		t.Fatal(err)
	}
	one.release()

	// They are seen, and can be made to go.
	l := m.them.take("mutex", "/locks/seen", 0)
	info, err := a.Inspect(m.context(), "seen")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Fence == 0 {
		t.Fatalf("Inspect: %+v, %v", info, err)
	}
	if _, err := a.Break(m.context(), "seen", holdfast.Break{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := m.weTake(mutex(a, "seen")).Unlock(); err != nil {
		t.Fatal(err)
	}
	_ = l
}

func TestKazoo(t *testing.T) {
	server := testserver.ZooKeeper(t, testserver.ZooKeeperOptions{})
	m := &meeting{t, startKazoo(t, server.Addr()), server.Addr()}
	a, rw := m.client(zklock.Mutex), m.client(zklock.ReadWrite)
	m.exclude("mutex", "invoice", 0, mutex(a, "invoice"))
	m.exclude("mutex", "invoice", 0, mutex(rw, "invoice"))
	m.exclude("mutex", "invoice", 0, reader(a, "invoice"))
	m.exclude("write", "rw", 0, mutex(a, "rw"))
	m.exclude("write", "rw", 0, reader(a, "rw"))
	m.exclude("read", "rw", 0, mutex(a, "rw"))
	m.share("read", "rw", 0, reader(a, "rw"))
	m.crowd("mutex", "busy", mutex(a, "busy"), 10)
}
