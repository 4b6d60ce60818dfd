package zklock_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// testLayout: what is on the servers is what Curator writes.
func testLayout(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	const uuid = `_c_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}-`
	look := func(path, pattern string, want int) {
		t.Helper()
		nodes := l.nodes(path)
		for _, n := range nodes {
			if !regexp.MustCompile("^" + pattern + `[0-9]{10}$`).MatchString(n) {
				t.Errorf("node is %q, want %s", n, pattern)
			}
			_, stat, err := l.admin.Get(path + "/" + n)
			if err != nil || stat.EphemeralOwner == 0 {
				t.Errorf("node %q: %+v, %v, want an ephemeral one", n, stat, err)
			}
		}
		if len(nodes) != want {
			t.Errorf("%d nodes in %s, want %d", len(nodes), path, want)
		}
	}
	first := l.take(e, request("m", driver.Exclusive, long))
	look(l.path("m"), uuid+"lock-", 1)
	_, stat, err := l.admin.Get(l.path("m") + "/" + l.nodes(l.path("m"))[0])
	if err != nil {
		t.Fatal(err)
	}
	if first.Fence != stat.Czxid<<6 {
		t.Errorf("fence is %d, want the transaction of the creation, %d, times 64", first.Fence, stat.Czxid)
	}
	l.take(e, request("r", driver.Shared, long))
	look(l.path("r"), uuid+"__READ__", 1)
	req := request("s", driver.Permits, long)
	req.Weight = 2
	l.take(e, req)
	look(l.path("s")+"/leases", uuid+"lease-", 2)
	l.cfg.Recipe = zklock.ReadWrite
	l.take(l.open(), request("w", driver.Exclusive, long))
	look(l.path("w"), uuid+"__WRIT__", 1)
	l.take(e, request("a/b", driver.Exclusive, long))
	look(l.cfg.Root+"/a%2Fb", uuid+"lock-", 1)

	// The servers take back the nodes above when they are empty.
	l.release(e, first)
	l.eventually("the path goes", func() bool {
		exists, _, err := l.admin.Exists(l.path("m"))
		return err == nil && !exists
	})
	l.take(e, request("m", driver.Exclusive, long))
}

// foreign creates a node as another library would.
func (l *lab) foreign(path string) (delete func()) {
	l.Helper()
	var node string
	l.eventually("the node is created", func() bool {
		var err error
		node, err = l.admin.Create(path, []byte("10.0.0.7"), zk.FlagEphemeralSequential, zk.WorldACL(zk.PermAll))
		if errors.Is(err, zk.ErrNoNode) { // the servers have taken back the empty folder
			_, _ = l.admin.Create(path[:strings.LastIndexByte(path, '/')], nil, zk.FlagPersistent, zk.WorldACL(zk.PermAll))
			return false
		}
		if err != nil {
			l.Fatal(err)
		}
		return true
	})
	return func() {
		if err := l.admin.Delete(node, -1); err != nil {
			l.Error(err)
		}
	}
}

// testForeignNodes: other libraries' nodes count, in all the forms that they have.
func testForeignNodes(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	for i, c := range []struct {
		node   string
		shared bool
	}{
		{"_c_0f8fad5b-d9cb-469f-a165-70867728950e-lock-", false}, // Curator
		{"_c_0f8fad5bd9cb469fa16570867728950e-lock-", false},     // go-zookeeper
		{"lock-", false}, // DistributedLock for .NET
		{"0f8fad5bd9cb469fa16570867728950e__lock__", false}, // kazoo
		{"0f8fad5bd9cb469fa16570867728950e__rlock__", true},
		{"_c_0f8fad5b-d9cb-469f-a165-70867728950e-__WRIT__", false},
		{"_c_0f8fad5b-d9cb-469f-a165-70867728950e-__READ__", true},
		{"read-", true},
		{"write-", false},
	} {
		name := string(rune('a' + i))
		l.release(e, l.take(e, request(name, driver.Exclusive, long)))
		free := l.foreign(l.path(name) + "/" + c.node)
		_, err := e.Acquire(l.context(), request(name, driver.Exclusive, long))
		if d := l.wantKind(err, driver.Held); d.Holder == nil || d.Holder.Owner != "10.0.0.7" {
			t.Errorf("%s: the holder is %+v", c.node, d.Holder)
		}
		if c.shared {
			l.release(e, l.take(e, request(name, driver.Shared, long)))
		} else {
			l.refused(e, request(name, driver.Shared, long))
		}
		w := l.wait(l.context(), e, request(name, driver.Exclusive, long))
		free()
		if err := l.ended(w); err != nil {
			t.Errorf("%s: %v", c.node, err)
		}
	}
}

// testNodeDeletedByHand: the next renewal tells, and so does the release.
func testNodeDeletedByHand(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	kept := l.take(e, request("kept", driver.Exclusive, long))
	for _, mode := range []driver.Mode{driver.Exclusive, driver.Shared, driver.Permits} {
		path := l.path("n")
		if mode == driver.Permits {
			path += "/leases"
		}
		c, d := l.take(e, request("n", mode, long)), driver.Claim{}
		if err := l.admin.Delete(path+"/"+l.nodes(path)[0], -1); err != nil {
			t.Fatal(err)
		}
		d = l.take(e, request("other", driver.Exclusive, long))
		errs := e.Renew(l.context(), []driver.Claim{kept, c, d})
		l.wantKind(errs[1], driver.Lost)
		if errs[0] != nil || errs[2] != nil {
			t.Fatalf("the others: %v, %v", errs[0], errs[2])
		}
		l.wantKind(e.Release(l.context(), c), driver.NotHeld)
		l.release(e, d)
	}
}

// testWaitingNodeDeleted: who waits and lost its place takes another, and is never granted
// what it has no node for.
func testWaitingNodeDeleted(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	holder := l.take(e, request("n", driver.Exclusive, long))
	held := l.nodes(l.path("n"))[0]
	w := l.wait(l.context(), e, request("n", driver.Exclusive, long))
	for _, n := range l.nodes(l.path("n")) {
		if n != held {
			if err := l.admin.Delete(l.path("n")+"/"+n, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.release(e, holder)
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
	if n := l.count("n"); n != 1 {
		t.Fatalf("%d nodes, want that of the holder", n)
	}
}

// testMixed: locks and permits of one name exclude each other, and requests of the two kinds
// that wait do not wait for each other.
func testMixed(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	a, b := l.open(), l.open()
	var all []*waiting
	inside := make(chan driver.Mode, 1)
	for i := range 24 {
		e, mode := []*zklock.Engine{a, b}[i%2], []driver.Mode{driver.Exclusive, driver.Permits, driver.Shared}[i%3]
		w := &waiting{done: make(chan struct{})}
		all = append(all, w)
		go func() {
			defer close(w.done)
			for range 5 {
				req := request("n", mode, long)
				req.Wait = true
				if mode == driver.Permits {
					req.Weight, req.Limit = 2, 2
				}
				g, err := e.Acquire(l.context(), req)
				if err != nil {
					w.err = err
					return
				}
				if mode != driver.Shared {
					select {
					case inside <- mode:
					default:
						w.err = errors.New("two holders")
					}
					time.Sleep(time.Millisecond)
					<-inside
				} else if len(inside) > 0 {
					w.err = errors.New("a reader beside another holder")
				}
				if err := e.Release(l.context(), req.Claim(g)); err != nil {
					w.err = err
				}
			}
		}()
	}
	for _, w := range all {
		if err := l.ended(w); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.count("n"); n != 0 {
		t.Fatalf("%d nodes are left", n)
	}
}

// testWithdrawnWaits: requests that are given up in the middle of a queue leave it whole.
func testWithdrawnWaits(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	a, b := l.open(), l.open()
	for _, mode := range []driver.Mode{driver.Exclusive, driver.Permits} {
		name := mode.String()
		ask := func() driver.Request {
			req := request(name, mode, long)
			if mode == driver.Permits {
				req.Weight = req.Limit
			}
			return req
		}
		holder := l.take(a, ask())
		var line []*waiting
		var gone []context.CancelFunc
		for i := range 6 {
			ctx, cancel := context.WithCancel(l.context())
			line, gone = append(line, l.start(ctx, []*zklock.Engine{a, b}[i%2], ask())), append(gone, cancel)
		}
		last := ask()
		l.eventually("all wait", func() bool {
			info, err := b.Inspect(l.context(), name)
			return err == nil && info.Waiters == len(line)
		})
		w := l.start(l.context(), b, last)
		for i, cancel := range gone {
			cancel()
			if err := l.ended(line[i]); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		l.release(a, holder)
		if err := l.ended(w); err != nil {
			t.Fatal(err)
		}
		l.release(b, last.Claim(w.grant))
		if n := l.count(name); n != 0 {
			t.Fatalf("%d nodes are left", n)
		}
	}
}

// testNoPermission: the error says what is missing, and nothing was done.
func testNoPermission(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	l.cfg.User, l.cfg.Password = "owner", "s3cret"
	c := l.take(l.open(), request("n", driver.Exclusive, long))
	l.cfg.User, l.cfg.Password = "stranger", "an0ther"
	stranger := l.open()
	_, err := stranger.Acquire(l.context(), request("n", driver.Exclusive, long))
	d := l.wantKind(err, driver.Unavailable)
	if d.Outcome != driver.NotApplied || !errors.Is(err, zk.ErrNoAuth) || !strings.Contains(err.Error(), l.cfg.Root) {
		t.Errorf("error is %v with outcome %v", err, d.Outcome)
	}
	if strings.Contains(err.Error(), "an0ther") {
		t.Errorf("error %q tells the password", err)
	}
	_, err = stranger.Break(l.context(), driver.BreakRequest{Name: "n"})
	l.wantKind(err, driver.Unavailable)
	_ = c
}

// testDigest: the user is told to the servers on every connection, before anything else.
func testDigest(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	l.cfg.User, l.cfg.Password = "owner", "s3cret"
	e, proxy := l.behind()
	c := l.take(e, request("n", driver.Exclusive, long))
	if err := l.admin.AddAuth("digest", []byte("owner:s3cret")); err != nil {
		t.Fatal(err)
	}
	acl, _, err := l.admin.GetACL(l.path("n"))
	if err != nil || len(acl) != 1 || acl[0].Scheme != "digest" || !strings.HasPrefix(acl[0].ID, "owner:") {
		t.Fatalf("ACL is %+v, %v", acl, err)
	}
	if strings.Contains(e.Capabilities().Instance, "s3cret") {
		t.Error("Instance tells the password")
	}
	proxy.Cut()
	l.eventually("the claim is renewed", func() bool { return e.Renew(l.context(), []driver.Claim{c})[0] == nil })
	if err := e.Release(l.context(), c); err != nil {
		t.Fatal(err)
	}
}

// testSessionTimeoutBounds: what the servers agree to is what the capabilities say.
func testSessionTimeoutBounds(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), zklock.Config{SessionTimeout: time.Hour, Timeout: 10 * time.Second})
	caps := l.open().Capabilities()
	if caps.MaxTTL != 100*time.Second || caps.DefaultTTL != caps.MaxTTL || caps.Resolution != 300*time.Second {
		t.Errorf("TTLs up to %v, default %v, resolution %v, want those of a session of 300 s", caps.MaxTTL, caps.DefaultTTL, caps.Resolution)
	}
	e := l.open()
	_, err := e.Acquire(l.context(), request("n", driver.Exclusive, caps.MaxTTL+1))
	l.wantKind(err, driver.Invalid)
}

// testManyClaims: ten thousand claims are renewed in a few dozen requests.
func testManyClaims(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), zklock.Config{SessionTimeout: 5 * time.Minute, Timeout: 20 * time.Second})
	e := l.open()
	const readers = 3000
	claims := make([]driver.Claim, readers)
	failures := make(chan error, readers)
	for i := range claims {
		go func() {
			req := request("n", driver.Shared, 90*time.Second)
			// Who looks who is there sees all the others; a name for each ten is enough of that.
			req.Name += string(rune('a'+i%26)) + string(rune('a'+i/26%26))
			g, err := e.Acquire(l.context(), req)
			claims[i] = req.Claim(g)
			failures <- err
		}()
	}
	for range claims {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
	if errs := e.Renew(l.context(), claims); slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		t.Fatalf("renewals: %v", errors.Join(errs...))
	}
}

// testWatchesDoNotPileUp: however often somebody tries for a while, a held lock has one watch
// of this client.
func testWatchesDoNotPileUp(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, other := l.open(), l.open()
	l.take(other, request("n", driver.Exclusive, long))
	for range 20 {
		ctx, cancel := context.WithCancel(l.context())
		w := l.wait(ctx, e, request("n", driver.Exclusive, long))
		cancel()
		if err := l.ended(w); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if n := e.Watches(); n > 1 {
		t.Errorf("%d watches, want one", n)
	}
}
