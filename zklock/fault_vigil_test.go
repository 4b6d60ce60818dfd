package zklock_test

import (
	"context"
	"errors"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// theVigil is the beginning of the request for one: its opcode, and since when.
const theVigil = "\x00\x00\x00\x65\x7f\xff\xff\xff\xff\xff\xff\xff"

// stillWaits wants w to wait after all that has happened on the server. What has been told to
// its engine before another request was answered has arrived.
func (l *lab) stillWaits(e *zklock.Engine, w *waiting) {
	l.Helper()
	l.release(e, l.take(e, request("another", driver.Exclusive, long)))
	select {
	case <-w.done:
		l.Fatalf("the request has ended, with error %v, while another holds the lock", w.err)
	default:
	}
}

// change writes to the nodes of a name.
func (l *lab) change(name string) {
	l.Helper()
	for _, n := range l.nodes(l.path(name)) {
		if _, err := l.admin.Set(l.path(name)+"/"+n, []byte("changed"), -1); err != nil {
			l.Fatal(err)
		}
	}
}

// keeps returns when an engine keeps so many vigils.
func (l *lab) keeps(e *zklock.Engine, count int) {
	l.Helper()
	l.eventually("the vigils are kept or ended", func() bool { return e.Vigils() == count })
}

// testVigilCut: the request for a vigil is lost, its answer, or the connection later; each time
// the one that waits is granted when its turn comes, and not before.
func testVigilCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	other := l.open()
	for name, fault := range map[string]func(){
		"request": func() { proxy.CutRequest(theVigil) },
		"answer":  func() { proxy.CutReplyTo(theVigil) },
		"dropped": func() { proxy.DropReplyTo(theVigil) },
	} {
		holder := l.take(other, request("n", driver.Exclusive, long))
		faults := proxy.Stats().Faults
		fault()
		req := request("n", driver.Exclusive, long)
		w := l.start(l.context(), e, req)
		l.eventually("the "+name+" is lost", func() bool { return proxy.Stats().Faults == faults+1 })
		l.stillWaits(e, w)
		proxy.Cut()
		l.keeps(e, 1) // on the new connection
		l.stillWaits(e, w)
		l.release(other, holder)
		if err := l.ended(w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l.release(e, req.Claim(w.grant))
		if n := l.count("n"); n != 0 {
			t.Fatalf("%s: %d nodes are left", name, n)
		}
	}
	l.keeps(e, 0)
}

// testLookReplyCut: who looks again and is not answered does so once more.
func testLookReplyCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	other := l.open()
	holder := l.take(other, request("n", driver.Exclusive, long))
	req := request("n", driver.Exclusive, long)
	w := l.wait(l.context(), e, req)
	l.keeps(e, 1)
	proxy.CutReplyTo("\x00\x00\x00\x0c") // the opcode of a look
	l.change("n")                        // has it look again
	l.eventually("the look is lost", func() bool { return proxy.Stats().Faults == 1 })
	l.stillWaits(e, w)
	l.release(other, holder)
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
	l.release(e, req.Claim(w.grant))
	if n := l.count("n"); n != 0 {
		t.Fatalf("%d nodes are left", n)
	}
}

// testMayNotLook: who may create a node and not see who else is there leaves none.
func testMayNotLook(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	if err := l.admin.AddAuth("digest", []byte("admin:s3cret")); err != nil {
		t.Fatal(err)
	}
	blind := append(zk.DigestACL(zk.PermAll, "admin", "s3cret"), zk.WorldACL(zk.PermCreate|zk.PermDelete)...)
	for _, path := range []string{l.cfg.Root, l.path("n")} {
		if _, err := l.admin.Create(path, nil, zk.FlagPersistent, blind); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.open().Acquire(l.context(), request("n", driver.Exclusive, long))
	if l.wantKind(err, driver.Unavailable); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("error is %v, want %v", err, zk.ErrNoAuth)
	}
	if n := l.count("n"); n != 0 {
		t.Errorf("%d nodes are left", n)
	}
}

// testNotTheTurn: while somebody holds the lock nothing that happens to others gets it granted:
// not the end of who was nearest, nor changes of nodes.
func testNotTheTurn(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	a, b := l.open(), l.open()
	for range 5 {
		holder := l.take(a, request("n", driver.Exclusive, long))
		ctx, cancel := context.WithCancel(l.context())
		near := l.wait(ctx, a, request("n", driver.Exclusive, long))
		req := request("n", driver.Exclusive, long)
		w := l.wait(l.context(), b, req)
		l.keeps(b, 1)
		l.change("n")
		l.stillWaits(b, w)
		cancel()
		if err := l.ended(near); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		l.stillWaits(b, w)
		l.change("n")
		l.stillWaits(b, w)
		l.release(a, holder)
		if err := l.ended(w); err != nil {
			t.Fatal(err)
		}
		l.release(b, req.Claim(w.grant))
	}
	l.keeps(a, 0)
	l.keeps(b, 0)
}

// testWaitingNodeReplaced: who waits and lost its node takes another at once, behind those that
// came meanwhile.
func testWaitingNodeReplaced(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	a, b := l.open(), l.open()
	holder := l.take(a, request("n", driver.Exclusive, long))
	held := l.nodes(l.path("n"))[0]
	req := request("n", driver.Exclusive, long)
	w := l.wait(l.context(), b, req)
	l.keeps(b, 1)
	for _, n := range l.nodes(l.path("n")) {
		if n != held {
			if err := l.admin.Delete(l.path("n")+"/"+n, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.eventually("it has another node", func() bool { return l.count("n") == 2 })
	l.stillWaits(b, w)
	l.release(a, holder)
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
	l.release(b, req.Claim(w.grant))
}

// testCancelledAtTheGrant: who is called off in the moment of its turn has the lock or has not,
// and leaves nothing in either case.
func testCancelledAtTheGrant(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	a, b := l.open(), l.open()
	for range 40 {
		holder := l.take(a, request("n", driver.Exclusive, long))
		ctx, cancel := context.WithCancel(l.context())
		req := request("n", driver.Exclusive, long)
		w := l.wait(ctx, b, req)
		released := make(chan error, 1)
		go func() { released <- a.Release(l.context(), holder) }()
		cancel()
		if err := l.ended(w); err == nil {
			l.release(b, req.Claim(w.grant))
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := <-released; err != nil {
			t.Fatal(err)
		}
		if n := l.count("n"); n != 0 {
			t.Fatalf("%d nodes are left", n)
		}
	}
	l.keeps(b, 0)
}

// testLongQueue: more wait than a vigil watches, and each has its turn, alone.
func testLongQueue(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	engines := []*zklock.Engine{l.open(), l.open(), l.open()}
	holder := l.take(engines[0], request("n", driver.Exclusive, long))
	last := holder.Fence
	var line []*waiting
	var reqs []driver.Request
	for i := range 25 {
		reqs = append(reqs, request("n", driver.Exclusive, long))
		line = append(line, l.wait(l.context(), engines[i%3], reqs[i]))
	}
	l.release(engines[0], holder)
	for i, w := range line {
		if err := l.ended(w); err != nil {
			t.Fatal(err)
		}
		if w.grant.Fence <= last {
			t.Fatalf("fence %d follows %d", w.grant.Fence, last)
		}
		last = w.grant.Fence
		if i+1 < len(line) {
			l.stillWaits(engines[(i+1)%3], line[i+1])
		}
		l.release(engines[i%3], reqs[i].Claim(w.grant))
	}
	for _, e := range engines {
		l.keeps(e, 0)
	}
}

// testDigestAfterACut: the first request on a new connection is the user's.
func testDigestAfterACut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	l.cfg.User, l.cfg.Password = "owner", "s3cret"
	e, proxy := l.behind()
	for range 20 {
		proxy.Cut()
		l.release(e, l.take(e, request("n", driver.Exclusive, long)))
	}
}
