package zklock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// brief is a session that ends within the test.
var brief = zklock.Config{SessionTimeout: 3 * time.Second, Timeout: 500 * time.Millisecond}

const short = time.Second // the TTL that a brief session carries

// testSuspended: a session that comes back in time goes on, with all that it held and waited
// for.
func testSuspended(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	other := l.open()
	c := l.take(e, request("held", driver.Exclusive, long))
	theirs := l.take(other, request("wanted", driver.Exclusive, long))
	w := l.wait(l.context(), e, request("wanted", driver.Exclusive, long))
	before := l.nodes(l.path("wanted"))
	proxy.Refuse()
	proxy.Cut()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := e.Renew(ctx, []driver.Claim{c})[0]; err == nil {
		t.Fatal("a renewal succeeded without a connection")
	} else {
		l.wantKind(err, driver.Unavailable)
	}
	proxy.Heal()
	l.eventually("the claim is renewed", func() bool { return e.Renew(l.context(), []driver.Claim{c})[0] == nil })
	if after := l.nodes(l.path("wanted")); len(after) != len(before) {
		t.Errorf("the queue is %q, was %q", after, before)
	}
	l.release(other, theirs)
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
}

// testExpired: what a session held is lost with it, to its holder as well, and the engine
// goes on with another.
func testExpired(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), brief)
	e, proxy := l.behind()
	other := l.open()
	c := l.take(e, request("n", driver.Exclusive, short))
	proxy.Partition()
	w := l.start(l.context(), other, request("n", driver.Exclusive, short))
	if err := l.ended(w); err != nil { // held by nobody but the end of the session
		t.Fatal(err)
	}
	proxy.Heal()
	l.eventually("the engine has a session", func() bool {
		_, err := e.Acquire(l.context(), request("other", driver.Exclusive, short))
		return err == nil
	})
	l.wantKind(e.Renew(l.context(), []driver.Claim{c})[0], driver.Lost)
	l.wantKind(e.Release(l.context(), c), driver.NotHeld)
}

// testExpiredWaiter: a request that waits takes a new place when its session is over.
func testExpiredWaiter(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	other := l.open()
	holder := l.take(other, request("n", driver.Exclusive, long))
	l.cfg.SessionTimeout, l.cfg.Timeout = 6*time.Second, brief.Timeout
	e, proxy := l.behind()
	w := l.wait(l.context(), e, request("n", driver.Exclusive, short))
	proxy.Partition()
	l.eventually("its session ends", func() bool { return l.count("n") == 1 })
	proxy.Heal()
	l.eventually("it waits again", func() bool { return l.count("n") == 2 })
	l.release(other, holder)
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
}

// testExpiredThenRenewed: a renewal that is answered in the next session does not succeed. Nor
// would it while the node is there still, which it is for a moment.
func testExpiredThenRenewed(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), brief)
	e, proxy := l.behind()
	c := l.take(e, request("n", driver.Exclusive, short))
	node := l.path("n") + "/" + l.nodes(l.path("n"))[0]
	if err := e.ProveIn(l.context(), 0, node); err != nil {
		t.Fatalf("proof in the session of the node: %v", err)
	}
	if err := e.ProveIn(l.context(), 1, node); err == nil {
		t.Fatal("a node was proved in another session than its own")
	}
	proxy.Partition()
	l.eventually("its session ends", func() bool { return l.count("n") == 0 })
	answer := make(chan error, 1)
	go func() { answer <- e.Renew(l.context(), []driver.Claim{c})[0] }()
	proxy.Heal()
	select {
	case err := <-answer:
		if err == nil {
			t.Fatal("a claim was renewed whose session is over")
		}
	case <-time.After(patience):
		t.Fatal("the renewal does not end")
	}
}

// testWatchLost: the event comes while the connection is dead.
func testWatchLost(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	other := l.open()
	for range 3 {
		holder := l.take(other, request("n", driver.Exclusive, long))
		req := request("n", driver.Exclusive, long)
		w := l.wait(l.context(), e, req)
		proxy.FreezeDown()
		l.release(other, holder)
		proxy.Cut()
		proxy.Heal()
		if err := l.ended(w); err != nil {
			t.Fatal(err)
		}
		l.release(e, req.Claim(w.grant))
	}
}

// testToldInTime: the holder is told by its own clock, while the client library says nothing,
// before anybody else is granted the lock.
func testToldInTime(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), brief)
	e, proxy := l.behind()
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer hf.Close()
	lease, err := hf.Mutex("n").Lock(l.context())
	if err != nil {
		t.Fatal(err)
	}
	w := l.wait(l.context(), l.open(), request("n", driver.Exclusive, short))
	proxy.Partition()
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lease.Context().Done():
	default:
		t.Fatal("somebody else has the lock, and its holder has not been told")
	}
	if cause := context.Cause(lease.Context()); !errors.Is(cause, holdfast.ErrLost) {
		t.Fatalf("cause is %v, want %v", cause, holdfast.ErrLost)
	}
}

// testCloseWhileDisconnected: Close returns, and nothing of the engine is left running.
func testCloseWhileDisconnected(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	for _, broken := range []func(*testserver.TCPProxy){
		(*testserver.TCPProxy).Partition,
		func(p *testserver.TCPProxy) { p.Refuse(); p.Cut() },
	} {
		e, proxy := l.behind()
		l.take(e, request("n", driver.Exclusive, long))
		w := l.wait(l.context(), e, request("n", driver.Exclusive, long))
		broken(proxy)
		done := make(chan error, 1)
		go func() { done <- e.Close() }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("Close does not return")
		}
		l.wantKind(l.ended(w), driver.Closed)
		l.cfg.Root = root() // the session of this one lives on
	}
}
