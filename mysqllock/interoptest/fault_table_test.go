package interoptest

import (
	"database/sql"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// The table is emptied, or dropped, while locks are held: they stay exclusive, and fences go on
// from the server's clock.
func faultTableLost(l *lab) {
	c, other := l.process(), l.process()
	last := int64(0)
	for _, text := range []string{"TRUNCATE TABLE ", "DROP TABLE "} {
		held := l.lock(c, "held")
		l.do(text + l.prefix)
		if _, err := other.Mutex("held").TryLock(l.context()); err == nil {
			l.Fatalf("after %s: granted beside a lease", text)
		}
		l.unlock(l.lock(other, "another"))
		l.unlock(held)
		next := l.lock(other, "held")
		if next.Fence() <= held.Fence() || held.Fence() <= last {
			l.Errorf("after %s: fences %d, %d, %d", text, last, held.Fence(), next.Fence())
		}
		last = next.Fence()
		l.unlock(next)
	}
}

// Somebody locks the row of the counter by hand, and then as many tickets are drawn as it stands for:
// nothing is granted any more, what was locked before its fence could be reserved is let go, and what
// was held before stays.
func faultCounterBlocked(l *lab) {
	c := l.client("", "timeout=2s", long)
	held := l.lock(c, "held")
	tx, err := l.admin.BeginTx(l.context(), nil)
	if err != nil {
		l.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(l.context(), "SELECT fence FROM "+l.prefix+" WHERE k='' FOR UPDATE"); err != nil {
		l.Fatal(err)
	}
	l.drawTickets()
	_, err = c.Mutex("name").TryLock(l.context())
	l.says(err, holdfast.ErrUnavailable, "1205")
	if l.holderOf("name") != 0 {
		l.Error("what has no fence is held")
	}
	if err := held.Extend(l.context(), long); err != nil {
		l.Errorf("the other lease: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		l.Fatal(err)
	}
	l.unlock(l.lock(c, "name"))
	l.unlock(held)
}

// A user who must not create the table is told what an administrator has to run; when that was
// done, all is well. On a server that is read-only nothing is granted.
func TestFaultNoRights(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	user := "u_" + l.prefix
	l.do("CREATE USER " + user + "@'%' IDENTIFIED BY 'top/secret'")
	l.do("GRANT SELECT ON app.* TO " + user + "@'%'")
	url := "mysql://" + user + ":top%2Fsecret@" + l.server.Addr() + "/app" + l.query("")
	_, err := mysqllock.Open(l.context(), url, mysqllock.Config{})
	cfg := mysqllock.Config{Table: l.prefix, Prefix: l.prefix + ":"}
	l.says(err, err, "denied", mysqllock.Setup(cfg))
	if contains(err, "secret") {
		l.Errorf("the error has the password: %v", err)
	}
	l.do(firstOf(mysqllock.Setup(cfg), 0))
	l.do(firstOf(mysqllock.Setup(cfg), 1))
	l.do("GRANT SELECT, INSERT, UPDATE, DELETE ON " + l.prefix + " TO " + user + "@'%'")
	e, err := mysqllock.Open(l.context(), url, mysqllock.Config{})
	if err != nil {
		l.Fatal(err)
	}
	c := l.clientOn(e, long)
	l.unlock(l.lock(c, "name"))
	permit, err := c.Semaphore("permits", 2).TryAcquire(l.context(), 1)
	if err != nil {
		l.Fatal(err)
	}
	l.unlock(permit)
	l.do("SET GLOBAL read_only=1") // which holds for this user, and not for the administrator
	_, err = c.Mutex("name").TryLock(l.context())
	_, opened := mysqllock.Open(l.context(), l.server.URL("")+l.query(""), mysqllock.Config{})
	l.do("SET GLOBAL read_only=0")
	l.says(err, holdfast.ErrUnavailable, "read-only")
	l.says(opened, opened, "read-only")
	if l.holderOf("name") != 0 {
		l.Error("what a read-only server refused is held")
	}
	l.unlock(l.lock(c, "name"))

	_, err = mysqllock.Open(l.context(), "mysql://"+user+":wr%2Fong@"+l.server.Addr()+"/app", mysqllock.Config{})
	if err == nil || contains(err, "wr/ong") {
		l.Errorf("with another password: %v", err)
	}
}

// Nothing of the engine's gets into the hands of others who use the DB: neither a lock nor a
// setting. The DB stays open.
func handBack(l *lab) {
	db := l.open(l.server.DSN(""))
	db.SetMaxIdleConns(10)
	for range 3 {
		e, err := mysqllock.New(l.context(), db, mysqllock.Config{Table: l.prefix, Prefix: l.prefix + ":"})
		if err != nil {
			l.Fatal(err)
		}
		c, err := holdfast.New(e, holdfast.Config{TTL: long})
		if err != nil {
			l.Fatal(err)
		}
		holder := l.process()
		held := l.lock(holder, "waited-for")
		w := l.waiter(c, "waited-for")
		l.lock(c, "name")
		l.unlock(held)
		w.granted()
		if n := db.Stats().InUse; n != 2 {
			l.Errorf("%d connections are in use, want 2", n)
		}
		if err := c.Close(); err != nil {
			l.Fatal(err)
		}
		if s := db.Stats(); s.InUse != 0 || s.OpenConnections != 0 {
			l.Errorf("%d connections are left, %d in use", s.OpenConnections, s.InUse)
		}
		l.eventually("the locks are free", func() bool { return l.holderOf("name")+l.holderOf("waited-for") == 0 })
		var timeout, standard int
		var zone sql.NullString
		if err := db.QueryRow("SELECT @@SESSION.wait_timeout, @@GLOBAL.wait_timeout, @@time_zone").Scan(&timeout, &standard, &zone); err != nil {
			l.Fatal(err)
		}
		if timeout != standard || zone.String != "SYSTEM" {
			l.Errorf("a connection of the DB has wait_timeout %d and time zone %s", timeout, zone.String)
		}
		db.SetMaxIdleConns(0)
		db.SetMaxIdleConns(10)
	}
}

// drawTickets has others draw so many tickets that the next fence has to be reserved.
func (l *lab) drawTickets() { l.Helper(); l.do("DO BENCHMARK(5000, UUID_SHORT())") }
