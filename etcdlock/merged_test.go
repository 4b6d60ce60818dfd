package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// exclusive is a request for a name.
func exclusive(name string, ttl time.Duration) driver.Request {
	return driver.Request{Name: name, Mode: driver.Exclusive, TTL: ttl, Span: 1, Wait: true, Token: newToken()}
}

// Many requests of one process for one name, without the core before them, which sends one: they
// exclude each other though requests travel together, and no two have one fence.
func TestMergedOneName(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	l.timeout = patientTimeout
	e := l.engine(l.cluster.Addrs()...)
	var inside atomic.Int32
	var fences sync.Map
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			req := exclusive("name", 30*time.Second)
			g, err := e.Acquire(l.patience(), req)
			if err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n != 1 {
				t.Errorf("%d hold the lock", n)
			}
			if _, twice := fences.LoadOrStore(g.Fence, true); twice {
				t.Errorf("fence %d was granted twice", g.Fence)
			}
			inside.Add(-1)
			if err := e.Release(l.patience(), req.Claim(g)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// renewing renews a claim until the test is over, and fails when that fails.
func (l *lab) renewing(e driver.Engine, claim driver.Claim) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var d *driver.Error
			if err := e.Renew(ctx, []driver.Claim{claim})[0]; errors.As(err, &d) && d.Kind == driver.Lost {
				l.Errorf("renewal: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(claim.TTL / 5):
			}
		}
	}()
	l.Cleanup(func() { cancel(); <-done })
}

// One claim is not renewed, and another of the same process is: the lease that both hang on goes
// on, and the first ends all the same.
func TestTTLBesideOthers(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e, other := l.engine(l.cluster.Addrs()...), l.engine(l.cluster.Addrs()...)
	const ttl = 5 * time.Second
	var claims []driver.Claim
	for i := range 2 {
		req := exclusive(fmt.Sprint("name", i), ttl)
		g, err := e.Acquire(l.patience(), req)
		if err != nil {
			t.Fatal(err)
		}
		claims = append(claims, req.Claim(g))
	}
	l.renewing(e, claims[1])
	if _, err := other.Acquire(l.patience(), exclusive("name0", ttl)); err != nil {
		t.Errorf("what was not renewed: %v", err)
	}
	if err := e.Renew(l.patience(), claims)[0]; err == nil {
		t.Error("what was not renewed is renewed")
	}
}

// A request takes effect whose answer is lost, and nobody releases it. It ends with the lease
// that it hangs on, which the process leaves, while what else it holds goes on.
func TestOrphanEnds(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	m := l.cluster.Members()[0]
	e, other := l.engine(m.Proxy().Addr()), l.engine(m.Addr())
	const ttl = 8 * time.Second
	kept := exclusive("kept", ttl)
	g, err := e.Acquire(l.patience(), kept)
	if err != nil {
		t.Fatal(err)
	}
	m.Proxy().FreezeDown()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error)
	go func() { _, err := e.Acquire(ctx, exclusive("name", ttl)); failed <- err }()
	raw := l.raw(m.Addr())
	l.eventually("the request takes effect", func() bool { return len(l.keys(raw)) == 2 })
	m.Proxy().Drop(testserver.Up) // and with it what the request does to undo it
	cancel()
	var d *driver.Error
	if err := <-failed; !errors.As(err, &d) || d.Outcome != driver.Unknown || !errors.Is(err, context.Canceled) {
		t.Fatalf("without an answer: %v, want an unknown outcome", err)
	}
	m.Proxy().Cut()
	m.Proxy().Heal()
	l.renewing(e, kept.Claim(g))
	if _, err := other.Acquire(l.patience(), exclusive("name", ttl)); err != nil {
		t.Errorf("what nobody holds: %v", err)
	}
}

// A deletion takes effect whose answer is lost, perhaps once more and much later: no other request
// of the process has its key where that would meet it.
func TestLostDeletion(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	m := l.cluster.Members()[0]
	e, raw := l.engine(m.Proxy().Addr()), l.raw(m.Addr())
	req := exclusive("name", 30*time.Second)
	g, err := e.Acquire(l.patience(), req)
	if err != nil {
		t.Fatal(err)
	}
	before := l.keys(raw)
	m.Proxy().FreezeDown()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error)
	go func() { failed <- e.Release(ctx, req.Claim(g)) }()
	l.eventually("the deletion takes effect", func() bool { return len(l.keys(raw)) == 0 })
	cancel()
	var d *driver.Error
	if err := <-failed; !errors.As(err, &d) || d.Outcome != driver.Unknown {
		t.Fatalf("without an answer: %v, want an unknown outcome", err)
	}
	m.Proxy().Cut()
	m.Proxy().Heal()
	for range 3 {
		req := exclusive("name", 30*time.Second)
		g, err := e.Acquire(l.patience(), req)
		if err != nil {
			t.Fatal(err)
		}
		if keys := l.keys(raw); len(keys) != 1 || keys[0] == before[0] {
			t.Errorf("keys %q, after a deletion of %q", keys, before)
		}
		if err := e.Release(l.patience(), req.Claim(g)); err != nil {
			t.Error(err)
		}
	}
}

// Readers come all the time, and an upgradeable share is upgraded without waiting: no reader is
// there when that succeeds, not even one who came at that very moment.
func TestUpgradeAmongReaders(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	var readers atomic.Int32
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range 2 {
		e := l.engine(l.cluster.Addrs()...)
		all.Go(func() {
			for ctx.Err() == nil {
				req := exclusive("name", 30*time.Second)
				req.Mode, req.Wait = driver.Shared, false
				g, err := e.Acquire(l.patience(), req)
				if err != nil {
					continue
				}
				readers.Add(1)
				time.Sleep(time.Millisecond)
				readers.Add(-1)
				if err := e.Release(l.patience(), req.Claim(g)); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond) // now and then nobody reads
			}
		})
	}
	e := l.engine(l.cluster.Addrs()...)
	upgraded, began := 0, time.Now()
	for time.Since(began) < 4*time.Second || upgraded == 0 && time.Since(began) < labPatience {
		req := exclusive("name", 30*time.Second)
		req.Mode = driver.Upgradeable
		g, err := e.Acquire(l.patience(), req)
		if err != nil {
			t.Fatal(err)
		}
		claim := req.Claim(g)
		up := req
		up.Mode, up.Upgrade, up.Wait = driver.Exclusive, true, false
		for range 5 {
			g, err := e.Acquire(l.patience(), up)
			if err != nil {
				continue
			}
			upgraded++
			claim = up.Claim(g)
			if n := readers.Load(); n > 0 {
				t.Errorf("upgraded beside %d readers", n)
			}
			time.Sleep(time.Millisecond)
			if n := readers.Load(); n > 0 {
				t.Errorf("%d readers came beside an exclusive share", n)
			}
			break
		}
		if err := e.Release(l.patience(), claim); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	all.Wait()
	if upgraded == 0 {
		t.Error("no upgrade ever came about")
	}
}
