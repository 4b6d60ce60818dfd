package interoptest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

const (
	long  = 30 * time.Second
	short = 1500 * time.Millisecond
)

func faults(b *bench) {
	for _, through := range drivers {
		for name, run := range map[string]func(*bench, string){
			"SessionIsTerminated":     sessionIsTerminated,
			"WaiterIsTerminated":      waiterIsTerminated,
			"GrantedWaiterTerminated": grantedWaiterIsTerminated,
			"NetworkIsCut":            networkIsCut,
			"NetworkIsSilent":         networkIsSilent,
			"NetworkFlickers":         networkFlickers,
			"PoolIsLeftClean":         poolIsLeftClean,
			"CancelledWaits":          cancelledWaits,
			"WaitsWhereItWaited":      waitsWhereItWaited,
		} {
			b.Run(through+"/"+name, func(t *testing.T) {
				t.Parallel()
				run(b.sub(t), through)
			})
		}
	}
}

// sessionIsTerminated: an administrator ends the session that has the locks. The holder is
// told, nothing comes back by itself, and new requests are served.
func sessionIsTerminated(b *bench, through string) {
	owner := b.Name()[len(b.Name())-20:] + through
	e := b.engine(through, pglock.Config{Heartbeat: 50 * time.Millisecond})
	other := b.engine("pgx", pglock.Config{})
	one, two := b.take(e, request(owner+"1", owner, long)), b.take(e, request(owner+"2", owner, long))
	b.terminate(owner, "true")
	b.lost(one)
	b.lost(two)
	if err := one.release(); !isKind(err, driver.NotHeld) {
		b.Errorf("release of what was lost: %v", err)
	}
	next := b.take(other, request(owner+"1", "other", long))
	if next.grant.Fence <= one.claim.Fence {
		b.Errorf("fence %d after %d", next.grant.Fence, one.claim.Fence)
	}
	if err := one.renew(); !isKind(err, driver.Lost) {
		b.Errorf("renewal of what somebody else has: %v", err)
	}
	again := b.take(e, request(owner+"2", owner, long))
	b.released(again)
	b.released(next)
}

// waiterIsTerminated: the session that waits is ended, then the one that takes locks. The
// request goes on waiting, and is granted at the release.
func waiterIsTerminated(b *bench, through string) {
	owner := "waiter " + through
	e, other := b.engine(through, pglock.Config{}), b.engine("pgx", pglock.Config{})
	holder := b.take(other, request(owner, "holder", long))
	w := b.wait(e, request(owner, owner, long))
	b.eventually("the request waits in the server", func() bool { return b.blocked(owner) == 1 })
	const waits = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE application_name = 'holdfast ' || $1 AND wait_event = 'advisory'"
	first := b.number(waits, owner)
	b.terminate(owner, "wait_event = 'advisory'")
	b.eventually("it waits again", func() bool { n := b.number(waits, owner); return n != 0 && n != first && b.blocked(owner) == 1 })
	b.terminate(owner, "state = 'idle'")
	if b.blocked(owner) != 1 {
		b.Errorf("the end of the other session has ended the wait")
	}
	b.released(holder)
	b.released(w.granted())
	b.released(b.take(other, request(owner, "holder", long)))
}

// grantedWaiterIsTerminated: what was waited for lives in the session that waited, and is lost
// with that one only.
func grantedWaiterIsTerminated(b *bench, through string) {
	owner := "granted " + through
	e, other := b.engine(through, pglock.Config{}), b.engine("pgx", pglock.Config{})
	kept := b.take(e, request(owner+" kept", owner, long))
	holder := b.take(other, request(owner, "holder", long))
	w := b.wait(e, request(owner, owner, long))
	b.eventually("the request waits in the server", func() bool { return b.blocked(owner) == 1 })
	b.released(holder)
	h := w.granted()
	b.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE application_name = 'holdfast ' || $1 AND locktype = 'advisory' GROUP BY pid, backend_start
		ORDER BY backend_start DESC LIMIT 1`, owner)
	b.lost(h)
	if err := kept.renew(); err != nil {
		b.Errorf("renewal in the other session: %v", err)
	}
	b.released(kept)
}

// networkIsCut: the connection is reset. The server frees the locks, the holder is told.
func networkIsCut(b *bench, through string) {
	owner := "cut " + through
	proxy := testserver.Proxy(b.T, b.server.Addr())
	e := engine(b.T, pool(b.T, through, b.server.URLVia(proxy.Addr())), pglock.Config{})
	other := b.engine("pgx", pglock.Config{})
	h := b.take(e, request(owner, owner, long))
	w := b.wait(other, request(owner, "other", long))
	proxy.Cut()
	b.lost(h)
	b.released(w.granted())
	b.released(b.take(e, request(owner, owner, long)))
}

// networkIsSilent: nothing gets through any more, nor does the news of it. The server ends the
// session when its lease is over, and not before; by then the holder knows.
func networkIsSilent(b *bench, through string) {
	owner := "silent " + through
	proxy := testserver.Proxy(b.T, b.server.Addr())
	e := engine(b.T, pool(b.T, through, b.server.URLVia(proxy.Addr())), pglock.Config{})
	other := b.engine("pgx", pglock.Config{})
	clock := driver.BootClock()
	h := b.take(e, request(owner, owner, short))
	w := b.wait(other, request(owner, "other", long))
	if err := h.renew(); err != nil {
		b.Fatalf("renewal: %v", err)
	}
	renewed := clock.Now()
	proxy.Partition()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Acquire(ctx, request(owner+"2", owner, short)); !errors.Is(err, context.DeadlineExceeded) {
		b.Errorf("request without a network: %v", err)
	}
	next := w.granted()
	// The lease counts from the renewal, which left some time before this clock was read.
	if early := renewed.Add(short - short/3).Sub(clock.Now()); early > 0 {
		b.Errorf("granted %v too early", early)
	}
	b.lost(h)
	b.released(next)
	proxy.Heal()
	b.released(b.take(e, request(owner, owner, long)))
}

// networkFlickers: a silence shorter than the lease costs nothing, though it is longer than
// what is waited for otherwise.
func networkFlickers(b *bench, through string) {
	owner := "flicker " + through
	proxy := testserver.Proxy(b.T, b.server.Addr())
	e := engine(b.T, pool(b.T, through, b.server.URLVia(proxy.Addr())), pglock.Config{Timeout: 4 * time.Second})
	h := b.take(e, request(owner, owner, long))
	proxy.Freeze()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := e.Renew(ctx, []driver.Claim{h.claim})[0]; !isKind(err, driver.Unavailable) {
		b.Errorf("renewal without a network: %v", err)
	}
	proxy.Thaw()
	b.eventually("the renewal succeeds", func() bool { return h.renew() == nil })
	b.released(h)
}

// poolIsLeftClean: connections that the engine had never go back to the caller's pool, and the
// pool stays open.
func poolIsLeftClean(b *bench, through string) {
	owner := "clean " + through
	db := pool(b.T, through, b.server.URL())
	e := engine(b.T, db, pglock.Config{})
	h := b.take(e, request(owner, owner, long))
	other := b.engine("pgx", pglock.Config{})
	w := b.wait(other, request(owner, "after "+owner, long))
	b.eventually("somebody waits", func() bool { return b.blocked("after "+owner) > 0 })
	b.released(h)
	b.released(w.granted())
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	if open := db.Stats().InUse; open != 0 {
		b.Errorf("%d connections are still in use", open)
	}
	b.eventually("its sessions are gone", func() bool {
		return b.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast ' || $1", owner) == 0
	})
	for range 4 {
		conn, err := db.Conn(b.Context())
		if err != nil {
			b.Fatalf("the pool was closed: %v", err)
		}
		defer conn.Close()
		var idle, name string
		err = conn.QueryRowContext(b.Context(), "SELECT current_setting('idle_session_timeout'), current_setting('application_name')").Scan(&idle, &name)
		if err != nil || idle != "0" || name == "holdfast "+owner {
			b.Errorf("a connection of the pool has idle_session_timeout %q and application_name %q (%v)", idle, name, err)
		}
	}
}

// cancelledWaits: waits are given up as the lock is released. Nothing is left.
func cancelledWaits(b *bench, through string) {
	owner := "cancel " + through
	e, other := b.engine(through, pglock.Config{}), b.engine("pgx", pglock.Config{})
	for i := range 100 {
		holder := b.take(other, request(owner, "holder", long))
		w := b.wait(e, request(owner, owner, long))
		if i%2 == 0 {
			b.eventually("it waits", func() bool { return b.blocked(owner) > 0 })
		}
		done := make(chan struct{})
		go func() { w.cancel(); close(done) }()
		b.released(holder)
		<-done
		if err := <-w.result; err == nil {
			b.released(w.held)
		} else if !errors.Is(err, context.Canceled) {
			b.Fatalf("a wait that was given up: %v", err)
		}
	}
	b.released(b.take(other, request(owner, "holder", long)))
}

// TestServerRestarts: the server's end frees all locks. Who held is told, who waits goes on
// waiting and is served, and fences go on growing.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	e, other := b.engine("pgx", pglock.Config{}), b.engine("postgres", pglock.Config{})
	one := b.take(e, request("one", "restart", long))
	w := b.wait(other, request("one", "waiter", long))
	b.eventually("it waits", func() bool { return b.blocked("waiter") == 1 })
	b.server.Restart()
	next := w.granted()
	b.lost(one)
	if next.grant.Fence <= one.claim.Fence {
		b.Errorf("fence %d after %d", next.grant.Fence, one.claim.Fence)
	}
	b.released(next)
	b.released(b.take(e, request("one", "restart", long)))
}

// waitsWhereItWaited: who had to wait for a lock asks for it in the session that it waited in,
// without a try in another one, until nobody is in the way any more.
func waitsWhereItWaited(b *bench, through string) {
	name := "again " + through
	e, other := b.engine(through, pglock.Config{}), b.engine("pgx", pglock.Config{})
	at := func() int { // every session has a lock of its own as well
		return b.number(`SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'holdfast ' || $1
			AND locktype = 'advisory' AND granted GROUP BY pid HAVING count(*) = 2`, name)
	}
	waited := func() *held { return b.wait(e, request(name, name, long)).granted() }
	first := waited()
	main := at()
	b.released(first)

	var last int64
	var places []int
	for range 2 {
		holder := b.take(other, request(name, "holder", long))
		w := b.wait(e, request(name, name, long))
		b.eventually("the request waits", func() bool { return b.blocked(name) == 1 })
		b.released(holder)
		h := w.granted()
		if h.grant.Fence <= max(last, holder.claim.Fence) {
			b.Errorf("fence %d after %d and %d", h.grant.Fence, last, holder.claim.Fence)
		}
		last = h.claim.Fence
		places = append(places, at())
		b.released(h)
	}
	for range 2 {
		h := waited()
		if h.grant.Fence <= last {
			b.Errorf("fence %d after %d", h.grant.Fence, last)
		}
		last = h.claim.Fence
		places = append(places, at())
		b.released(h)
	}
	if apart := places[0]; apart == main || places[1] != apart || places[2] != apart || places[3] != main {
		b.Errorf("the locks were held in %v; %d is the session that takes locks", places, main)
	}
}
