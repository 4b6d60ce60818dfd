package etcdlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The types beside locks, on one member.
func TestCoordination(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	coordtest.Run(t, coordtest.Harness{
		Open: func(t *testing.T) *holdfast.Client {
			sub := &lab{T: t, cluster: l.cluster}
			e, err := etcdlock.New(sub.raw(l.cluster.Addrs()...), etcdlock.Config{Timeout: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return sub.client(e, 0)
		},
		TTL: 2 * time.Second, Slack: labPatience,
	})
}

// What needs one member, on one of them, in turn.
func TestValues(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	for _, c := range []struct {
		name string
		f    func(*lab)
	}{
		{"Leases", (*lab).testValueLeases},
		{"WithoutLease", (*lab).testValueWithoutLease},
		{"ManyAwaitOne", (*lab).testManyAwaitOneValue},
		{"AwaitCut", (*lab).testAwaitValueCut},
		{"AnswerLost", (*lab).testValueAnswerLost},
		{"FenceRace", (*lab).testValueFenceRace},
		{"Foreign", (*lab).testForeignValue},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := &lab{T: t, cluster: l.cluster}
			c.f(sub)
			if _, err := sub.raw(l.cluster.Addrs()...).Delete(sub.patience(), "", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// write writes what has to be taken.
func (l *lab) write(e driver.Values, w driver.Write) driver.Value {
	l.Helper()
	v, err := e.WriteValue(l.patience(), w)
	if err != nil {
		l.Fatalf("WriteValue: %v", err)
	}
	return v
}

// put writes text, whatever is there.
func (l *lab) put(e driver.Values, name, text string, ttl time.Duration) driver.Value {
	l.Helper()
	return l.write(e, driver.Write{Name: name, Data: []byte(text), TTL: ttl, If: driver.AnyVersion})
}

func (l *lab) drop(e driver.Values, name string) {
	l.Helper()
	l.write(e, driver.Write{Name: name, Delete: true, If: driver.AnyVersion})
}

// Values with a TTL cost one lease each, however often they are written, and none when they
// are deleted, live for ever, or were not written after all.
func (l *lab) testValueLeases() {
	raw := l.raw(l.cluster.Addrs()...)
	e := l.engine(l.cluster.Addrs()...)
	leaves := func(want int, when string) {
		l.Helper()
		if n := l.leases(raw); n != want {
			l.Errorf("%d leases %s, want %d", n, when, want)
		}
	}
	id := func() int64 {
		l.Helper()
		resp, err := raw.Get(l.patience(), "holdfast/%value/n")
		if err != nil || len(resp.Kvs) != 1 {
			l.Fatalf("%d keys, %v", len(resp.Kvs), err)
		}
		return resp.Kvs[0].Lease
	}
	l.put(e, "n", "x", 20*time.Second)
	first := id()
	for i := range 10 {
		l.put(e, "n", fmt.Sprint(i), 20*time.Second-time.Duration(i)*time.Second)
	}
	if again := id(); again != first {
		l.Errorf("a value that is written again hangs on lease %x, and hung on %x", again, first)
	}
	leaves(1, "after writes with a TTL")
	l.put(e, "n", "x", 5*time.Minute)
	leaves(1, "after a write with a longer TTL")
	l.put(e, "n", "x", 20*time.Second)
	leaves(1, "after a write with a much shorter TTL")
	if _, err := e.WriteValue(l.patience(), driver.Write{Name: "n", If: 0, TTL: time.Hour}); err == nil {
		l.Error("version 0 of what is stored was taken")
	}
	leaves(1, "after a write that was refused")
	l.put(e, "n", "x", 0)
	leaves(0, "after a write without a TTL")
	l.put(e, "n", "x", time.Hour)
	l.write(e, driver.Write{Name: "n", Delete: true, If: driver.AnyVersion, TTL: 2 * time.Hour})
	leaves(0, "after a deletion")
	if keys := l.keys(raw); len(keys) > 0 {
		l.Errorf("keys %q are left", keys)
	}
	// What nobody touches any more goes by itself.
	l.put(e, "n", "x", time.Millisecond)
	l.eventually("etcd takes the key away", func() bool { return len(l.keys(raw)) == 0 })
	leaves(0, "after expiry")
}

// The lease of a value is revoked by others: the value is gone, and the next write goes on.
func (l *lab) testValueWithoutLease() {
	raw := l.raw(l.cluster.Addrs()...)
	e := l.engine(l.cluster.Addrs()...)
	for range 3 {
		v := l.put(e, "n", "x", time.Hour)
		leases, err := raw.Leases(l.patience())
		if err != nil || len(leases.Leases) != 1 {
			l.Fatalf("%+v, %v, want one lease", leases, err)
		}
		if _, err := raw.Revoke(l.patience(), leases.Leases[0].ID); err != nil {
			l.Fatal(err)
		}
		if gone, err := e.ReadValue(l.patience(), "n"); gone.Version != 0 || err != nil {
			l.Errorf("stored is %+v, %v", gone, err)
		}
		if next := l.write(e, driver.Write{Name: "n", If: 0, TTL: time.Hour}); next.Version <= v.Version {
			l.Errorf("version %d after %d", next.Version, v.Version)
		}
		l.drop(e, "n")
	}
}

// Those of a process that wait for one name share a watch, each returns, and locks are listed
// as if there were no values.
func (l *lab) testManyAwaitOneValue() {
	const many = 1000
	e, other := l.engine(l.cluster.Addrs()...), l.engine(l.cluster.Addrs()...)
	known := l.put(other, "n", "x", 0).Version
	var all sync.WaitGroup
	var wrong atomic.Int64
	for range many {
		all.Go(func() {
			v, err := e.AwaitValue(l.patience(), "n", known)
			if err != nil || string(v.Data) != "y" || v.Version <= known {
				wrong.Add(1)
			}
		})
	}
	l.eventually("all wait", func() bool { return e.Waiting("n") == many })
	l.eventually("the server tells of changes", func() bool { return l.watchers() == 1 })
	l.put(other, "n", "y", 0)
	all.Wait()
	if wrong.Load() > 0 || l.watchers() != 1 {
		l.Errorf("%d of %d returned something else, with %d watches", wrong.Load(), many, l.watchers())
	}
	lease := l.lock(l.client(other, 0), "n")
	infos, err := e.List(l.patience(), "", 10)
	if err != nil || len(infos) != 1 || infos[0].Name != "n" {
		l.Errorf("listed are %+v, %v, want the lock alone", infos, err)
	}
	l.unlock(lease)
}

// watchers counts the watches of all clients of the only member.
func (l *lab) watchers() int {
	l.Helper()
	resp, err := http.Get("http://" + l.cluster.Members()[0].Addr() + "/metrics")
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\netcd_debugging_mvcc_watcher_total ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		l.Fatalf("the number of watchers is %q", line)
	}
	return n
}

// What a watch is about to tell is compacted away while its connection is down, and then the
// connection says nothing at all: who waits finds out.
func (l *lab) testAwaitValueCut() {
	m := l.cluster.Members()[0]
	raw, other, e := l.raw(m.Addr()), l.engine(m.Addr()), l.engine(m.Proxy().Addr())
	awaits := func(known int64, text string, change func()) int64 {
		l.Helper()
		done := make(chan error, 1)
		var v driver.Value
		go func() {
			var err error
			v, err = e.AwaitValue(l.patience(), "n", known)
			done <- err
		}()
		l.eventually("it waits", func() bool { return e.Watched("n") })
		change()
		var err error
		select {
		case err = <-done:
		case <-time.After(labPatience):
			l.Fatal("AwaitValue does not return")
		}
		if err != nil || string(v.Data) != text {
			l.Fatalf("AwaitValue: %+v, %v, want %q", v, err, text)
		}
		return v.Version
	}
	first := l.put(other, "n", "first", 0).Version
	second := awaits(first, "second", func() {
		m.Proxy().Refuse()
		m.Proxy().Cut()
		rev := l.put(other, "n", "second", 0).Version
		for range 20 {
			resp, err := raw.Put(l.patience(), "elsewhere", "")
			if err != nil {
				l.Fatal(err)
			}
			rev = resp.Header.Revision
		}
		if _, err := raw.Compact(l.patience(), rev); err != nil {
			l.Fatal(err)
		}
		m.Proxy().Allow()
	})
	awaits(second, "third", func() {
		m.Proxy().FreezeDown()
		l.put(other, "n", "third", 0)
		m.Proxy().Cut()
		m.Proxy().Heal()
	})
}

// The answer to a write is lost: its outcome is not known, and it happened once or not at all.
func (l *lab) testValueAnswerLost() {
	m := l.cluster.Members()[0]
	e, other := l.engine(m.Proxy().Addr()), l.engine(m.Addr())
	was, faults := l.put(e, "n", "x", 0), m.Proxy().Stats().Faults
	m.Proxy().CutReplyTo("holdfast value 1 ") // what only a write sends
	_, err := e.WriteValue(l.patience(), driver.Write{Name: "n", Data: []byte("y"), If: was.Version, TTL: time.Hour})
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != driver.Unknown || m.Proxy().Stats().Faults != faults+1 {
		l.Fatalf("after %d faults: %v, want an unknown outcome", m.Proxy().Stats().Faults, err)
	}
	v, err := other.ReadValue(l.patience(), "n")
	if err != nil || string(v.Data) != "y" || v.Version <= was.Version {
		l.Errorf("stored is %+v, %v", v, err)
	}
	if _, err := e.WriteValue(l.patience(), driver.Write{Name: "n", If: was.Version}); err == nil {
		l.Error("it was written over")
	}
	for range 20 { // it keeps its lease
		time.Sleep(10 * time.Millisecond)
		if v, err = other.ReadValue(l.patience(), "n"); err != nil || v.Version == 0 {
			l.Fatalf("stored is %+v, %v", v, err)
		}
	}
	m.Proxy().FreezeDown()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = e.ReadValue(ctx, "n")
	if !errors.As(err, &d) || d.Outcome != driver.NotApplied || !errors.Is(err, context.DeadlineExceeded) {
		l.Errorf("a read without an answer: %v", err)
	}
	m.Proxy().Heal()
}

// Many write whatever is there with fences of their own: the highest stays, whoever comes last.
func (l *lab) testValueFenceRace() {
	const users, each = 8, 10
	var all sync.WaitGroup
	for i := range users {
		e := l.engine(l.cluster.Addrs()...)
		all.Go(func() {
			for k := range each {
				fence := int64(1 + k*users + (i+k)%users)
				v, err := e.WriteValue(l.patience(), driver.Write{Name: "n", Fence: fence, If: driver.AnyVersion})
				var d *driver.Error
				stale := errors.As(err, &d) && d.Kind == driver.Stale
				if err != nil && !stale || stale != (v.Fence > fence) {
					l.Errorf("a write with fence %d: %+v, %v", fence, v, err)
				}
			}
		})
	}
	all.Wait()
	v, err := l.engine(l.cluster.Addrs()...).ReadValue(l.patience(), "n")
	if err != nil || v.Fence != users*each {
		l.Errorf("stored is %+v, %v, want fence %d", v, err, users*each)
	}
}

// A key that something else wrote is neither read nor written over.
func (l *lab) testForeignValue() {
	raw := l.raw(l.cluster.Addrs()...)
	e := l.engine(l.cluster.Addrs()...)
	if _, err := raw.Put(l.patience(), "holdfast/%value/n", "theirs"); err != nil {
		l.Fatal(err)
	}
	_, readErr := e.ReadValue(l.patience(), "n")
	_, writeErr := e.WriteValue(l.patience(), driver.Write{Name: "n", If: 0})
	_, awaitErr := e.AwaitValue(l.patience(), "n", 0)
	for _, err := range []error{readErr, writeErr, awaitErr} {
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Invalid || !strings.Contains(err.Error(), "holdfast/%value/n") {
			l.Errorf("error is %v", err)
		}
	}
	resp, err := raw.Get(l.patience(), "holdfast/%value/n")
	if err != nil || !bytes.Equal(first(resp), []byte("theirs")) {
		l.Errorf("what was there is %q now, %v", first(resp), err)
	}
}

func first(resp *clientv3.GetResponse) []byte {
	if len(resp.Kvs) == 0 {
		return nil
	}
	return resp.Kvs[0].Value
}

// The leader is killed while many count in one value: what is stored is what was confirmed, and
// at most what is not known on top.
func TestFaultCountOverLeaderKilled(t *testing.T) {
	const users, more = 8, 20
	l := newLab(t, threeMembers)
	l.timeout = patientTimeout
	ctx, cancel := context.WithTimeout(context.Background(), 2*labPatience)
	defer cancel()
	var done, unknown atomic.Int64
	var versions sync.Map
	var killed atomic.Bool
	var all sync.WaitGroup
	for range users {
		item := l.process(0).Item("n")
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
	l.cluster.Leader().Kill()
	killed.Store(true)
	all.Wait()
	v, err := l.process(0).Item("n").Get(l.patience())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseInt(string(v.Data), 10, 64)
	t.Logf("%d stored, %d confirmed, %d unknown", n, done.Load(), unknown.Load())
	if ctx.Err() != nil || n < done.Load() || n > done.Load()+unknown.Load() {
		t.Errorf("%d are stored: %d were confirmed, and %d are unknown (%v)", n, done.Load(), unknown.Load(), ctx.Err())
	}
}
