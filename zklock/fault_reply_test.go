package zklock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// patient is a session that outlives what a test does to its connection, and soon misses an
// answer.
var patient = zklock.Config{SessionTimeout: 60 * time.Second, Timeout: 1500 * time.Millisecond}

const long = 20 * time.Second // a TTL that a patient session carries

// testCreateReplyCut: the node whose creation was not answered is found again and used.
func testCreateReplyCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	l.release(e, l.take(e, request("n", driver.Exclusive, long))) // its folder exists
	proxy.CutReplyTo(l.path("n") + "/_c_")
	c := l.take(e, request("n", driver.Exclusive, long))
	if proxy.Stats().Faults != 1 {
		t.Fatal("no reply was lost")
	}
	if n := l.count("n"); n != 1 {
		t.Fatalf("there are %d nodes, want the one that was found again", n)
	}
	if c.Fence < 1 {
		t.Fatalf("fence is %d", c.Fence)
	}
	l.refused(l.open(), request("n", driver.Exclusive, long))
	l.release(e, c)
	if n := l.count("n"); n != 0 {
		t.Fatalf("%d nodes are left", n)
	}
}

// testCreateReplyDropped: the same in a network that loses packets, where nobody is told.
func testCreateReplyDropped(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	l.release(e, l.take(e, request("n", driver.Exclusive, long)))
	proxy.DropReplyTo(l.path("n") + "/_c_")
	c := l.take(e, request("n", driver.Exclusive, long))
	if n := l.count("n"); n != 1 || proxy.Stats().Faults != 1 {
		t.Fatalf("there are %d nodes after %d faults, want one each", n, proxy.Stats().Faults)
	}
	l.release(e, c)
}

func testCreateReplyCutPermits(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	req := request("n", driver.Permits, long)
	req.Weight, req.Limit = 3, 3
	l.release(e, l.take(e, req))
	proxy.CutReplyTo("lease-")
	req = request("n", driver.Permits, long)
	req.Weight, req.Limit = 3, 3
	c := l.take(e, req)
	if n := l.count("n"); n != 3 || proxy.Stats().Faults != 1 {
		t.Fatalf("there are %d nodes after %d faults, want 3 after one", n, proxy.Stats().Faults)
	}
	l.release(e, c)
	if n := l.count("n"); n != 0 {
		t.Fatalf("%d nodes are left", n)
	}
}

// testCreateRequestCut: a creation that never arrived is repeated.
func testCreateRequestCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	l.release(e, l.take(e, request("n", driver.Exclusive, long)))
	proxy.CutRequest(l.path("n") + "/_c_")
	c := l.take(e, request("n", driver.Exclusive, long))
	if n := l.count("n"); n != 1 || proxy.Stats().Faults != 1 {
		t.Fatalf("there are %d nodes after %d faults, want one each", n, proxy.Stats().Faults)
	}
	l.release(e, c)
}

// testCancelledInDoubt: the caller goes while nobody knows whether the node was created. It
// leaves nothing, though its session lives on.
func testCancelledInDoubt(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	l.release(e, l.take(e, request("n", driver.Exclusive, long)))
	proxy.FreezeDown()
	ctx, cancel := context.WithCancel(context.Background())
	w := l.start(ctx, e, request("n", driver.Exclusive, long))
	l.eventually("the node is created", func() bool { return l.count("n") == 1 })
	cancel()
	if err := l.ended(w); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v, want %v", err, context.Canceled)
	}
	proxy.Cut()
	proxy.Heal()
	l.eventually("the node goes", func() bool { return l.count("n") == 0 })
	l.take(e, request("n", driver.Exclusive, long))
}

// testDeleteReplyCut: a release whose answer was lost says so, and the node goes.
func testDeleteReplyCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	c := l.take(e, request("n", driver.Exclusive, long))
	proxy.CutRequest("\x00\x00\x00\x02") // the opcode of delete
	d := l.wantKind(e.Release(l.context(), c), driver.Unavailable)
	if d.Outcome != driver.Unknown {
		t.Errorf("outcome is %v, want %v", d.Outcome, driver.Unknown)
	}
	l.eventually("the node goes", func() bool { return l.count("n") == 0 })
}

// testGrantProofCut: the check that ends a wait is repeated when its answer is lost.
func testGrantProofCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	other := l.open()
	req := request("n", driver.Permits, long)
	req.Weight = 2
	holder := l.take(other, req)
	again := request("n", driver.Permits, long)
	again.Weight = 2
	w := l.start(l.context(), e, again)
	l.eventually("the request waits", func() bool { return len(l.nodes(l.path("n")+"/locks")) == 1 && l.count("n") == 5 })
	proxy.CutReplyTo("\x00\x00\x00\x0e") // the opcode of a transaction
	l.release(other, holder)
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
	if n := l.count("n"); n != 2 || proxy.Stats().Faults != 1 {
		t.Fatalf("there are %d nodes after %d faults, want 2 after one", n, proxy.Stats().Faults)
	}
}

// testServerSilent: a connection that owes an answer is given up for another, and what was
// held is held.
func testServerSilent(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	first, second := testserver.Proxy(t, s.Addr()), testserver.Proxy(t, s.Addr())
	e := l.open(first.Addr(), second.Addr())
	c := l.take(e, request("n", driver.Exclusive, long))
	for _, p := range []*testserver.TCPProxy{first, second} {
		p.Partition()
		l.eventually("the claim is renewed through the other", func() bool { return e.Renew(l.context(), []driver.Claim{c})[0] == nil })
		p.Heal()
	}
	l.release(e, c)
}
