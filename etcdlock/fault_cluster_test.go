package etcdlock_test

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var threeMembers = testserver.EtcdOptions{Members: 3, Current: true}

// The leader is killed while one holds a lock and another waits for it: the holder keeps it, and
// the other gets it afterwards.
func TestFaultLeaderKilled(t *testing.T) {
	const ttl = 10 * time.Second
	l := newLab(t, threeMembers)
	l.timeout = patientTimeout
	look := l.engine(l.cluster.Addrs()...)
	began := time.Now()
	lease := l.lock(l.process(ttl), "name")
	w := l.waiter(l.process(ttl), look, "name")
	l.cluster.Leader().Kill()
	l.outlives(lease, began, ttl)
	if w.over() {
		t.Fatalf("granted beside the holder: %v", w.err)
	}
	l.unlock(lease)
	next := w.granted()
	if next.Fence() <= lease.Fence() {
		t.Errorf("fence %d after %d", next.Fence(), lease.Fence())
	}
	l.unlock(next)
}

// The holder reaches one member only, which leads and is taken from the others: its lease ends
// before the majority grants the lock to somebody else.
func TestFaultHolderInMinority(t *testing.T) {
	const ttl = 5 * time.Second // a waiter outlives the election of a leader for as long
	l := newLab(t, threeMembers)
	l.timeout = patientTimeout
	leader := l.cluster.Leader()
	var majority []string
	for _, m := range l.cluster.Members() {
		if m != leader {
			majority = append(majority, m.Addr())
		}
	}
	other := l.engine(majority...)
	lease := l.lock(l.process(ttl, leader.Addr()), "name")
	held := lease.Context()
	w := l.waiter(l.client(other, ttl), other, "name")
	l.cluster.Isolate(leader)
	next := w.granted()
	if held.Err() == nil {
		t.Error("granted to another while the old holder believes in its lease")
	}
	l.ends(lease)
	if next.Fence() <= lease.Fence() {
		t.Errorf("fence %d after %d", next.Fence(), lease.Fence())
	}
	l.cluster.Rejoin()
	l.unlock(next)
}

// All members crash and come back: who waited is served, and the holder keeps its lock.
func TestFaultRestart(t *testing.T) {
	const ttl = 10 * time.Second
	l := newLab(t, threeMembers)
	l.timeout = patientTimeout
	look := l.engine(l.cluster.Addrs()...)
	began := time.Now()
	lease := l.lock(l.process(ttl), "name")
	w := l.waiter(l.process(ttl), look, "name")
	for _, m := range l.cluster.Members() {
		m.Kill()
	}
	for _, m := range l.cluster.Members() {
		m.Start()
	}
	l.cluster.AwaitReady()
	if lease.Context().Err() == nil { // or the machine was too slow
		l.outlives(lease, began, ttl)
		if w.over() {
			t.Fatalf("granted beside the holder: %v", w.err)
		}
		l.unlock(lease)
	}
	l.unlock(w.granted())
}

// Nobody has a majority: who asks is told in time, who holds is told in time, and all is well
// when it is back.
func TestFaultQuorumLost(t *testing.T) {
	const ttl = 3 * time.Second
	l := newLab(t, threeMembers)
	c := l.process(ttl)
	lease := l.lock(c, "name")
	down := l.cluster.Members()[:2]
	for _, m := range down {
		m.Kill()
	}
	l.ends(lease)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := c.Mutex("another").Lock(ctx); err == nil {
		t.Error("granted without a majority")
	}
	for _, m := range down {
		m.Start()
	}
	l.cluster.AwaitReady()
	l.unlock(l.lock(c, "name"))
}

// The lease is revoked behind the back of who holds a lock, and of who waits for one: the first
// is told, the second queues anew.
func TestFaultLeaseRevoked(t *testing.T) {
	const ttl = 3 * time.Second
	l := newLab(t, testserver.EtcdOptions{})
	raw := l.raw(l.cluster.Addrs()...)
	look := l.engine(l.cluster.Addrs()...)
	revoke := func() {
		leases, err := raw.Leases(l.patience())
		if err != nil {
			t.Fatal(err)
		}
		for _, lease := range leases.Leases {
			_, _ = raw.Revoke(l.patience(), lease.ID)
		}
	}
	holder, other := l.process(ttl), l.process(ttl)
	lease := l.lock(holder, "name")
	revoke()
	l.ends(lease)

	lease = l.lock(other, "name") // at once: what was revoked is free
	w := l.waiter(holder, look, "name")
	info, err := raw.Get(l.patience(), "holdfast/name/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil || len(info.Kvs) != 2 {
		t.Fatalf("%d keys, want a holder's and a waiter's: %v", len(info.Kvs), err)
	}
	if _, err := raw.Revoke(l.patience(), clientv3.LeaseID(info.Kvs[1].Lease)); err != nil {
		t.Fatal(err)
	}
	l.eventually("it waits again", func() bool { return l.waiting(look, "name") == 1 })
	if w.over() {
		t.Fatalf("granted beside the holder: %v", w.err)
	}
	l.unlock(lease)
	l.unlock(w.granted())
}

// What a watch is about to tell is compacted away while its connection is down.
func TestFaultCompaction(t *testing.T) {
	const ttl = 5 * time.Second
	l := newLab(t, testserver.EtcdOptions{})
	l.timeout = patientTimeout
	m := l.cluster.Members()[0]
	raw := l.raw(m.Addr())
	look := l.engine(m.Addr())
	lease := l.lock(l.process(ttl), "name")
	w := l.waiter(l.process(ttl, m.Proxy().Addr()), look, "name")
	m.Proxy().Refuse()
	m.Proxy().Cut()
	l.unlock(lease)
	var last int64
	for range 20 {
		resp, err := raw.Put(l.patience(), "elsewhere", "")
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Header.Revision
	}
	if _, err := raw.Compact(l.patience(), last); err != nil {
		t.Fatal(err)
	}
	m.Proxy().Allow()
	l.unlock(w.granted())
}

// A frozen network on the holder's side alone: it is told before another gets the lock, though
// its client library says nothing.
func TestFaultSilentNetwork(t *testing.T) {
	const ttl = 3 * time.Second
	l := newLab(t, testserver.EtcdOptions{})
	m := l.cluster.Members()[0]
	lease := l.lock(l.process(ttl, m.Proxy().Addr()), "name")
	held := lease.Context()
	other := l.engine(m.Addr())
	w := l.waiter(l.client(other, ttl), other, "name")
	m.Proxy().Freeze()
	next := w.granted()
	if held.Err() == nil {
		t.Error("granted to another while the old holder believes in its lease")
	}
	m.Proxy().Heal()
	l.unlock(next)
}

// The answer to a request is lost, and the request's effect with it: nobody has to wait for
// longer than the lease that the key hangs on, although the process lives and holds others.
func TestFaultAnswerLost(t *testing.T) {
	const ttl = 3 * time.Second
	l := newLab(t, testserver.EtcdOptions{})
	m := l.cluster.Members()[0]
	c := l.process(ttl, m.Proxy().Addr())
	kept := l.lock(c, "kept")
	m.Proxy().FreezeDown()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Mutex("name").Lock(ctx); err == nil {
		t.Fatal("granted without an answer")
	}
	m.Proxy().Heal()
	l.unlock(l.lock(l.process(ttl), "name"))
	_ = kept.Unlock() // lost or not: its answers came late
}
