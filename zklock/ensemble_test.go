package zklock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// onEnsemble runs tests in turn on one ensemble of three servers.
func onEnsemble(t *testing.T, tests []ensembleTest) {
	t.Parallel()
	e := testserver.ZooKeepers(t, 3, testserver.ZooKeeperOptions{})
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			e.AllServe()
			c.f(t, e)
		})
	}
}

type ensembleTest struct {
	name string
	f    func(*testing.T, *testserver.ZooKeeperEnsemble)
}

// TestEnsemble breaks leaders, and then whatever there is.
func TestEnsemble(t *testing.T) {
	onEnsemble(t, []ensembleTest{
		{"LeaderKilled", testLeaderKilled},
		{"CountOverLeaderKilled", testCountOverLeaderKilled},
		{"LeaderFrozen", testLeaderFrozen},
		{"History", testHistory},
	})
}

// TestEnsembleWell is on servers that do well, or come back soon. Both ensembles wait most of
// the time, so they do it together.
func TestEnsembleWell(t *testing.T) {
	onEnsemble(t, []ensembleTest{
		{"Conformance", testEnsembleConformance},
		{"LaggingServer", testLaggingServer},
		{"FollowerParted", testFollowerParted},
		{"AllRestarted", testAllRestarted},
	})
}

func testEnsembleConformance(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return store(t, zklock.Config{Root: root()}, e.Addrs()...) },
		TTL: 400 * time.Millisecond, Rounds: 20, Slack: 30 * time.Second, Pause: 100 * time.Millisecond,
	})
}

func newEnsembleLab(t *testing.T, e *testserver.ZooKeeperEnsemble, cfg zklock.Config) *lab {
	t.Helper()
	return newLab(t, strings.Join(e.Addrs(), ","), cfg)
}

// testLaggingServer: what was given back is free at once for everybody, whichever server they
// ask: none answers from what it knew before. What was written is read at once, too.
func testLaggingServer(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	l := newEnsembleLab(t, e, zklock.Config{SessionTimeout: time.Minute, Timeout: 10 * time.Second})
	var all []*zklock.Engine
	for _, addr := range e.Addrs() {
		all = append(all, l.open(addr))
	}
	for i := range 300 {
		a := all[i%3]
		l.release(a, l.take(a, request("n", driver.Exclusive, long)))
	}
	for i := range 300 {
		var v driver.Value
		l.onceServed(func() (err error) {
			v, err = all[i%3].WriteValue(l.context(), driver.Write{Name: "n", Data: []byte("x"), If: driver.AnyVersion})
			return err
		})
		var got driver.Value
		l.onceServed(func() (err error) {
			got, err = all[(i+1)%3].ReadValue(l.context(), "n")
			return err
		})
		if got.Version != v.Version {
			t.Fatalf("after version %d was written another server answers %+v", v.Version, got)
		}
	}
}

// onceServed makes a call that is repeated while it finds no server: on a machine that is busy
// for long, servers lose their leader.
func (l *lab) onceServed(call func() error) {
	l.Helper()
	l.eventually("a server answers", func() bool {
		err := call()
		var d *driver.Error
		if err != nil && !(errors.As(err, &d) && d.Kind == driver.Unavailable) {
			l.Fatal(err)
		}
		return err == nil
	})
}

// testFollowerParted: the holder's server is parted from the leader, and for some ticks it
// answers whatever can be read. A renewal is not believed on its word; the session goes on at
// another server.
func testFollowerParted(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	l := newEnsembleLab(t, e, patient)
	follower := e.Follower()
	parted := testserver.Proxy(t, e.Servers[follower].Addr())
	alone := l.open(parted.Addr())
	c := l.take(alone, request("n", driver.Exclusive, long))
	e.Part(follower)
	ctx, cancel := context.WithTimeout(l.context(), 300*time.Millisecond)
	defer cancel()
	if err := alone.Renew(ctx, []driver.Claim{c})[0]; err == nil {
		t.Error("a claim was renewed by a server that has no leader")
	}
	e.Join(follower)
	e.AllServe()
	l.eventually("the claim is renewed", func() bool { return alone.Renew(l.context(), []driver.Claim{c})[0] == nil })
	l.release(alone, c)

	// With the others in its URL it does not have to wait for that.
	everywhere := l.open(append([]string{parted.Addr()}, e.Addrs()...)...)
	c = l.take(everywhere, request("n", driver.Exclusive, long))
	e.Part(follower)
	l.eventually("the claim is renewed", func() bool { return everywhere.Renew(l.context(), []driver.Claim{c})[0] == nil })
	l.refused(l.open(e.Servers[e.Leader()].Addr()), request("n", driver.Exclusive, long))
	l.release(everywhere, c)
	e.Join(follower)
}

// holderAndWaiter has one engine hold a name and another wait for it while f breaks something.
// Afterwards the holder holds it still, and the waiter gets it when it is given back.
func (l *lab) holderAndWaiter(f func()) {
	l.Helper()
	holder, waiter := l.open(), l.open()
	c := l.take(holder, request("n", driver.Exclusive, long))
	reader := l.take(holder, request("r", driver.Shared, long))
	permit := l.take(waiter, request("p", driver.Permits, long))
	req := request("n", driver.Exclusive, long)
	w := l.wait(l.context(), waiter, req)
	f()
	for _, x := range []struct {
		e *zklock.Engine
		c driver.Claim
	}{{holder, c}, {holder, reader}, {waiter, permit}} {
		l.eventually("the claim is renewed", func() bool {
			err := x.e.Renew(l.context(), []driver.Claim{x.c})[0]
			if err != nil && l.wantKind(err, driver.Unavailable) == nil {
				return false
			}
			return err == nil
		})
	}
	select {
	case <-w.done:
		l.Fatalf("the request that waits returned %+v, %v while the name is held", w.grant, w.err)
	default:
	}
	l.release(holder, c)
	if err := l.ended(w); err != nil {
		l.Fatal(err)
	}
	if w.grant.Fence <= c.Fence {
		l.Errorf("fence is %d after %d", w.grant.Fence, c.Fence)
	}
	l.release(waiter, req.Claim(w.grant))
	l.release(waiter, permit)
	l.release(holder, reader)
	for _, name := range []string{"n", "r", "p"} {
		if n := l.count(name); n != 0 {
			l.Errorf("%d nodes of %q are left", n, name)
		}
	}
}

func testLeaderKilled(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	l := newEnsembleLab(t, e, patient)
	var leader int
	l.holderAndWaiter(func() {
		leader = e.Leader()
		e.Servers[leader].Kill()
		e.Leader()
	})
	e.Servers[leader].Start()
}

func testLeaderFrozen(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	l := newEnsembleLab(t, e, patient)
	var leader int
	l.holderAndWaiter(func() {
		leader = e.Leader()
		e.Servers[leader].Pause()
		l.eventually("another server leads", func() bool {
			for i, s := range e.Servers {
				if i != leader && s.Mode() == "leader" {
					return true
				}
			}
			return false
		})
	})
	e.Servers[leader].Resume()
	l.eventually("it knows that it leads no more", func() bool { return e.Servers[leader].Mode() == "follower" })
}

// testAllRestarted: sessions and their nodes are on the servers' disks.
func testAllRestarted(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	l := newEnsembleLab(t, e, patient)
	l.holderAndWaiter(e.RestartAll)
}
