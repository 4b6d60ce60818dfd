package zklock_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// testCoordination checks the types beside locks.
func testCoordination(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	coordtest.Run(t, coordtest.Harness{
		Open: func(t *testing.T) *holdfast.Client {
			sub := *l
			sub.T = t
			return sub.client()
		},
		TTL: 2 * time.Second, Slack: patience,
	})
}

// client returns what a process has, on an engine of its own.
func (l *lab) client() *holdfast.Client {
	l.Helper()
	c, err := holdfast.New(l.open(), holdfast.Config{})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

func (l *lab) valuePath(name string) string { return l.cfg.Root + "/%values/" + name }

// write writes what has to be taken.
func (l *lab) write(e *zklock.Engine, w driver.Write) driver.Value {
	l.Helper()
	v, err := e.WriteValue(l.context(), w)
	if err != nil {
		l.Fatalf("WriteValue: %v", err)
	}
	return v
}

// put writes text, whatever is there.
func (l *lab) put(e *zklock.Engine, name, text string, ttl time.Duration) driver.Value {
	l.Helper()
	return l.write(e, driver.Write{Name: name, Data: []byte(text), TTL: ttl, If: driver.AnyVersion})
}

func (l *lab) drop(e *zklock.Engine, name string) {
	l.Helper()
	l.write(e, driver.Write{Name: name, Delete: true, If: driver.AnyVersion})
}

// testValueNodes: a value is a node and a guard, and nothing is left of one that was deleted.
// Locks are listed as if there were no values.
func testValueNodes(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	for i := range 5 {
		l.put(e, "n", strconv.Itoa(i), time.Duration(i)*time.Hour)
	}
	if guards := l.nodes(l.valuePath("n")); len(guards) != 1 {
		t.Errorf("below the value are %q, want a guard", guards)
	}
	l.take(e, request("held", driver.Exclusive, long))
	infos, err := e.List(l.context(), "", 10)
	if err != nil || len(infos) != 1 || infos[0].Name != "held" {
		t.Errorf("listed are %+v, %v, want the lock alone", infos, err)
	}
	l.drop(e, "n")
	if left := l.nodes(l.cfg.Root + "/%values"); len(left) != 0 {
		t.Errorf("nodes %q are left", left)
	}
}

// testValueAnotherNode: a writer that has read a node does not overwrite another one of the
// same name, though that was written as often.
func testValueAnotherNode(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	slow, fast := l.open(), l.open()
	l.put(fast, "n", "first", 0)
	err := slow.WriteAfter(l.context(), "n", "second", func() {
		l.drop(fast, "n")
		l.put(fast, "n", "third", 0)
	})
	if err == nil {
		t.Error("a node was overwritten that the writer had not read")
	}
	if v, err := fast.ReadValue(l.context(), "n"); err != nil || string(v.Data) != "third" {
		t.Errorf("stored is %q, %v", v.Data, err)
	}
	if err := slow.WriteAfter(l.context(), "n", "second", func() {}); err != nil {
		t.Errorf("what was read was not overwritten: %v", err)
	}
}

// testValueSweep: values that have ended go, those that live stay.
func testValueSweep(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, other := l.open(), l.open()
	const many = 40
	for i := range many {
		l.put(e, "ends"+strconv.Itoa(i), "x", time.Millisecond)
	}
	l.put(e, "lives", "x", time.Hour)
	l.put(e, "stays", "x", 0)
	time.Sleep(10 * time.Millisecond)
	if v, err := e.ReadValue(l.context(), "ends7"); v.Version != 0 || err != nil {
		t.Errorf("what has ended is %+v, %v", v, err)
	}
	if n, err := other.Sweep(l.context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d were swept that had just ended, %v", n, err)
	}
	if n, err := other.Sweep(l.context(), time.Now()); n != many || err != nil {
		t.Errorf("%d of %d were swept, %v", n, many, err)
	}
	if left := l.nodes(l.cfg.Root + "/%values"); len(left) != 2 {
		t.Errorf("nodes %q are left, want those that have not ended", left)
	}
}

// testManyAwaitOneValue: those of a process that wait for one name share a watch.
func testManyAwaitOneValue(t *testing.T, s *testserver.ZooKeeperServer) {
	const many = 1000
	l := newLab(t, s.Addr(), patient)
	e, other := l.open(), l.open()
	known := l.put(other, "n", "x", 0).Version
	var all sync.WaitGroup
	var begun, wrong atomic.Int64
	for range many {
		all.Go(func() {
			begun.Add(1)
			v, err := e.AwaitValue(l.context(), "n", known)
			if err != nil || string(v.Data) != "y" || v.Version <= known {
				wrong.Add(1)
			}
		})
	}
	l.eventually("they wait", func() bool { return begun.Load() == many && e.Watches() > 0 })
	if n := e.Watches(); n != 1 {
		t.Errorf("%d watches, want one", n)
	}
	l.put(other, "n", "y", 0)
	all.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d of %d returned something else", wrong.Load(), many)
	}
}

// testAwaitValueCut: what happens while the connection is dead is seen.
func testAwaitValueCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	other := l.open()
	known := int64(0)
	for i, change := range []func(){
		func() { l.put(other, "n", "x", 0) },
		func() { l.put(other, "n", "x", 0) },
		func() { l.drop(other, "n") },
	} {
		done := make(chan error, 1)
		var v driver.Value
		go func() {
			var err error
			v, err = e.AwaitValue(l.context(), "n", known)
			done <- err
		}()
		l.eventually("it waits", func() bool { return e.Watches() == 1 })
		proxy.FreezeDown()
		change()
		proxy.Cut()
		proxy.Heal()
		select {
		case err := <-done:
			if err != nil || v.Version == known {
				t.Fatalf("change %d: AwaitValue returned %+v, %v", i, v, err)
			}
		case <-time.After(patience):
			t.Fatal("AwaitValue does not return")
		}
		known = v.Version
	}
}

// testValueReplyCut: a write whose answer is lost may have happened, a read changes nothing.
func testValueReplyCut(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e, proxy := l.behind()
	was := l.put(e, "n", "x", 0)
	proxy.CutReplyTo("holdfast value 1 ") // what only a write sends
	_, err := e.WriteValue(l.context(), driver.Write{Name: "n", Data: []byte("y"), If: was.Version})
	if d := l.wantKind(err, driver.Unavailable); d.Outcome != driver.Unknown || proxy.Stats().Faults != 1 {
		t.Errorf("after %d faults the outcome is %v, want %v", proxy.Stats().Faults, d.Outcome, driver.Unknown)
	}
	v, err := e.ReadValue(l.context(), "n")
	if err != nil || string(v.Data) != "y" || v.Version <= was.Version {
		t.Errorf("stored is %+v, %v", v, err)
	}
	proxy.CutReplyTo("/%values/") // a read is repeated
	if v, err = e.ReadValue(l.context(), "n"); err != nil || string(v.Data) != "y" {
		t.Errorf("stored is %+v, %v", v, err)
	}
	proxy.FreezeDown()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = e.ReadValue(ctx, "n")
	if d := l.wantKind(err, driver.Unavailable); d.Outcome != driver.NotApplied || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read without an answer: %v", err)
	}
}

// testValueFenceRace: many write whatever is there with fences of their own. The highest stays,
// whoever comes last.
func testValueFenceRace(t *testing.T, s *testserver.ZooKeeperServer) {
	const users, each = 8, 10
	l := newLab(t, s.Addr(), patient)
	var all sync.WaitGroup
	for i := range users {
		e := l.open()
		all.Go(func() {
			for k := range each {
				fence := int64(1 + k*users + (i+k)%users)
				v, err := e.WriteValue(l.context(), driver.Write{Name: "n", Fence: fence, If: driver.AnyVersion})
				var d *driver.Error
				stale := errors.As(err, &d) && d.Kind == driver.Stale
				if err != nil && !stale || stale != (v.Fence > fence) {
					t.Errorf("a write with fence %d: %+v, %v", fence, v, err)
				}
			}
		})
	}
	all.Wait()
	v, err := l.open().ReadValue(l.context(), "n")
	if err != nil || v.Fence != users*each {
		t.Errorf("stored is %+v, %v, want fence %d", v, err, users*each)
	}
}

// testForeignValue: a node that something else created is neither read nor written over.
func testForeignValue(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	e := l.open()
	l.put(e, "other", "x", 0)
	if _, err := l.admin.Create(l.valuePath("n"), []byte("theirs"), 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	_, readErr := e.ReadValue(l.context(), "n")
	_, writeErr := e.WriteValue(l.context(), driver.Write{Name: "n", If: driver.AnyVersion})
	_, awaitErr := e.AwaitValue(l.context(), "n", 0)
	for _, err := range []error{readErr, writeErr, awaitErr} {
		if d := l.wantKind(err, driver.Invalid); !strings.Contains(d.Error(), l.valuePath("n")) {
			t.Errorf("error is %v", err)
		}
	}
}

// testCountOverLeaderKilled: the leader is killed while many count in one value. What is stored
// is what was confirmed, and at most what is not known on top.
func testCountOverLeaderKilled(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	const users, more = 8, 20
	l := newEnsembleLab(t, e, patient)
	ctx := l.context()
	var done, unknown atomic.Int64
	var versions sync.Map
	var killed atomic.Bool
	var all sync.WaitGroup
	for range users {
		item := l.client().Item("n")
		all.Go(func() {
			for after := 0; after < more && ctx.Err() == nil; {
				v, err := item.Get(ctx)
				if err == nil {
					n, _ := strconv.Atoi(string(v.Data))
					v, err = item.CompareAndSet(ctx, v.Version, []byte(strconv.Itoa(n+1)), 0)
				}
				var failed *holdfast.Error
				switch {
				case err == nil:
					done.Add(1)
					if _, twice := versions.LoadOrStore(v.Version, true); twice {
						t.Errorf("version %d was given twice", v.Version)
					}
					if killed.Load() {
						after++
					}
				case errors.As(err, &failed) && failed.Outcome != holdfast.NotApplied:
					unknown.Add(1)
				}
			}
		})
	}
	l.eventually("they count", func() bool { return done.Load() > 10 })
	leader := e.Leader()
	e.Servers[leader].Kill()
	killed.Store(true)
	all.Wait()
	e.Servers[leader].Start()
	v, err := l.client().Item("n").Get(l.context())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseInt(string(v.Data), 10, 64)
	t.Logf("%d stored, %d confirmed, %d unknown", n, done.Load(), unknown.Load())
	if ctx.Err() != nil || n < done.Load() || n > done.Load()+unknown.Load() {
		t.Errorf("%d are stored: %d were confirmed, and %d are unknown (%v)", n, done.Load(), unknown.Load(), ctx.Err())
	}
}
