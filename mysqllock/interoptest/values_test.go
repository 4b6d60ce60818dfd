package interoptest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// TestValues has what values go through on a server that outlives it.
func TestValues(t *testing.T) {
	t.Parallel()
	server := testserver.MariaDB(t, testserver.MariaDBOptions{})
	for name, run := range map[string]func(*lab){
		"Rights": valueRights, "Blocked": valueBlocked, "ReplyLost": valueReplyLost, "SessionsCut": valueSessionsCut,
		"Budget": valueBudget, "Swept": valueSwept, "LongTable": valueLongTable, "Cancelled": valueCancelled, "ClockBehind": valueClockBehind,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(labOn(t, server))
		})
	}
}

// stores returns an engine that is closed at the end.
func (l *lab) stores(addr, query string) *mysqllock.Engine {
	l.Helper()
	e := l.engineAt(addr, query)
	l.Cleanup(func() { _ = e.Close() })
	return e
}

// put stores text, whatever is there.
func (l *lab) put(e *mysqllock.Engine, name, text string) driver.Value {
	l.Helper()
	v, err := e.WriteValue(l.context(), driver.Write{Name: name, Data: []byte(text), If: driver.AnyVersion})
	if err != nil {
		l.Fatalf("write of %q: %v", name, err)
	}
	return v
}

func (l *lab) get(e *mysqllock.Engine, name string) driver.Value {
	l.Helper()
	v, err := e.ReadValue(l.context(), name)
	if err != nil {
		l.Fatalf("read of %q: %v", name, err)
	}
	return v
}

// fails ends the test unless err is Unavailable with that outcome, and says the texts.
func (l *lab) fails(err error, o driver.Outcome, texts ...string) {
	l.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != o {
		l.Fatalf("error is %v, want it unavailable, %v", err, o)
	}
	for _, text := range texts {
		if !contains(err, text) {
			l.Errorf("error %q does not say %q", err, text)
		}
	}
}

// Those who made what locks need before there were values go on locking, and are told what values
// need. That is enough. A read-only server refuses.
func valueRights(l *lab) {
	user, cfg := "v_"+l.prefix, mysqllock.Config{Table: l.prefix, Prefix: l.prefix + ":"}
	setup := strings.Split(strings.TrimSuffix(mysqllock.Setup(cfg), ";"), ";\n")
	l.do("CREATE USER " + user + "@'%' IDENTIFIED BY 'top/secret'")
	for _, text := range setup {
		if !strings.Contains(text, "_values`") {
			l.do(strings.ReplaceAll(text, "'user'", user))
		}
	}
	e, err := mysqllock.Open(l.context(), "mysql://"+user+":top%2Fsecret@"+l.server.Addr()+"/app"+l.query(""), mysqllock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	c := l.clientOn(e, long)
	l.unlock(l.lock(c, "lock"))
	_, err = e.ReadValue(l.context(), "name")
	l.fails(err, driver.NotApplied, mysqllock.Setup(cfg))
	_, err = e.WriteValue(l.context(), driver.Write{Name: "name"})
	l.fails(err, driver.NotApplied, mysqllock.Setup(cfg))
	if contains(err, "secret") {
		l.Errorf("the error has the password: %v", err)
	}
	for _, text := range setup {
		l.do(strings.ReplaceAll(text, "'user'", user))
	}
	l.put(e, "name", "x")
	l.do("REVOKE UPDATE ON " + l.prefix + "_values FROM " + user + "@'%'")
	_, err = e.WriteValue(l.context(), driver.Write{Name: "name", If: driver.AnyVersion})
	l.fails(err, driver.NotApplied, "denied", mysqllock.Setup(cfg))
	if v := l.get(e, "name"); string(v.Data) != "x" {
		l.Errorf("after a refusal %+v is stored", v)
	}
	l.unlock(l.lock(c, "lock"))
}

// lockRow locks the row of a name and returns what ends that.
func (l *lab) lockRow(name string) (unlock func()) {
	l.Helper()
	tx, err := l.admin.Begin()
	if err != nil {
		l.Fatal(err)
	}
	if _, err := tx.Exec("SELECT version FROM "+l.prefix+"_values WHERE name=? FOR UPDATE", name); err != nil {
		l.Fatal(err)
	}
	return func() { _ = tx.Rollback() }
}

// waitsForValues returns once somebody is past the first look at a value, and looks again from time to
// time. With the table locked each look lasts until it is seen.
func (l *lab) waitsForValues() {
	l.Helper()
	conn, err := l.admin.Conn(l.context())
	if err != nil {
		l.Fatal(err)
	}
	defer conn.Close()
	do := func(text string) {
		if _, err := conn.ExecContext(l.context(), text); err != nil {
			l.Fatal(err)
		}
	}
	looks := func(text string) bool {
		return l.number("SELECT COUNT(*) FROM information_schema.processlist WHERE id<>CONNECTION_ID() AND info LIKE ?", text+"%`"+l.prefix+"\\_values`%") > 0
	}
	l.eventually("somebody looks again", func() bool {
		do("LOCK TABLES `" + l.prefix + "_values` WRITE")
		defer do("UNLOCK TABLES")
		l.eventually("somebody looks", func() bool { return looks("SELECT ") })
		return looks("SELECT name,")
	})
}

func (l *lab) blockedWrite() {
	l.Helper()
	l.eventually("a write is blocked", func() bool {
		return l.number("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE ?", "UPDATE `"+l.prefix+"\\_values`%") == 1
	})
}

// Somebody has the row locked. Locks are renewed meanwhile. The write happens once the row is
// free, or, if that takes too long, does not, and says so.
func valueBlocked(l *lab) {
	patient, e := l.stores("", "timeout=20s"), l.stores("", "timeout=2s")
	held := l.lock(l.clientOn(patient, long), "lock")
	l.put(e, "name", "x")
	write := func(e *mysqllock.Engine) <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := e.WriteValue(context.Background(), driver.Write{Name: "name", If: driver.AnyVersion, Data: []byte("y")})
			result <- err
		}()
		l.blockedWrite()
		return result
	}
	unlock := l.lockRow("name")
	result := write(patient)
	if err := held.Extend(l.context(), long); err != nil {
		l.Errorf("renewal beside a write that is blocked: %v", err)
	}
	l.blockedWrite() // still
	unlock()
	if err := <-result; err != nil {
		l.Errorf("a write that was blocked for a while: %v", err)
	}
	v := l.get(e, "name")
	unlock = l.lockRow("name")
	l.fails(<-write(e), driver.NotApplied, "1205")
	unlock()
	if now := l.get(e, "name"); now.Version != v.Version {
		l.Errorf("version %d is stored instead of %d", now.Version, v.Version)
	}
	l.put(e, "name", "z")
	l.unlock(held)
}

// The write is carried out and its answer is lost.
func valueReplyLost(l *lab) {
	p := testserver.Proxy(l, l.server.Addr())
	e := l.stores(p.Addr(), "timeout=2s")
	v := l.put(e, "name", "first")
	p.CutReplyTo(fmt.Sprintf("data=x'%x'", "second"))
	_, err := e.WriteValue(l.context(), driver.Write{Name: "name", If: v.Version, Data: []byte("second")})
	l.fails(err, driver.Unknown)
	l.eventually("it was written", func() bool { return string(l.get(e, "name").Data) == "second" })
	if now := l.get(e, "name"); now.Version <= v.Version {
		l.Errorf("version %d after %d", now.Version, v.Version)
	}
}

// All sessions are cut while somebody waits, and again. Nobody notices.
func valueSessionsCut(l *lab) {
	p := testserver.Proxy(l, l.server.Addr())
	e := l.stores(p.Addr(), "")
	v := l.put(e, "name", "x")
	ctx, done := l.context(), make(chan error, 1)
	go func() {
		_, err := e.AwaitValue(ctx, "name", v.Version)
		done <- err
	}()
	for range 3 {
		p.HangUp()
		l.get(e, "name")
		time.Sleep(50 * time.Millisecond)
	}
	l.put(l.stores("", ""), "name", "y")
	if err := <-done; err != nil {
		l.Errorf("AwaitValue: %v", err)
	}
}

// Values, locks and waits take no more connections than they may together.
func valueBudget(l *lab) {
	for _, connections := range []int{1, 2, 3} {
		db := l.open(l.server.DSN(""))
		e, err := mysqllock.New(l.context(), db, mysqllock.Config{Table: l.prefix, Prefix: l.prefix + ":", Connections: connections})
		if err != nil {
			l.Fatal(err)
		}
		c, other := l.clientOn(e, long), l.process()
		name := fmt.Sprint("lock ", connections)
		held := l.lock(other, name)
		w := l.waits(c, name)
		ctx, cancel := context.WithCancel(l.context())
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { _, _ = e.AwaitValue(ctx, "nothing", 0) })
			all.Go(func() {
				for i := range 10 {
					l.put(e, "name", fmt.Sprint(i))
					if open := db.Stats().InUse; open > connections {
						l.Errorf("%d connections are taken, of %d", open, connections)
					}
				}
			})
		}
		l.unlock(held)
		l.unlock(w.granted())
		time.Sleep(20 * time.Millisecond)
		cancel()
		all.Wait()
		if err := c.Close(); err != nil {
			l.Error(err)
		}
		if open := db.Stats().InUse; open != 0 {
			l.Errorf("%d connections are left in use", open)
		}
	}
}

// Rows that hold nothing are taken away, some at a time. Versions go on from theirs, which the
// clock is far behind.
func valueSwept(l *lab) {
	e := l.stores("", "")
	l.put(e, "kept", "x")
	_ = e.Close()
	const ahead = 1 << 52
	l.do("INSERT INTO "+l.prefix+"_values SELECT CONCAT('row ',seq),?+seq,0,1000000+seq,NULL FROM seq_1_to_250", ahead)
	l.do("INSERT INTO " + l.prefix + "_values SELECT 'young',1,0,CAST(UNIX_TIMESTAMP(NOW(6))*1000000 AS SIGNED)-1000000,'x'")
	e = l.stores("", "")
	l.eventually("it is swept", func() bool {
		l.put(e, "writer", "")
		return l.number("SELECT COUNT(*) FROM "+l.prefix+"_values WHERE name<>''") == 3
	})
	if v := l.put(e, "row 250", "y"); v.Version <= ahead+250 {
		l.Errorf("version %d after %d", v.Version, ahead+250)
	}
	if string(l.get(e, "kept").Data) != "x" || l.get(e, "young").Version != 0 {
		l.Errorf("stored are %+v and %+v", l.get(e, "kept"), l.get(e, "young"))
	}
}

// The server's clock is behind a version. The next one is larger, and what is answered is the clock.
func valueClockBehind(l *lab) {
	e := l.stores("", "")
	l.put(e, "name", "x")
	const ahead = 1 << 52
	l.do("UPDATE "+l.prefix+"_values SET version=? WHERE name='name'", ahead)
	v, err := e.WriteValue(l.context(), driver.Write{Name: "name", If: ahead, Fence: 7, TTL: time.Hour})
	if err != nil || v.Version != ahead+1 || v.Fence != 7 || time.Since(v.Now).Abs() > time.Hour {
		l.Errorf("the write answered %+v, %v", v, err)
	}
	if now := l.get(e, "name"); now.Version != v.Version || now.TTL <= 0 || now.TTL > time.Hour {
		l.Errorf("stored is %+v", now)
	}
}

// A name that leaves no room for that of the table of values is told when values are used.
func valueLongTable(l *lab) {
	table := strings.Repeat("t", 60)
	e, err := mysqllock.Open(l.context(), l.server.URL("")+"?table="+table, mysqllock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	l.unlock(l.lock(l.clientOn(e, long), "lock"))
	_, err = e.ReadValue(l.context(), "name")
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Invalid || !contains(err, "shorten it to 57") {
		l.Errorf("error is %v", err)
	}
}

// Calls end with their contexts while the server does not answer, and know what may have
// happened.
func valueCancelled(l *lab) {
	e := l.stores("", "")
	l.put(e, "name", "x")
	unlock := l.lockRow("name")
	ctx, cancel := context.WithCancel(l.context())
	write := func() <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := e.WriteValue(ctx, driver.Write{Name: "name", If: driver.AnyVersion})
			result <- err
		}()
		return result
	}
	sent := write()
	l.blockedWrite()
	queued := write()
	time.Sleep(20 * time.Millisecond) // for it to be under way; it ends the same if it is not
	cancel()
	wrote, behind := <-sent, <-queued
	unlock()
	l.fails(wrote, driver.Unknown)
	l.fails(behind, driver.NotApplied)
	if !errors.Is(wrote, context.Canceled) || !errors.Is(behind, context.Canceled) {
		l.Errorf("the calls ended with %v and %v", wrote, behind)
	}
	l.put(e, "name", "y")
}

// The server is killed in the middle of a write. Its outcome is not known, and it did not
// happen; those who wait go on waiting, and versions and numbers go on. A server that is
// read-only refuses.
func TestValuesServerKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e, waiter := l.stores("", ""), l.stores("", "")
	c := l.process()
	v := l.put(e, "name", "before")
	last, err := c.Sequence("invoice").Next(l.context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, waited := l.context(), make(chan error, 1)
	go func() {
		_, err := waiter.AwaitValue(ctx, "other", 0)
		waited <- err
	}()
	l.waitsForValues()
	unlock := l.lockRow("name")
	result := make(chan error, 1)
	go func() {
		_, err := e.WriteValue(ctx, driver.Write{Name: "name", If: v.Version, Data: []byte("after")})
		result <- err
	}()
	l.blockedWrite()
	l.server.Restart()
	l.fails(<-result, driver.Unknown)
	unlock()
	if now := l.get(e, "name"); string(now.Data) != "before" || now.Version != v.Version {
		l.Errorf("what was never committed is stored: %+v", now)
	}
	if next := l.put(e, "name", "after"); next.Version <= v.Version {
		l.Errorf("version %d after %d", next.Version, v.Version)
	}
	if n, err := c.Sequence("invoice").Next(l.context()); err != nil || n <= last {
		l.Errorf("Next is %d after %d (%v)", n, last, err)
	}
	l.put(e, "other", "x")
	if err := <-waited; err != nil {
		l.Errorf("AwaitValue across the restart: %v", err)
	}
	l.do("SET GLOBAL read_only=1")
	reader := "r_" + l.prefix
	l.do("CREATE USER " + reader + "@'%'")
	l.do("GRANT ALL ON app.* TO " + reader + "@'%'")
	_, err = mysqllock.Open(l.context(), "mysql://"+reader+"@"+l.server.Addr()+"/app"+l.query(""), mysqllock.Config{})
	l.do("SET GLOBAL read_only=0")
	l.says(err, err, "read-only")
	writes, err := mysqllock.Open(l.context(), "mysql://"+reader+"@"+l.server.Addr()+"/app"+l.query(""), mysqllock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = writes.Close() })
	before := l.put(writes, "read-only", "x")
	l.do("SET GLOBAL read_only=1")
	_, err = writes.WriteValue(l.context(), driver.Write{Name: "read-only", If: before.Version})
	l.do("SET GLOBAL read_only=0")
	l.fails(err, driver.NotApplied, "read-only")
	l.put(writes, "read-only", "y")
}
