package zklock_test

import (
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// testLibraryLock: the lock of the client library and ours keep each other out, and stand in one
// queue.
func testLibraryLock(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	theirs := zk.NewLock(l.admin, l.path("n"), zk.WorldACL(zk.PermAll))
	if err := theirs.Lock(); err != nil {
		t.Fatal(err)
	}
	l.refused(e, request("n", driver.Exclusive, long))
	l.refused(e, request("n", driver.Shared, long))
	req := request("n", driver.Exclusive, long)
	ours := l.wait(l.context(), e, req)

	locked := make(chan error, 1)
	next := zk.NewLock(l.admin, l.path("n"), zk.WorldACL(zk.PermAll))
	go func() { locked <- next.Lock() }()
	l.eventually("all three stand in the queue", func() bool { return l.count("n") == 3 })
	if err := theirs.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := l.ended(ours); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-locked:
		t.Fatalf("their Lock returned %v while the name is held", err)
	default:
	}
	l.release(e, req.Claim(ours.grant))
	select {
	case err := <-locked:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("their Lock does not return")
	}
	l.refused(e, request("n", driver.Exclusive, long))
	if err := next.Unlock(); err != nil {
		t.Fatal(err)
	}
	l.release(e, l.take(e, request("n", driver.Exclusive, long)))
}
