//go:build unix

package interoptest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/internal/testserver"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// database is one that tests share, and what its kind is like.
type database struct {
	kind    string
	dialect fence.Dialect
	driver  string
	source  string
	levels  []level

	// waits reports whether a statement that names the table waits for a lock. Nil where
	// the database cannot be asked.
	waits func(db *sql.DB, table string) (bool, error)
}

// level is an isolation level, and what becomes of an Open in two situations.
type level struct {
	sql.IsolationLevel

	// repeats: an Open that had to wait fails, and its transaction has to be repeated.
	repeats bool

	// loses: who reads before it opens, in one transaction, loses the update.
	loses bool
}

func newPostgreSQL(t *testing.T) database {
	s := testserver.Postgres(t, testserver.PostgresOptions{})
	return database{
		kind: "PostgreSQL", dialect: fence.PostgreSQL, driver: "pgx", source: s.URL(),
		levels: []level{
			{IsolationLevel: sql.LevelReadCommitted, loses: true},
			{IsolationLevel: sql.LevelRepeatableRead, repeats: true},
			{IsolationLevel: sql.LevelSerializable, repeats: true},
		},
		waits: func(db *sql.DB, table string) (waits bool, err error) {
			err = db.QueryRow("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1", "%"+table+"%").Scan(&waits)
			return waits, err
		},
	}
}

func newMariaDB(t *testing.T) database {
	s := testserver.MariaDB(t, testserver.MariaDBOptions{})
	return database{
		kind: "MariaDB", dialect: fence.MySQL, driver: "mysql", source: s.DSN("") + "?",
		levels: []level{
			{IsolationLevel: sql.LevelReadUncommitted, loses: true},
			{IsolationLevel: sql.LevelReadCommitted, loses: true},
			{IsolationLevel: sql.LevelRepeatableRead, loses: true},
			{IsolationLevel: sql.LevelSerializable},
		},
		waits: func(db *sql.DB, table string) (bool, error) {
			// The table INNODB_TRX is a copy, which is not renewed while many look at it.
			var kind, name, status string
			err := db.QueryRow("SHOW ENGINE INNODB STATUS").Scan(&kind, &name, &status)
			return slices.ContainsFunc(strings.Split(status, "---TRANSACTION"), func(tx string) bool {
				return strings.Contains(tx, "LOCK WAIT") && strings.Contains(tx, table)
			}), err
		},
	}
}

func newSQLite(t *testing.T) database {
	return database{
		kind: "SQLite", dialect: fence.SQLite, driver: "sqlite",
		source: "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)",
		levels: []level{{IsolationLevel: sql.LevelDefault}},
	}
}

// connectSQL returns the resource of a kind of database: a row of a table.
func connectSQL(kind, source string) (resource, error) {
	for _, d := range []database{
		{kind: "PostgreSQL", dialect: fence.PostgreSQL, driver: "pgx"},
		{kind: "MariaDB", dialect: fence.MySQL, driver: "mysql"},
		{kind: "SQLite", dialect: fence.SQLite, driver: "sqlite"},
	} {
		if d.kind != kind {
			continue
		}
		guard, err := fence.NewSQL(d.dialect, fence.SQLConfig{})
		if err != nil {
			return nil, err
		}
		db, err := sql.Open(d.driver, source)
		return &sqlResource{guard: guard, db: db}, err
	}
	return nil, fmt.Errorf("there is no resource of the kind %q", kind)
}

type sqlResource struct {
	guard *fence.SQL
	db    *sql.DB
	tx    *sql.Tx // of the steps
}

func (r *sqlResource) open(ctx context.Context, l fence.Lease) error {
	return r.guard.Open(ctx, r.db, l)
}

func (r *sqlResource) Close() error { return r.db.Close() }

func (r *sqlResource) read(ctx context.Context, _ fence.Lease) (n int, err error) {
	err = r.db.QueryRowContext(ctx, "SELECT n FROM counter").Scan(&n)
	return n, err
}

func (r *sqlResource) write(ctx context.Context, l fence.Lease, value int) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		if err := r.guard.Check(ctx, tx, l); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE counter SET n = %d", value))
		return err
	})
}

func (r *sqlResource) blind(ctx context.Context, l fence.Lease, value int) error {
	return r.within(ctx, func(tx *sql.Tx) error {
		if err := r.guard.Open(ctx, tx, l); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE counter SET n = %d", value))
		return err
	})
}

func (r *sqlResource) within(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// stepper writes in steps: check, update, commit.
func (r *sqlResource) stepper() stepper {
	return func(ctx context.Context, step string, l fence.Lease, value int) (err error) {
		switch step {
		case "check":
			if r.tx, err = r.db.BeginTx(ctx, nil); err != nil {
				return err
			}
			return r.guard.Check(ctx, r.tx, l)
		case "update":
			_, err = r.tx.ExecContext(ctx, fmt.Sprintf("UPDATE counter SET n = %d", value))
			return err
		case "commit":
			return r.tx.Commit()
		}
		return fmt.Errorf("there is no step %q", step)
	}
}

func (d database) connect(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, d.source)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

var tables atomic.Int64

// guard returns a guard with a table of its own, which is not there yet.
func (d database) guard(t *testing.T) *fence.SQL {
	t.Helper()
	guard, err := fence.NewSQL(d.dialect, fence.SQLConfig{Table: fmt.Sprintf("fences_%d", tables.Add(1))})
	must(t, err)
	return guard
}

// execute runs statements, one at a time.
func execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(patient(t), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// counter makes the tables of the resource, in a database of its own.
func (d database) counter(t *testing.T) string {
	t.Helper()
	switch d.dialect {
	case fence.SQLite:
		d = newSQLite(t)
	default:
		name := fmt.Sprintf("counter_%d", tables.Add(1))
		execute(t, d.connect(t), "CREATE DATABASE "+name)
		d.source = strings.NewReplacer("/postgres?", "/"+name+"?", "/app?", "/"+name+"?").Replace(d.source)
	}
	db := d.connect(t)
	guard, err := fence.NewSQL(d.dialect, fence.SQLConfig{})
	must(t, err)
	must(t, guard.Init(patient(t), db))
	execute(t, db, "CREATE TABLE counter (n INTEGER NOT NULL)", "INSERT INTO counter VALUES (0)")
	return d.source
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	db := newPostgreSQL(t)
	common(t, db.kind, db.counter)
	t.Run("HolderFrozenInATransaction", func(t *testing.T) {
		t.Parallel()
		testFrozenInATransaction(t, db)
	})
	testDatabase(t, db)
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	db := newMariaDB(t)
	common(t, db.kind, db.counter)
	testDatabase(t, db)
	t.Run("innodb_snapshot_isolation", func(t *testing.T) { // the default from 11.6 on
		t.Parallel()
		db := db
		db.source += "&innodb_snapshot_isolation=ON"
		db.levels = []level{{IsolationLevel: sql.LevelRepeatableRead}}
		testDatabase(t, db)
	})
	for _, setting := range []string{"clientFoundRows=true", "interpolateParams=true", "charset=latin1"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			db := db
			db.source += "&" + setting
			testRules(t, db.kind, db.counter(t))
		})
	}
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	db := newSQLite(t)
	common(t, db.kind, db.counter)
	testDatabase(t, db)
}

// testFrozenInATransaction: the holder is frozen between its Check and its commit. The next one
// cannot register meanwhile. The server ends a session that idles in a transaction, and with
// it what it has written; then the next one goes on, and the frozen one's commit fails.
func testFrozenInATransaction(t *testing.T, db database) {
	place := db.counter(t)
	locks := testserver.Redis(t, testserver.RedisOptions{})
	r := reach(t, db.kind, place)
	conn := r.(*sqlResource).db
	var name string
	must(t, conn.QueryRow("SELECT current_database()").Scan(&name))
	execute(t, conn, "ALTER DATABASE "+name+" SET idle_in_transaction_session_timeout = '2s'")

	c := startHolder(t, locks, db.kind, place)
	c.says("done", "check")
	c.says("done", "update")
	c.signal(syscall.SIGSTOP)
	l := lock(t, client(t, locks))
	ctx := patient(t)
	must(t, r.open(ctx, l)) // waits for the server to end the frozen one's session
	value, err := r.read(ctx, l)
	must(t, err)
	must(t, r.write(ctx, l, value+10))
	c.signal(syscall.SIGCONT)
	if got := c.tell("commit"); got == "done" {
		t.Error("the commit of the frozen holder was accepted")
	}
	if value, err := r.read(ctx, l); err != nil || value != 10 {
		t.Errorf("the number is %d (%v), want 10", value, err)
	}
}
