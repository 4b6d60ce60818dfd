package etcdlock_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// refused fails unless somebody else holds the name.
func (l *lab) refused(c *holdfast.Client, name string) {
	l.Helper()
	if lease, err := c.Mutex(name).TryLock(l.patience()); !errors.Is(err, holdfast.ErrHeld) {
		l.Fatalf("granted %v, %v, want %v", lease, err, holdfast.ErrHeld)
	}
	if lease, err := c.RWMutex(name).TryRLock(l.patience()); !errors.Is(err, holdfast.ErrHeld) {
		l.Fatalf("granted to a reader %v, %v, want %v", lease, err, holdfast.ErrHeld)
	}
	if lease, err := c.Semaphore(name, 3).TryAcquire(l.patience(), 1); !errors.Is(err, holdfast.ErrHeld) {
		l.Fatalf("granted permits %v, %v, want %v", lease, err, holdfast.ErrHeld)
	}
}

// etcdctl runs `etcdctl lock` and returns what it prints when it has the lock.
func (l *lab) etcdctl(name string) (held <-chan string, release func()) {
	l.Helper()
	cmd := exec.Command(testserver.Need(l, "etcdctl"), "--endpoints="+strings.Join(l.cluster.Addrs(), ","), "lock", name)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	lines := make(chan string, 1)
	go func() {
		line := make([]byte, 1024)
		n, _ := out.Read(line)
		lines <- string(line[:n])
	}()
	var once sync.Once
	release = func() {
		once.Do(func() {
			_ = cmd.Process.Signal(os.Interrupt)
			timer := time.AfterFunc(labPatience, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			timer.Stop()
		})
	}
	l.Cleanup(release)
	return lines, release
}

func TestInteropEtcdctl(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e := l.engine(l.cluster.Addrs()...)
	c := l.client(e, 5*time.Second)

	held, release := l.etcdctl("holdfast/name")
	if key := <-held; !strings.HasPrefix(key, "holdfast/name/") {
		t.Fatalf("etcdctl says %q", key)
	}
	l.refused(c, "name")
	infos, err := e.List(l.patience(), "", 10)
	if err != nil || len(infos) != 1 || infos[0].Name != "name" || len(infos[0].Holders) != 1 {
		t.Errorf("list: %+v, %v", infos, err)
	}
	w := l.waiter(c, e, "name")
	release()
	lease := w.granted()

	held, release = l.etcdctl("holdfast/name")
	l.eventually("etcdctl waits", func() bool { return l.waiting(e, "name") == 1 })
	select {
	case key := <-held:
		t.Fatalf("etcdctl has %q beside the holder", key)
	default:
	}
	l.unlock(lease)
	<-held
	l.refused(c, "name")
	release()
	l.unlock(l.lock(c, "name"))
}

// The lock service, in its form for HTTP.
func TestInteropLockService(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e := l.engine(l.cluster.Addrs()...)
	c := l.client(e, 5*time.Second)
	call := func(path, field string, value []byte) (answer struct{ Key []byte }) {
		t.Helper()
		body, _ := json.Marshal(map[string][]byte{field: value})
		resp, err := http.Post("http://"+l.cluster.Addrs()[0]+path, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return answer
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
		return answer
	}
	key := call("/v3/lock/lock", "name", []byte("holdfast/name")).Key
	l.refused(c, "name")
	w := l.waiter(c, e, "name")
	call("/v3/lock/unlock", "key", key)
	lease := w.granted()
	got := make(chan []byte, 1)
	go func() { got <- call("/v3/lock/lock", "name", []byte("holdfast/name")).Key }()
	l.eventually("the service waits", func() bool { return l.waiting(e, "name") == 1 })
	l.unlock(lease)
	key = <-got
	l.refused(c, "name")
	call("/v3/lock/unlock", "key", key)
	l.unlock(l.lock(c, "name"))
	http.DefaultClient.CloseIdleConnections()
}

// concurrency.Mutex against each kind of share, one at a time.
func TestInteropMutex(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{Current: true})
	e := l.engine(l.cluster.Addrs()...)
	c := l.client(e, 5*time.Second)
	session, err := concurrency.NewSession(l.raw(l.cluster.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	m := concurrency.NewMutex(session, "holdfast/name")
	if err := m.Lock(l.patience()); err != nil {
		t.Fatal(err)
	}
	l.refused(c, "name")
	if err := m.Unlock(l.patience()); err != nil {
		t.Fatal(err)
	}
	takes := map[string]func(context.Context) (*holdfast.Lease, error){
		"mutex":       c.Mutex("name").Lock,
		"reader":      c.RWMutex("name").RLock,
		"upgradeable": c.RWMutex("name").LockUpgradeable,
		"permits":     func(ctx context.Context) (*holdfast.Lease, error) { return c.Semaphore("name", 3).Acquire(ctx, 1) },
	}
	for kind, take := range takes {
		lease, err := take(l.patience())
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if err := m.TryLock(l.patience()); !errors.Is(err, concurrency.ErrLocked) {
			t.Errorf("beside a %s: %v, want %v", kind, err, concurrency.ErrLocked)
		}
		l.unlock(lease)
	}
}

// Readers, writers and upgrades of ours among mutexes of etcd's: nobody is there who must not.
func TestInteropCrowd(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{Current: true})
	addrs := l.cluster.Addrs()
	var writers, readers atomic.Int32
	check := func(w, r int32) {
		if w > 1 || w == 1 && r > 0 {
			t.Errorf("%d writers beside %d readers", w, r)
		}
	}
	write := func() { check(writers.Add(1), readers.Load()); time.Sleep(time.Millisecond); writers.Add(-1) }
	read := func() { check(writers.Load(), readers.Add(1)); time.Sleep(time.Millisecond); readers.Add(-1) }
	const rounds = 25
	var all sync.WaitGroup
	for range 3 {
		session, err := concurrency.NewSession(l.raw(addrs...))
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		all.Go(func() {
			m := concurrency.NewMutex(session, "holdfast/name")
			for range rounds {
				if err := m.Lock(l.patience()); err != nil {
					t.Error(err)
					return
				}
				write()
				if err := m.Unlock(l.patience()); err != nil {
					t.Error(err)
				}
			}
		})
		e := l.engine(addrs...)
		for _, mode := range []driver.Mode{driver.Exclusive, driver.Shared, driver.Shared, driver.Upgradeable} {
			all.Go(func() { l.visits(e, mode, rounds, read, write) })
		}
	}
	all.Wait()
}

// visits takes shares of the engine, without the core between, and upgrades those that can be.
func (l *lab) visits(e driver.Engine, mode driver.Mode, rounds int, read, write func()) {
	for i := range rounds {
		req := driver.Request{
			Name: "name", Mode: mode, TTL: 20 * time.Second, Span: 1, Wait: true,
			Token: newToken(),
		}
		g, err := e.Acquire(l.patience(), req)
		if err != nil {
			l.Errorf("%v: %v", mode, err)
			return
		}
		claim := req.Claim(g)
		if mode == driver.Exclusive {
			write()
		} else {
			read()
		}
		if mode == driver.Upgradeable && i%2 == 0 {
			req.Mode, req.Upgrade = driver.Exclusive, true
			g, err := e.Acquire(l.patience(), req)
			if err != nil {
				l.Errorf("upgrade: %v", err)
			} else {
				claim = req.Claim(g)
				write()
			}
		}
		if err := e.Release(l.patience(), claim); err != nil {
			l.Errorf("release: %v", err)
		}
	}
}
