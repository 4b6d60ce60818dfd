package interoptest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

// valueFaults are what values go through on a server that survives it.
func valueFaults(b *bench) {
	for _, through := range drivers {
		for name, run := range map[string]func(*bench, string){
			"Rights": valueRights, "ReadOnly": valueReadOnly, "Blocked": valueBlocked, "ReplyLost": valueReplyLost,
			"Terminated": valueTerminated, "Budget": valueBudget, "Swept": valueSwept, "Isolation": valueIsolation, "Cancelled": valueCancelled,
		} {
			b.Run(through+"/"+name, func(t *testing.T) {
				t.Parallel()
				run(b.sub(t), through)
			})
		}
	}
	b.Run("pgx/Silent", func(t *testing.T) {
		t.Parallel()
		valueSilent(b.sub(t))
	})
}

// schema returns one of the test's own.
func (b *bench) schema() string {
	r := strings.NewReplacer("/", "_", " ", "_")
	return strings.ToLower(r.Replace(b.Name()))
}

func (b *bench) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.Cleanup(cancel)
	return ctx
}

// put stores text, whatever is there.
func (b *bench) put(e *pglock.Engine, name, text string) driver.Value {
	b.Helper()
	v, err := e.WriteValue(b.context(), driver.Write{Name: name, Data: []byte(text), If: driver.AnyVersion})
	if err != nil {
		b.Fatalf("write of %q: %v", name, err)
	}
	return v
}

func (b *bench) get(e *pglock.Engine, name string) driver.Value {
	b.Helper()
	v, err := e.ReadValue(b.context(), name)
	if err != nil {
		b.Fatalf("read of %q: %v", name, err)
	}
	return v
}

// fails ends the test unless err is Unavailable with that outcome, and says the texts.
func (b *bench) fails(err error, o driver.Outcome, texts ...string) {
	b.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != o {
		b.Fatalf("error is %v, want it unavailable, %v", err, o)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			b.Errorf("error %q does not say %q", err, text)
		}
	}
}

// roleURL makes a role with a password of its own, and returns a URL for it.
func (b *bench) roleURL(role string) string {
	b.exec("CREATE ROLE " + role + " LOGIN PASSWORD 'topsecret'")
	u, _ := url.Parse(b.server.URL())
	u.User = url.UserPassword(role, "topsecret")
	return u.String()
}

// valueRights: those who made what locks need before there were values go on locking, and are
// told what values need. That is enough.
func valueRights(b *bench, through string) {
	cfg := pglock.Config{Schema: b.schema()}
	for statement := range strings.SplitSeq(pglock.Setup(cfg), ";\n") {
		b.exec(statement)
	}
	b.exec("DROP TABLE " + cfg.Schema + ".stored_values")
	e := engine(b.T, pool(b.T, through, b.roleURL("values_"+through)), cfg)
	b.released(b.take(e, request("lock", "rights", long)))
	_, err := e.ReadValue(b.context(), "name")
	b.fails(err, driver.NotApplied, pglock.Setup(cfg))
	_, err = e.WriteValue(b.context(), driver.Write{Name: "name"})
	b.fails(err, driver.NotApplied, pglock.Setup(cfg))
	if strings.Contains(err.Error(), "topsecret") {
		b.Errorf("the error has the password: %v", err)
	}
	for statement := range strings.SplitSeq(pglock.Setup(cfg), ";\n") {
		b.exec(statement)
	}
	b.put(e, "name", "x")
	b.exec("REVOKE UPDATE ON " + cfg.Schema + ".stored_values FROM PUBLIC")
	_, err = e.WriteValue(b.context(), driver.Write{Name: "name", If: driver.AnyVersion})
	b.fails(err, driver.NotApplied, "lacks a right", pglock.Setup(cfg))
	if v := b.get(e, "name"); string(v.Data) != "x" {
		b.Errorf("after a refusal %+v is stored", v)
	}
	b.released(b.take(e, request("lock", "rights", long)))
}

// valueReadOnly: the server takes no writes from the role any more.
func valueReadOnly(b *bench, through string) {
	cfg, role := pglock.Config{Schema: b.schema()}, "reader_"+through
	for statement := range strings.SplitSeq(pglock.Setup(cfg), ";\n") {
		b.exec(statement)
	}
	e := engine(b.T, pool(b.T, through, b.roleURL(role)), cfg)
	v := b.put(e, "name", "x")
	b.exec("ALTER ROLE " + role + " SET default_transaction_read_only = on")
	b.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
	b.eventually("writes are refused as read-only", func() bool {
		_, err := e.WriteValue(b.context(), driver.Write{Name: "name", If: v.Version})
		var d *driver.Error
		return errors.As(err, &d) && d.Outcome == driver.NotApplied && strings.Contains(err.Error(), "read-only")
	})
	b.exec("ALTER ROLE " + role + " RESET default_transaction_read_only")
	b.eventually("writes are taken again", func() bool {
		_, err := e.WriteValue(b.context(), driver.Write{Name: "name", If: v.Version})
		return err == nil
	})
}

// valueBlocked: somebody has the row locked. The write is not carried out, and says so; locks
// are renewed meanwhile.
func valueBlocked(b *bench, through string) {
	cfg := pglock.Config{Schema: b.schema(), Timeout: 1500 * time.Millisecond}
	e := b.engine(through, cfg)
	h := b.take(e, request("lock", "blocked", long))
	b.put(e, "name", "x")
	row := b.lockRow(cfg.Schema, "name")
	result := make(chan error, 1)
	go func() {
		_, err := e.WriteValue(b.context(), driver.Write{Name: "name", If: driver.AnyVersion, Data: []byte("y")})
		result <- err
	}()
	b.blockedWrite(cfg.Schema)
	if err := h.renew(); err != nil {
		b.Errorf("renewal beside a write that is blocked: %v", err)
	}
	b.fails(<-result, driver.NotApplied, "is locked")
	row()
	if v := b.get(e, "name"); string(v.Data) != "x" {
		b.Errorf("stored is %+v", v)
	}
	b.put(e, "name", "z")
	b.released(h)
}

// lockRow locks the row of a name and returns what ends that.
func (b *bench) lockRow(schema, name string) (unlock func()) {
	b.Helper()
	tx, err := b.admin.Begin()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := tx.Exec("SELECT FROM "+schema+".stored_values WHERE name = $1 FOR UPDATE", []byte(name)); err != nil {
		b.Fatal(err)
	}
	return func() { _ = tx.Rollback() }
}

// blockedWrite waits until a write waits for a row, and will do so for a moment longer.
func (b *bench) blockedWrite(schema string) {
	b.Helper()
	b.eventually("a write is blocked", func() bool {
		return b.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1 AND clock_timestamp() - query_start < '200ms'",
			"UPDATE "+schema+".%") == 1
	})
}

// valueReplyLost: the write is carried out and its answer is lost.
func valueReplyLost(b *bench, through string) {
	proxy := testserver.Proxy(b, b.server.Addr())
	e := engine(b.T, pool(b.T, through, b.server.URLVia(proxy.Addr())), pglock.Config{Schema: b.schema()})
	first := b.put(e, "name", "first")
	b.put(e, "name", "first") // the statement is prepared
	v := b.get(e, "name")
	proxy.CutReplyTo(map[string]string{"pgx": "second", "postgres": fmt.Sprintf("%x", "second")}[through])
	_, err := e.WriteValue(b.context(), driver.Write{Name: "name", If: v.Version, Data: []byte("second")})
	b.fails(err, driver.Unknown)
	b.eventually("it was written", func() bool { return string(b.get(e, "name").Data) == "second" })
	if after := b.get(e, "name"); after.Version <= v.Version || v.Version <= first.Version {
		b.Errorf("versions are %d, %d, %d", first.Version, v.Version, after.Version)
	}
}

// valueTerminated: the session of values is ended while nothing is under way, and while
// somebody waits. Nobody notices.
func valueTerminated(b *bench, through string) {
	e := b.engine(through, pglock.Config{Schema: b.schema()})
	v := b.put(e, "name", "x")
	ctx := b.context()
	done := make(chan error, 1)
	go func() {
		_, err := e.AwaitValue(ctx, "name", v.Version)
		done <- err
	}()
	for range 3 {
		b.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid()", "%"+b.schema()+".stored_values%")
		b.get(e, "name")
		time.Sleep(50 * time.Millisecond)
	}
	b.put(b.engine("pgx", pglock.Config{Schema: b.schema()}), "name", "y")
	if err := <-done; err != nil {
		b.Errorf("AwaitValue: %v", err)
	}
}

// valueBudget: values, locks and waits take no more connections than they may together, and
// where nothing is left for values, they go with the locks.
func valueBudget(b *bench, through string) {
	for _, connections := range []int{1, 2, 3} {
		db := pool(b.T, through, b.server.URL())
		e := engine(b.T, db, pglock.Config{Schema: b.schema(), Connections: connections})
		other := b.engine("pgx", pglock.Config{Schema: b.schema()})
		held, waiting := map[string]*held{}, map[string]*waiting{}
		for i := range 3 {
			name := fmt.Sprint(connections, i)
			held[name] = b.take(other, request(name, "holder", long))
			waiting[name] = b.wait(e, request(name, "waiter", long))
		}
		ctx, cancel := context.WithCancel(b.context())
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { _, _ = e.AwaitValue(ctx, "nothing", 0) })
			all.Go(func() {
				for i := range 10 {
					b.put(e, "name", fmt.Sprint(i))
					if open := db.Stats().InUse; open > connections {
						b.Errorf("%d connections are taken, of %d", open, connections)
					}
				}
			})
		}
		for name, h := range held {
			b.released(h)
			b.released(waiting[name].granted())
		}
		cancel()
		all.Wait()
		if err := e.Close(); err != nil {
			b.Error(err)
		}
		if open := db.Stats().InUse; open != 0 {
			b.Errorf("%d connections are left in use", open)
		}
	}
}

// valueSwept: rows that hold nothing are taken away, some at a time, and versions go on.
func valueSwept(b *bench, through string) {
	cfg := pglock.Config{Schema: b.schema()}
	e := b.engine(through, cfg)
	table := cfg.Schema + ".stored_values"
	count := func() int { return b.number("SELECT count(*) FROM " + table) }
	v := b.put(e, "old", "x")
	_ = e.Close()
	// Longer ago than a minute, by the hundred; one that is young, and one for ever.
	b.exec("INSERT INTO " + table + " SELECT convert_to('row ' || i, 'UTF8'), i, 0, 1000000 + i, '' FROM generate_series(1, 250) AS i")
	b.exec("UPDATE " + table + " SET until = 1 WHERE name = 'old'")
	b.exec("INSERT INTO " + table + " VALUES ('young', 1, 0, (extract(epoch FROM now()) * 1000000)::bigint - 1000000, ''), ('kept', 1, 0, 0, '')")
	e = b.engine(through, cfg)
	b.eventually("it is swept", func() bool { b.put(e, "writer", ""); return count() == 3 })
	if next := b.put(e, "old", "y"); next.Version <= v.Version {
		b.Errorf("version %d after %d", next.Version, v.Version)
	}
	if string(b.get(e, "kept").Data) != "" || b.get(e, "kept").Version != 1 || b.get(e, "young").Version != 0 {
		b.Errorf("stored are %+v and %+v", b.get(e, "kept"), b.get(e, "young"))
	}
}

// valueIsolation: the role's transactions are serializable. Writes that meet do not fail.
func valueIsolation(b *bench, through string) {
	role := "strict_" + through
	u := b.roleURL(role)
	b.exec("ALTER ROLE " + role + " SET default_transaction_isolation = 'serializable'")
	cfg := pglock.Config{Schema: b.schema()}
	for statement := range strings.SplitSeq(pglock.Setup(cfg), ";\n") {
		b.exec(statement)
	}
	var all sync.WaitGroup
	for range 4 {
		e := engine(b.T, pool(b.T, through, u), cfg)
		all.Go(func() {
			for range 50 {
				if _, err := e.WriteValue(b.context(), driver.Write{Name: "name", If: driver.AnyVersion}); err != nil {
					b.Errorf("a write that met others: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

// valueCancelled: calls end with their contexts while the server does not answer, and know
// what may have happened.
func valueCancelled(b *bench, through string) {
	proxy := testserver.Proxy(b, b.server.Addr())
	e := engine(b.T, pool(b.T, through, b.server.URLVia(proxy.Addr())), pglock.Config{Schema: b.schema()})
	b.put(e, "name", "x")
	row := b.lockRow(b.schema(), "name")
	ctx, cancel := context.WithCancel(b.context())
	result := make(chan error, 1)
	go func() {
		_, err := e.WriteValue(ctx, driver.Write{Name: "name", If: driver.AnyVersion})
		result <- err
	}()
	b.blockedWrite(b.schema())
	proxy.Freeze()
	cancel()
	wrote := <-result
	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, read := e.ReadValue(ctx, "name")
	row()
	proxy.Thaw()
	b.fails(wrote, driver.Unknown)
	b.fails(read, driver.NotApplied)
	if !errors.Is(wrote, context.Canceled) || !errors.Is(read, context.DeadlineExceeded) {
		b.Errorf("the calls ended with %v and %v", wrote, read)
	}
	b.put(e, "name", "y")
}

// valueSilent: the server does not answer a write for longer than the timeout. Its session is
// given up. This is seen with pgx only: lib/pq heeds no context while it connects anew.
func valueSilent(b *bench) {
	proxy := testserver.Proxy(b, b.server.Addr())
	e := engine(b.T, pool(b.T, "pgx", b.server.URLVia(proxy.Addr())), pglock.Config{Schema: b.schema(), Timeout: 3 * time.Second})
	b.put(e, "name", "x")
	proxy.Freeze()
	ctx := b.context()
	_, err := e.WriteValue(ctx, driver.Write{Name: "name", If: driver.AnyVersion})
	if ctx.Err() != nil || !isKind(err, driver.Unavailable) {
		b.Errorf("a write without an answer ended with %v", err)
	}
	proxy.Thaw()
	b.put(e, "name", "y")
}

// TestValuesServerKilled: the server is killed in the middle of a write. Its outcome is not
// known, and either it happened or not; those who wait go on waiting, and versions go on.
func TestValuesServerKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, through := range drivers {
		cfg := pglock.Config{Schema: "killed_" + through}
		e := b.engine(through, cfg)
		v := b.put(e, "name", "before")
		// Of numbers that were given out before the crash none comes again.
		c, err := holdfast.New(b.engine(through, cfg), holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		last, err := c.Sequence("invoice").Next(b.context())
		if err != nil {
			t.Fatal(err)
		}
		ctx := b.context()
		waiter, waited := b.engine(through, cfg), make(chan error, 1)
		go func() {
			_, err := waiter.AwaitValue(ctx, "other", 0)
			waited <- err
		}()
		b.eventually("it looks for the value", func() bool {
			return b.number("SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1", "SELECT v.name%"+cfg.Schema+".%") > 0
		})
		row := b.lockRow(cfg.Schema, "name")
		result := make(chan error, 1)
		go func() {
			_, err := e.WriteValue(ctx, driver.Write{Name: "name", If: v.Version, Data: []byte("after")})
			result <- err
		}()
		b.blockedWrite(cfg.Schema)
		b.server.Restart()
		b.fails(<-result, driver.Unknown)
		row()
		if now := b.get(e, "name"); string(now.Data) != "before" || now.Version != v.Version {
			b.Errorf("what was never committed is stored: %+v", now)
		}
		if next := b.put(e, "name", "after"); next.Version <= v.Version {
			b.Errorf("version %d after %d", next.Version, v.Version)
		}
		if n, err := c.Sequence("invoice").Next(b.context()); err != nil || n <= last {
			b.Errorf("Next is %d after %d (%v)", n, last, err)
		}
		b.put(e, "other", "x")
		if err := <-waited; err != nil {
			b.Errorf("AwaitValue across the restart: %v", err)
		}
	}
}
