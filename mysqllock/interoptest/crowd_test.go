package interoptest

import (
	"context"
	"database/sql"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// contains reports whether an error's text has a part.
func contains(err error, part string) bool { return strings.Contains(err.Error(), part) }

// firstOf is the i-th statement of several.
func firstOf(all string, i int) string { return strings.Split(all, ";\n")[i] }

// size returns n, or HOLDFAST_CROWD tenths of it in long runs.
func size(n int) int {
	if times, err := strconv.Atoi(os.Getenv("HOLDFAST_CROWD")); err == nil {
		return n * times / 10
	}
	return n
}

// crowd has thousands of goroutines, in two processes with 8 connections each, lock hundreds of
// names. All are served, nobody beside anybody else, and the budget holds.
func crowd(l *lab) {
	const budget = 8
	names := size(500)
	dbs := []*sql.DB{l.open(l.server.DSN("")), l.open(l.server.DSN(""))}
	var clients []*holdfast.Client
	for _, db := range dbs {
		e, err := mysqllock.New(l.context(), db, mysqllock.Config{
			Table: l.prefix, Prefix: l.prefix + ":", Connections: budget, Timeout: patience,
		})
		if err != nil {
			l.Fatal(err)
		}
		clients = append(clients, l.clientOn(e, long))
	}
	inside := make([]atomic.Int32, names)
	last := make([]atomic.Int64, names)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	var served atomic.Int64
	for i := range 10 * names {
		all.Go(func() {
			at := i % names
			err := clients[i/names%2].Mutex(strconv.Itoa(at)).Do(ctx, func(_ context.Context, lease *holdfast.Lease) error {
				if n := inside[at].Add(1); n != 1 {
					l.Errorf("%d hold %d at once", n, at)
				}
				if before := last[at].Swap(lease.Fence()); before >= lease.Fence() {
					l.Errorf("%d: fence %d after %d", at, lease.Fence(), before)
				}
				runtime.Gosched()
				inside[at].Add(-1)
				return nil
			})
			if err != nil {
				l.Errorf("%d: %v", at, err)
			}
			served.Add(1)
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	for done := false; !done; {
		for _, db := range dbs {
			if n := db.Stats().OpenConnections; n > budget {
				l.Errorf("%d connections, want %d at most", n, budget)
			}
		}
		select {
		case <-over:
			done = true
		case <-time.After(2 * time.Millisecond):
		}
	}
	if n := served.Load(); n != int64(10*names) {
		l.Errorf("%d of %d were served", n, 10*names)
	}
	l.eventually("nothing is left in the table but the counter and the sessions", func() bool {
		return l.number("SELECT COUNT(*) FROM "+l.prefix+" WHERE k='' OR name<>''") == 1 &&
			l.number("SELECT COUNT(*) FROM "+l.prefix) <= 1+2*budget
	})
}

// leak looks whether anything is left of an engine that was closed: connections, locks, rows.
// Goroutines are counted by TestFaultLeakOfGoroutines, which runs alone.
func leak(l *lab) {
	one, two := l.process(), l.process()
	held := l.lock(one, "held")
	w := l.waiter(two, "held")
	if _, err := two.Semaphore("permits", 3).TryAcquire(l.context(), 2); err != nil {
		l.Fatal(err)
	}
	if err := two.Close(); err != nil {
		l.Errorf("Close: %v", err)
	}
	<-w.done
	l.says(w.err, holdfast.ErrClosed)
	l.unlock(held)
	if err := one.Close(); err != nil {
		l.Errorf("Close: %v", err)
	}
	l.eventually("no connection is left", func() bool {
		return l.number("SELECT COUNT(*) FROM "+l.prefix+" WHERE k<>'' AND conn=COALESCE(IS_USED_LOCK(k),0)") == 0
	})
	if n := l.number("SELECT COUNT(*) FROM " + l.prefix); n != 1 {
		l.Errorf("%d rows are left, want the counter", n)
	}
}

// After Close no goroutine is left. It runs alone, to count them.
func TestFaultLeakOfGoroutines(t *testing.T) {
	l := newLab(t)
	if err := l.admin.Close(); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for range 3 {
		one, two := l.process(), l.process()
		held := l.lock(one, "held")
		ended := make(chan error, 1)
		go func() { _, err := two.Mutex("held").Lock(context.Background()); ended <- err }()
		short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if _, err := two.Mutex("held").Lock(short); err == nil {
			t.Error("granted beside a lease")
		}
		cancel()
		_ = two.Close()
		l.says(<-ended, holdfast.ErrClosed)
		_ = one.Close()
		l.says(held.Unlock(), holdfast.ErrClosed)
	}
	left := func() int { return runtime.NumGoroutine() - before }
	for deadline := time.Now().Add(patience); left() > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if left() > 0 {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines are left:\n%s", left(), stacks[:runtime.Stack(stacks, true)])
	}
}

// diagnose looks at what doctor is told.
func diagnose(l *lab) {
	x, err := l.process().Diagnose(l.context())
	if err != nil {
		l.Fatal(err)
	}
	subjects := map[string]driver.Level{}
	for _, f := range x.Findings {
		subjects[f.Subject] = f.Level
	}
	for subject, level := range map[string]driver.Level{
		"cluster": driver.LevelOK, "latency": driver.LevelOK, "clock": driver.LevelOK, "safety": driver.LevelOK,
		"durability": driver.LevelNote, // what testserver does for speed
	} {
		if got, ok := subjects[subject]; !ok || got != level {
			l.Errorf("%s: %v, want %v, in %+v", subject, got, level, x)
		}
	}
}
