package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leases counts the cluster's leases, and keys its keys.
func (l *lab) leases(raw *clientv3.Client) int {
	resp, err := raw.Leases(l.patience())
	if err != nil {
		l.Fatal(err)
	}
	return len(resp.Leases)
}

func (l *lab) keys(raw *clientv3.Client) []string {
	resp, err := raw.Get(l.patience(), "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		l.Fatal(err)
	}
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// Close leaves nothing: no key, no lease, and a client that was handed in is open. That it
// leaves no goroutine is a case of the conformance suite.
func TestLeakAfterClose(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	raw := l.raw(l.cluster.Addrs()...)
	look := l.engine(l.cluster.Addrs()...)
	e := l.engine(l.cluster.Addrs()...)
	c := l.client(e, 20*time.Second)
	held := l.lock(c, "held")
	other := l.process(20 * time.Second)
	ended := make(chan error, 1)
	go func() { _, err := other.Mutex("held").Lock(context.Background()); ended <- err }()
	l.eventually("it waits", func() bool { return l.waiting(look, "held") == 1 })
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, holdfast.ErrClosed) {
		t.Errorf("who waited: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := held.Unlock(); !errors.Is(err, holdfast.ErrClosed) {
		t.Errorf("unlock: %v", err)
	}
	if keys, n := l.keys(raw), l.leases(raw); len(keys) > 0 || n > 0 {
		t.Errorf("keys %q and %d leases are left", keys, n)
	}
}

// A process costs the cluster one lease a TTL, and keys that are used again, however many names
// it locks and however often.
func TestLeakOfNames(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	raw := l.raw(l.cluster.Addrs()...)
	c := l.process(20 * time.Second)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 20 {
				ctx := l.patience()
				lease, err := c.Semaphore(fmt.Sprint("name", j), 30).Acquire(ctx, 1)
				if err == nil {
					err = lease.Unlock()
				}
				if err != nil {
					t.Errorf("%d, %d: %v", i, j, err)
				}
			}
		})
	}
	all.Wait()
	if keys, n := l.keys(raw), l.leases(raw); len(keys) > 0 || n != 1 {
		t.Errorf("keys %q and %d leases are left, want one lease", keys, n)
	}
	first := l.lock(c, "again")
	key := l.keys(raw)
	l.unlock(first)
	second := l.lock(c, "again")
	if again := l.keys(raw); len(key) != 1 || len(again) != 1 || key[0] != again[0] {
		t.Errorf("keys %q, then %q, want one that is used again", key, again)
	}
	l.unlock(second)
}

// Claims that are renewed together, more of them than fit into a transaction, and with another
// TTL than before.
func TestRenewMany(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e := l.engine(l.cluster.Addrs()...)
	raw := l.raw(l.cluster.Addrs()...)
	const many = 300
	claims := make([]driver.Claim, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			req := driver.Request{Name: fmt.Sprint("name", i), Mode: driver.Exclusive, TTL: 30 * time.Second, Span: 1, Token: newToken()}
			g, err := e.Acquire(l.patience(), req)
			if err != nil {
				t.Error(err)
			}
			claims[i] = req.Claim(g)
		})
	}
	all.Wait()
	for _, ttl := range []time.Duration{30 * time.Second, 60 * time.Second, 20 * time.Second} {
		for i := range claims {
			claims[i].TTL = ttl
		}
		if _, err := raw.Delete(l.patience(), "holdfast/name7/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		for i, err := range e.Renew(l.patience(), claims) {
			var d *driver.Error
			if i == 7 && (!errors.As(err, &d) || d.Kind != driver.Lost) || i != 7 && err != nil {
				t.Errorf("claim %d renewed for %v: %v", i, ttl, err)
			}
		}
		resp, err := raw.Get(l.patience(), "holdfast/name8/", clientv3.WithPrefix())
		if err != nil || len(resp.Kvs) != 1 {
			t.Fatal(err)
		}
		lease, err := raw.TimeToLive(l.patience(), clientv3.LeaseID(resp.Kvs[0].Lease))
		if err != nil || lease.GrantedTTL != int64(ttl/time.Second)*11/10 {
			t.Errorf("renewed for %v, the key hangs on a lease of %d s: %v", ttl, lease.GrantedTTL, err)
		}
	}
	info, err := e.Inspect(l.patience(), "name8")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Fence != claims[8].Fence {
		t.Errorf("%+v, %v, want a holder with fence %d", info, err, claims[8].Fence)
	}
}

// Requests that travel together find that their lease is gone: each is granted all the same, on
// another lease, and the releases among them are carried out.
func TestMergedWithoutLease(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e := l.engine(l.cluster.Addrs()...)
	raw := l.raw(l.cluster.Addrs()...)
	var all sync.WaitGroup
	for i := range 200 {
		if i == 100 {
			leases, err := raw.Leases(l.patience())
			if err != nil || len(leases.Leases) != 1 {
				t.Fatalf("%+v, %v, want one lease", leases, err)
			}
			all.Go(func() { _, _ = raw.Revoke(l.patience(), leases.Leases[0].ID) })
		}
		all.Go(func() {
			req := driver.Request{Name: fmt.Sprint("name", i), Mode: driver.Exclusive, TTL: 30 * time.Second, Span: 1, Wait: true, Token: newToken()}
			g, err := e.Acquire(l.patience(), req)
			if err != nil {
				t.Errorf("%d: %v", i, err)
				return
			}
			var d *driver.Error
			if err := e.Release(l.patience(), req.Claim(g)); err != nil && (!errors.As(err, &d) || d.Kind != driver.NotHeld) {
				t.Errorf("%d: release: %v", i, err)
			}
		})
		if i == 99 {
			all.Wait()
		}
	}
	all.Wait()
	if keys := l.keys(raw); len(keys) > 0 {
		t.Errorf("keys %q are left", keys)
	}
}

// A guard holds while the lock stands, and for no lock that the engine does not have.
func TestGuard(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e := l.engine(l.cluster.Addrs()...)
	raw := l.raw(l.cluster.Addrs()...)
	c := l.client(e, 5*time.Second)
	holds := func(guard clientv3.Cmp) bool {
		t.Helper()
		resp, err := raw.Txn(l.patience()).If(guard).Commit()
		if err != nil {
			t.Fatal(err)
		}
		return resp.Succeeded
	}
	lease := l.lock(c, "name")
	guard := e.Guard(lease)
	if !holds(guard) {
		t.Error("the guard of a lock that is held does not hold")
	}
	if other := l.engine(l.cluster.Addrs()...); holds(other.Guard(lease)) {
		t.Error("the guard of an engine that has no such lock holds")
	}
	l.unlock(lease)
	if holds(guard) || holds(e.Guard(lease)) {
		t.Error("the guard of a lock that was given back holds")
	}
	next := l.lock(l.process(5*time.Second), "name")
	if holds(guard) || holds(e.Guard(lease)) {
		t.Error("the guard of a lock that somebody else has holds")
	}
	l.unlock(next)
}
