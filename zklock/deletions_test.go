package zklock_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// together has shares given back that go in one transaction, all but the first two: those are
// held up on their way until the others wait. Then it calls prepare, and lets them go. It
// returns the answers.
func (l *lab) together(n int, prepare func(*testserver.TCPProxy)) []error {
	l.Helper()
	e, proxy := l.behind()
	var claims []driver.Claim
	for i := range n {
		claims = append(claims, l.take(e, request(fmt.Sprint("n", i), driver.Exclusive, long)))
	}
	proxy.FreezeUp()
	errs := make([]error, n)
	answered := make(chan struct{})
	for i := range n {
		go func() {
			errs[i] = e.Release(l.context(), claims[i])
			answered <- struct{}{}
		}()
		l.eventually("the release is under way, or waits", func() bool {
			under, queued := e.Deletions()
			return under+queued == i+1
		})
	}
	prepare(proxy)
	proxy.Thaw()
	for range n {
		select {
		case <-answered:
		case <-time.After(patience):
			l.Fatal("a release does not return")
		}
	}
	l.eventually("no deletion is under way or waits", func() bool {
		under, queued := e.Deletions()
		return under+queued == 0
	})
	return errs
}

// unhurried is a session that misses no answer while a test holds its connection up.
var unhurried = zklock.Config{SessionTimeout: 3 * time.Minute, Timeout: 10 * time.Second}

// testReleasedTogether: each is given back, and who has nothing to give back is told, which the
// others do not suffer for.
func testReleasedTogether(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), unhurried)
	const n, gone = 70, 7
	errs := l.together(n, func(*testserver.TCPProxy) {
		path := l.path(fmt.Sprint("n", gone))
		if err := l.admin.Delete(path+"/"+l.nodes(path)[0], -1); err != nil {
			t.Fatal(err)
		}
	})
	for i, err := range errs {
		switch {
		case i == gone:
			l.wantKind(err, driver.NotHeld)
		case err != nil:
			t.Errorf("release %d: %v", i, err)
		}
		if nodes := l.count(fmt.Sprint("n", i)); nodes != 0 {
			t.Errorf("release %d leaves %d nodes", i, nodes)
		}
	}
}

// testReleasedTogetherCut: when their one answer is lost nobody is told that all went well, and
// nothing is left in the end.
func testReleasedTogetherCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), unhurried)
	const n = 20
	errs := l.together(n, func(p *testserver.TCPProxy) { p.CutReplyTo(l.path("n2") + "/_c_") })
	for i, err := range errs[2:] {
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != driver.Unknown {
			t.Errorf("release %d: %v, want an unknown outcome", i+2, err)
		}
	}
	for i := range n {
		name := fmt.Sprint("n", i)
		l.eventually(name+" is free", func() bool { return l.count(name) == 0 })
	}
}
