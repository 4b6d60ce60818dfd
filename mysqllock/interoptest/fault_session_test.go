package interoptest

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// TestFault has the faults that a shared server outlives.
func TestFault(t *testing.T) {
	t.Parallel()
	server := testserver.MariaDB(t, testserver.MariaDBOptions{})
	for name, fault := range map[string]func(*lab){
		"KillOfTheHolder": faultKillOfTheHolder, "KillWhileIdle": faultKillWhileIdle, "KillOfTheWaiter": faultKillOfTheWaiter,
		"KillOfWhatWasWaitedFor": faultKillOfWhatWasWaitedFor, "NetworkCut": faultNetworkCut,
		"ReplyLost": faultReplyLost, "ForeignClients": foreignClients, "HolderFrozen": faultHolderFrozen,
		"TableLost": faultTableLost, "FencesReserved": faultFencesReserved, "TicketAfterTheWait": faultTicketAfterTheWait,
		"FirstPermit": faultFirstPermit, "Told": faultTold, "CounterBlocked": faultCounterBlocked, "Crowd": crowd, "Leak": leak, "Hands": handBack,
		"Diagnose":   diagnose,
		"LeadLeaves": leadLeaves, "LeadLeavesOthersAlone": leadLeavesOthersAlone, "LeadCloses": leadCloses,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault(labOn(t, server))
		})
	}
}

// The session that holds locks is killed: all of its leases are lost, none comes back though the
// engine connects anew, and what is locked next has larger fences.
func faultKillOfTheHolder(l *lab) {
	c, other := l.client("", "", 3*time.Second), l.process()
	first, second := l.lock(c, "first"), l.lock(c, "second")
	killed := l.holderOf("first")
	if killed == 0 || killed != l.holderOf("second") {
		l.Fatalf("the locks are held by %d and %d, want one session", killed, l.holderOf("second"))
	}
	l.do("KILL ?", killed)
	l.eventually("the lock is free", func() bool { return l.holderOf("first") == 0 })

	// A new connection, with both leases still believed in.
	third := l.lock(c, "third")
	l.says(first.Extend(l.context(), time.Second), holdfast.ErrLost)
	l.lost(first)
	l.lost(second)
	if l.holderOf("first")+l.holderOf("second") != 0 {
		l.Error("a lock that was lost is held")
	}
	next := l.lock(other, "first")
	if next.Fence() <= first.Fence() {
		l.Errorf("fence %d after %d", next.Fence(), first.Fence())
	}
	l.says(second.Unlock(), holdfast.ErrLost)
	l.unlock(third)
	l.unlock(next)
}

// A session in which nothing is held is killed: who asks next, for a lock, for a permit, or for
// another TTL, is served by another one, and told nothing of it.
func faultKillWhileIdle(l *lab) {
	c := l.process()
	last := int64(0)
	for _, take := range []func() (*holdfast.Lease, error){
		func() (*holdfast.Lease, error) { return c.Mutex("name").TryLock(l.context()) },
		func() (*holdfast.Lease, error) { return c.Semaphore("permits", 2).TryAcquire(l.context(), 1) },
		func() (*holdfast.Lease, error) { // which tells the server of another lease first
			return c.Mutex("name", holdfast.WithTTL(long/2)).TryLock(l.context())
		},
	} {
		held := l.lock(c, "place")
		session := l.holderOf("place")
		l.unlock(held)
		l.do("KILL ?", session)
		l.eventually("the session is gone", func() bool {
			return l.number("SELECT COUNT(*) FROM information_schema.processlist WHERE id=?", session) == 0
		})
		lease, err := take()
		if err != nil {
			l.Fatal(err)
		}
		if lease.Fence() <= last {
			l.Errorf("fence %d after %d", lease.Fence(), last)
		}
		last = lease.Fence()
		l.unlock(lease)
	}
}

// The session that waits is killed, its statement is killed, and it waits on: it is granted the
// lock when that is free.
func faultKillOfTheWaiter(l *lab) {
	holder, other := l.process(), l.process()
	for _, text := range []string{"KILL QUERY ?", "KILL ?"} {
		lease := l.lock(holder, "name")
		w := l.waiter(other, "name")
		killed := l.waiterOf()
		l.do(text, killed)
		l.eventually("another wait", func() bool {
			id := l.waiterOf()
			return id != 0 && (id != killed || text == "KILL QUERY ?")
		})
		w.stillWaits()
		l.unlock(lease)
		next := w.granted()
		if next.Fence() <= lease.Fence() {
			l.Errorf("%s: fence %d after %d", text, next.Fence(), lease.Fence())
		}
		l.unlock(next)
	}
}

// What was waited for is lost with the session that waited, and nothing else is.
func faultKillOfWhatWasWaitedFor(l *lab) {
	holder, other := l.process(), l.client("", "", 3*time.Second)
	before := l.lock(holder, "name")
	kept := l.lock(other, "kept")
	w := l.waiter(other, "name")
	l.unlock(before)
	lease := w.granted()
	if l.holderOf("name") == l.holderOf("kept") {
		l.Fatal("what was waited for is in the session of the others")
	}
	l.do("KILL ?", l.holderOf("name"))
	l.lost(lease)
	if err := kept.Extend(l.context(), 3*time.Second); err != nil {
		l.Errorf("the other lease: %v", err)
	}
	l.unlock(kept)
}

// A restart of the server ends all locks. Fences go on, for they are on disk.
func TestFaultRestart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, other := l.client("", "", 3*time.Second), l.process()
	lease := l.lock(c, "name")
	w := l.waiter(other, "name")
	l.server.Restart()
	l.lost(lease)
	next := w.granted() // the wait outlives the restart
	if next.Fence() <= lease.Fence() {
		l.Errorf("fence %d after %d", next.Fence(), lease.Fence())
	}
	l.unlock(next)
}

// A client that is cut off loses its lease, by its own clock and then at the server, and somebody
// else gets the lock. Back again it can lock.
func faultNetworkCut(l *lab) {
	p := testserver.Proxy(l, l.server.Addr())
	cut, other := l.client(p.Addr(), "", 2*time.Second), l.process()
	lease := l.lock(cut, "name")
	w := l.waiter(other, "name")
	p.Partition()
	l.Cleanup(p.Heal)
	l.lost(lease)
	next := w.granted()
	if next.Fence() <= lease.Fence() {
		l.Errorf("fence %d after %d", next.Fence(), lease.Fence())
	}
	p.Heal()
	l.unlock(next)
	l.unlock(l.lock(cut, "name"))
}

// The reply to a request that was granted is lost: the call fails without a lease, nobody else is
// kept out for long, and nothing that went unanswered is believed in.
func faultReplyLost(l *lab) {
	p := testserver.Proxy(l, l.server.Addr())
	c, other := l.client(p.Addr(), "", 2*time.Second), l.process()
	l.unlock(l.lock(c, "before")) // the connection is there
	p.DropReplyTo(l.key("name"))  // which nothing but the statement that locks it has sent
	if lease, err := c.Mutex("name").TryLock(l.context()); err == nil {
		l.Fatalf("granted with fence %d, and the reply was lost", lease.Fence())
	} else if !errors.Is(err, holdfast.ErrUnavailable) {
		l.Fatalf("error is %v", err)
	}
	l.unlock(l.lock(other, "name"))
	l.unlock(l.lock(c, "name"))
}

// A cancelled call to a server that does not answer returns all the same. What the server grants
// when it goes on is given back by the engine itself, and who waited waits on.
func TestFaultServerFrozen(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	holder, other := l.process(), l.process()
	lease := l.lock(holder, "name")
	w := l.waiter(other, "name")
	e := l.engineAt("", "")
	defer e.Close()
	request := func(name string) driver.Request {
		req := driver.Request{Name: name, Mode: driver.Exclusive, TTL: long, Span: 1}
		copy(req.Token[:], name)
		return req
	}
	l.server.Pause()
	ctx, cancel := context.WithCancel(l.context())
	cancelled := make(chan error, 1)
	go func() { _, err := e.Acquire(ctx, request("late")); cancelled <- err }()
	time.AfterFunc(50*time.Millisecond, cancel)
	select {
	case err := <-cancelled:
		if !errors.Is(err, context.Canceled) {
			l.Errorf("from a server that is frozen: %v", err)
		}
	case <-time.After(patience):
		l.Error("a cancelled call does not return")
	}
	l.server.Resume()
	if _, err := e.Acquire(l.context(), request("next")); err != nil { // which goes out after it
		l.Fatal(err)
	}
	l.eventually("what was granted late is free", func() bool { return l.holderOf("late") == 0 })
	w.stillWaits()
	l.unlock(lease)
	l.unlock(w.granted())
}

// Somebody who calls GET_LOCK by hand excludes ours and is excluded.
func foreignClients(l *lab) {
	ours := l.process()
	raw, err := mysqllock.Open(l.context(), l.server.URL("")+"?prefix=&table="+l.prefix, mysqllock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	foreign, err := l.admin.Conn(l.context())
	if err != nil {
		l.Fatal(err)
	}
	defer foreign.Close()
	get := func(key string) int64 {
		var got sql.NullInt64
		if err := foreign.QueryRowContext(l.context(), "SELECT GET_LOCK(?,0)", key).Scan(&got); err != nil {
			l.Fatal(err)
		}
		return got.Int64
	}
	for _, of := range []struct {
		c         *holdfast.Client
		name, key string
	}{{ours, "job-1", l.key("job-1")}, {l.clientOn(raw, long), "job-2", "job-2"}} {
		c, name, key := of.c, of.name, of.key
		lease := l.lock(c, name)
		if get(key) != 0 {
			l.Fatalf("GET_LOCK(%q) is granted beside a lease", key)
		}
		l.unlock(lease)
		if get(key) != 1 {
			l.Fatalf("GET_LOCK(%q) is refused", key)
		}
		_, err := c.Mutex(name).TryLock(l.context())
		l.says(err, holdfast.ErrHeld, "another client, connection ")
		_, err = c.Break(l.context(), name, holdfast.Break{Reason: "test"})
		l.says(err, holdfast.ErrUnsupported, "KILL ")
		w := l.waits(c, name)
		if _, err := foreign.ExecContext(l.context(), "DO RELEASE_LOCK(?)", key); err != nil {
			l.Fatal(err)
		}
		l.unlock(w.granted())
	}
}
