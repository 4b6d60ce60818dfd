package zklock_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// patience bounds every wait: long, because machines are busy.
const patience = 60 * time.Second

var roots atomic.Int64

// root returns a path that no other test uses.
func root() string { return fmt.Sprintf("/test%d", roots.Add(1)) }

// onOneServer is what needs a server of its own, and leaves it well.
var onOneServer = map[string]func(*testing.T, *testserver.ZooKeeperServer){
	"Conformance":            testConformance,
	"ConformanceReadWrite":   testConformanceReadWrite,
	"CreateReplyCut":         testCreateReplyCut,
	"CreateReplyDropped":     testCreateReplyDropped,
	"CreateReplyCutPermits":  testCreateReplyCutPermits,
	"CreateRequestCut":       testCreateRequestCut,
	"CancelledInDoubt":       testCancelledInDoubt,
	"DeleteReplyCut":         testDeleteReplyCut,
	"ReleasedTogether":       testReleasedTogether,
	"ReleasedTogetherCut":    testReleasedTogetherCut,
	"GrantProofCut":          testGrantProofCut,
	"Suspended":              testSuspended,
	"Expired":                testExpired,
	"ExpiredWaiter":          testExpiredWaiter,
	"ExpiredThenRenewed":     testExpiredThenRenewed,
	"WatchLost":              testWatchLost,
	"WithdrawnWaits":         testWithdrawnWaits,
	"VigilCut":               testVigilCut,
	"LookReplyCut":           testLookReplyCut,
	"MayNotLook":             testMayNotLook,
	"NotTheTurn":             testNotTheTurn,
	"WaitingNodeReplaced":    testWaitingNodeReplaced,
	"CancelledAtTheGrant":    testCancelledAtTheGrant,
	"LongQueue":              testLongQueue,
	"DigestAfterACut":        testDigestAfterACut,
	"ToldInTime":             testToldInTime,
	"NoPermission":           testNoPermission,
	"Digest":                 testDigest,
	"ForeignNodes":           testForeignNodes,
	"LibraryLock":            testLibraryLock,
	"NodeDeletedByHand":      testNodeDeletedByHand,
	"WaitingNodeDeleted":     testWaitingNodeDeleted,
	"Layout":                 testLayout,
	"Mixed":                  testMixed,
	"SessionTimeoutBounds":   testSessionTimeoutBounds,
	"ManyClaims":             testManyClaims,
	"WatchesDoNotPileUp":     testWatchesDoNotPileUp,
	"ServerSilent":           testServerSilent,
	"Diagnose":               testDiagnose,
	"CloseWhileDisconnected": testCloseWhileDisconnected,
	"Coordination":           testCoordination,
	"ValueNodes":             testValueNodes,
	"ValueAnotherNode":       testValueAnotherNode,
	"ValueSweep":             testValueSweep,
	"ManyAwaitOneValue":      testManyAwaitOneValue,
	"AwaitValueCut":          testAwaitValueCut,
	"ValueReplyCut":          testValueReplyCut,
	"ForeignValue":           testForeignValue,
	"ValueFenceRace":         testValueFenceRace,
}

// TestOneServer runs it on one server that all share.
func TestOneServer(t *testing.T) {
	t.Parallel()
	s := testserver.ZooKeeper(t, testserver.ZooKeeperOptions{
		Properties: []string{"znode.container.checkIntervalMs=1000"}, // a minute by default
	})
	for name, f := range onOneServer {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}

func testConformance(t *testing.T, s *testserver.ZooKeeperServer) {
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return store(t, zklock.Config{Root: root()}, s.Addr()) },
		TTL: 300 * time.Millisecond, Rounds: 100, Slack: 30 * time.Second, Pause: 100 * time.Millisecond,
	})
}

func testConformanceReadWrite(t *testing.T, s *testserver.ZooKeeperServer) {
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store {
			return store(t, zklock.Config{Root: root(), Recipe: zklock.ReadWrite}, s.Addr())
		},
		TTL: 300 * time.Millisecond, Rounds: 20, Slack: 30 * time.Second, Pause: 100 * time.Millisecond,
	})
}

// store opens each engine with a session of its own, as processes do. Sessions are long: it
// is the engine that has to end shares which are not renewed.
func store(t drivertest.T, cfg zklock.Config, addrs ...string) drivertest.Store {
	cfg.SessionTimeout, cfg.Timeout = 3*time.Minute, 10*time.Second
	return drivertest.Store{Open: func() driver.Engine {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e, err := zklock.Open(ctx, "zk://"+strings.Join(addrs, ","), cfg)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return e
	}}
}

// lab is a root on a server, and what tests do to it.
type lab struct {
	*testing.T
	server string // its address
	cfg    zklock.Config
	admin  *zk.Conn // looks from outside
}

func newLab(t *testing.T, addr string, cfg zklock.Config) *lab {
	t.Helper()
	cfg.Root = root()
	conn, _, err := zk.Connect(strings.Split(addr, ","), 2*time.Second,
		zk.WithLogInfo(false), zk.WithLogger(quiet{}), zk.WithDialer(dialHasty))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return &lab{T: t, server: addr, cfg: cfg, admin: conn}
}

// hasty is a connection that gives up a server which is frozen. The library waits for its
// greeting ten times as long as for anything else.
type hasty struct{ net.Conn }

func dialHasty(network, address string, limit time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout(network, address, limit)
	if err != nil {
		return nil, err
	}
	return hasty{c}, nil
}

func (c hasty) SetReadDeadline(t time.Time) error {
	if most := time.Now().Add(2 * time.Second); t.After(most) {
		t = most
	}
	return c.Conn.SetReadDeadline(t)
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func (l *lab) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	l.Cleanup(cancel)
	return ctx
}

// open returns an engine that reaches the server at those addresses, or directly.
func (l *lab) open(addrs ...string) *zklock.Engine {
	l.Helper()
	if len(addrs) == 0 {
		addrs = []string{l.server}
	}
	e, err := zklock.Open(l.context(), "zk://"+strings.Join(addrs, ","), l.cfg)
	if err != nil {
		l.Fatalf("Open: %v", err)
	}
	l.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.Errorf("Close: %v", err)
		}
	})
	return e
}

// behind returns an engine behind a proxy.
func (l *lab) behind() (*zklock.Engine, *testserver.TCPProxy) {
	l.Helper()
	p := testserver.Proxy(l.T, l.server)
	return l.open(p.Addr()), p
}

func request(name string, mode driver.Mode, ttl time.Duration) driver.Request {
	req := driver.Request{Name: name, Mode: mode, Owner: "test", TTL: ttl, Span: 1}
	rand.Read(req.Token[:])
	if mode == driver.Permits {
		req.Weight, req.Limit = 1, 2
	}
	return req
}

// take gets a share that has to be free.
func (l *lab) take(e *zklock.Engine, req driver.Request) driver.Claim {
	l.Helper()
	g, err := e.Acquire(l.context(), req)
	if err != nil {
		l.Fatalf("Acquire: %v", err)
	}
	return req.Claim(g)
}

func (l *lab) release(e *zklock.Engine, c driver.Claim) {
	l.Helper()
	if err := e.Release(l.context(), c); err != nil {
		l.Fatalf("Release: %v", err)
	}
}

// refused asks for what has to be taken.
func (l *lab) refused(e *zklock.Engine, req driver.Request) {
	l.Helper()
	_, err := e.Acquire(l.context(), req)
	l.wantKind(err, driver.Held)
}

func (l *lab) wantKind(err error, kind driver.Kind) *driver.Error {
	l.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != kind {
		l.Fatalf("error is %v, want kind %v", err, kind)
	}
	return d
}

// waiting is a request in the background.
type waiting struct {
	grant driver.Grant
	err   error
	done  chan struct{}
}

// wait starts a request that waits, and returns when it stands in the queue.
func (l *lab) wait(ctx context.Context, e *zklock.Engine, req driver.Request) *waiting {
	l.Helper()
	before := l.count(req.Name)
	w := l.start(ctx, e, req)
	l.eventually("the request waits", func() bool {
		select {
		case <-w.done: // on a machine so busy that the holder's session has run out
			return true
		default:
			return l.count(req.Name) > before
		}
	})
	return w
}

func (l *lab) start(ctx context.Context, e *zklock.Engine, req driver.Request) *waiting {
	req.Wait = true
	w := &waiting{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.grant, w.err = e.Acquire(ctx, req)
	}()
	return w
}

// ended returns once the request has.
func (l *lab) ended(w *waiting) error {
	l.Helper()
	select {
	case <-w.done:
		return w.err
	case <-time.After(patience):
		l.Fatal("the request does not end")
		return nil
	}
}

func (l *lab) path(name string) string { return l.cfg.Root + "/" + name }

// nodes returns the children of a path, those of ours that stand for requests.
func (l *lab) nodes(path string) []string {
	l.Helper()
	var children []string
	l.eventually("a server answers", func() (ok bool) {
		var err error
		children, _, err = l.admin.Children(path)
		return err == nil || errors.Is(err, zk.ErrNoNode)
	})
	var nodes []string
	for _, c := range children {
		if c != "leases" && c != "locks" {
			nodes = append(nodes, c)
		}
	}
	return nodes
}

// count returns how many nodes a name has.
func (l *lab) count(name string) int {
	l.Helper()
	return len(l.nodes(l.path(name))) + len(l.nodes(l.path(name)+"/leases")) + len(l.nodes(l.path(name)+"/locks"))
}

func (l *lab) eventually(what string, ok func() bool) {
	l.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("never: %s", what)
		}
	}
}
