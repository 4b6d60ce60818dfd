//go:build unix

package interoptest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
)

// register is a table of numbers, of which each holder reads the largest and adds the next. It
// only adds, so that no database sees two of them change the same row: an update that is lost
// is a number that is there twice.
type register struct {
	*testing.T
	database
	level
	guard         *fence.SQL
	db            *sql.DB
	fences, table string
	a, b          fence.Lease
}

func newRegister(t *testing.T, d database, l level) *register {
	t.Helper()
	r := &register{T: t, database: d, level: l, guard: d.guard(t), db: d.connect(t)}
	r.fences = strings.Fields(r.guard.DDL())[5]
	r.table = fmt.Sprintf("numbers_%d", tables.Add(1))
	r.a, r.b = fence.Of(lockName, 33), fence.Of(lockName, 34)
	must(t, r.guard.Init(patient(t), r.db))
	execute(t, r.db, "CREATE TABLE "+r.table+" (n INTEGER NOT NULL)", "INSERT INTO "+r.table+" VALUES (0)")
	return r
}

func (r *register) begin() *sql.Tx {
	r.Helper()
	tx, err := r.db.BeginTx(patient(r.T), &sql.TxOptions{Isolation: r.IsolationLevel})
	must(r.T, err)
	r.Cleanup(func() { _ = tx.Rollback() }) // of one that is over it does nothing
	return tx
}

func (r *register) read(tx *sql.Tx) (n int, err error) {
	err = tx.QueryRowContext(patient(r.T), "SELECT max(n) FROM "+r.table).Scan(&n)
	return n, err
}

func (r *register) add(tx *sql.Tx, n int) error {
	_, err := tx.ExecContext(patient(r.T), fmt.Sprintf("INSERT INTO %s VALUES (%d)", r.table, n))
	return err
}

// finish reads, adds and commits, after guard has passed.
func (r *register) finish(tx *sql.Tx, guard error) error {
	n, err := 0, guard
	if err == nil {
		n, err = r.read(tx)
	}
	if err == nil {
		err = r.add(tx, n+1)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		_ = tx.Rollback() // a transaction that has failed may be over
	}
	return err
}

func (r *register) open(tx *sql.Tx, l fence.Lease) error { return r.guard.Open(patient(r.T), tx, l) }

func (r *register) check(tx *sql.Tx, l fence.Lease) error { return r.guard.Check(patient(r.T), tx, l) }

// inBackground runs f and returns when it has ended or waits for a lock on a table, and what
// will say how it ended. SQLite cannot be asked who waits: there, who wants to register does.
func (r *register) inBackground(table string, f func() error) <-chan error {
	r.Helper()
	done := make(chan error, 1)
	result := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := f()
		result <- err
		done <- err
	})
	r.Cleanup(wg.Wait)
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-done:
			return result
		default:
		}
		waiting := r.waits == nil && table == r.fences
		if r.waits != nil {
			var err error
			waiting, err = r.waits(r.db, strings.Trim(table, "`\""))
			must(r.T, err)
		}
		if waiting {
			return result
		}
		if time.Now().After(end) {
			r.Fatalf("within %v it has neither ended nor waited", patience)
		}
	}
}

// numbers returns how many there are, and how many different ones.
func (r *register) numbers() (all, different int) {
	r.Helper()
	must(r.T, r.db.QueryRowContext(patient(r.T), "SELECT count(n), count(DISTINCT n) FROM "+r.table).Scan(&all, &different))
	return all, different
}

func (r *register) wantNumbers(want int) {
	r.Helper()
	if all, different := r.numbers(); all != want || different != want {
		r.Errorf("there are %d numbers, %d of them different, want %d", all, different, want)
	}
}

// repeatable reports whether the database asks for the transaction to be repeated.
func repeatable(err error) bool {
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	var lite *sqlite.Error
	switch {
	case errors.As(err, &pg):
		return pg.Code == "40001" || pg.Code == "40P01"
	case errors.As(err, &my):
		return my.Number == 1213 || my.Number == 1205 || my.Number == 1020
	case errors.As(err, &lite):
		return lite.Code()&0xff == 5
	}
	return false
}

func (r *register) wantRepeatable(err error) {
	r.Helper()
	if !repeatable(err) || !errors.Is(err, holdfast.ErrUnavailable) {
		r.Fatalf("error %v, want one of a transaction that is to be repeated", err)
	}
}

// testDatabase runs what has to hold on every database, at each isolation level.
func testDatabase(t *testing.T, d database) {
	for _, l := range d.levels {
		for name, test := range map[string]func(*register){
			"OpenFirst": testOpenFirst, "ReadFirst": testReadFirst,
			"CheckAfterCommit": testCheckAfterCommit, "CheckOfAnOldSnapshot": testCheckOfAnOldSnapshot,
		} {
			t.Run(l.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(newRegister(t, d, l))
			})
		}
	}
	t.Run("Init", func(t *testing.T) { t.Parallel(); testInit(t, d) })
	t.Run("OpenRace", func(t *testing.T) { t.Parallel(); testOpenRace(t, d) })
	t.Run("OwnColumn", func(t *testing.T) { t.Parallel(); testOwnColumn(t, d) })
}

// testOpenFirst: B opens while a transaction of A has passed its Check. B waits until that is
// over, and then reads what A wrote, at levels with a snapshot at the latest when it repeats
// its transaction.
func testOpenFirst(r *register) {
	must(r.T, r.guard.Open(patient(r.T), r.db, r.a))
	txA := r.begin()
	must(r.T, r.check(txA, r.a))
	increment := func() error {
		tx, err := r.db.BeginTx(patient(r.T), &sql.TxOptions{Isolation: r.IsolationLevel})
		if err != nil {
			return err
		}
		return r.finish(tx, r.open(tx, r.b))
	}
	result := r.inBackground(r.fences, increment)
	select {
	case err := <-result:
		r.Fatalf("B did not wait for the transaction of A: %v", err)
	default:
	}
	must(r.T, r.finish(txA, nil))
	err := <-result
	if r.repeats {
		r.wantRepeatable(err)
		err = increment()
	}
	must(r.T, err)
	r.wantNumbers(3)
}

// testReadFirst: B reads, A adds a number, B opens and adds one. What B has read was not guarded:
// some levels lose an update then. The others notice it themselves.
func testReadFirst(r *register) {
	must(r.T, r.guard.Open(patient(r.T), r.db, r.a))
	txB := r.begin()
	seen, err := r.read(txB)
	must(r.T, err)
	result := r.inBackground(r.table, func() error {
		tx, err := r.db.BeginTx(patient(r.T), &sql.TxOptions{Isolation: r.IsolationLevel})
		if err != nil {
			return err
		}
		return r.finish(tx, r.check(tx, r.a))
	})
	errB := r.open(txB, r.b)
	if errB == nil {
		errB = r.add(txB, seen+1)
	}
	if errB == nil {
		errB = txB.Commit()
	}
	_ = txB.Rollback() // which lets A go on, if that waits
	errA := <-result
	for _, err := range []error{errA, errB} {
		if err != nil && !repeatable(err) {
			r.Fatal(err)
		}
	}
	all, different := r.numbers()
	if lost := all != different; lost != r.loses {
		r.Errorf("of %d numbers %d are different (A: %v, B: %v); the documentation says otherwise", all, different, errA, errB)
	}
	if !r.loses && errA == nil && errB == nil {
		r.Error("nothing was lost, but no transaction failed either")
	}
}

// testCheckAfterCommit: A checks while a transaction of B has registered and not committed. A
// waits: whether it is refused depends on whether B commits.
func testCheckAfterCommit(r *register) {
	must(r.T, r.guard.Open(patient(r.T), r.db, r.a))
	txB := r.begin()
	must(r.T, r.open(txB, r.b))
	check := func() error {
		tx, err := r.db.BeginTx(patient(r.T), &sql.TxOptions{Isolation: r.IsolationLevel})
		if err != nil {
			return err
		}
		return r.finish(tx, r.check(tx, r.a))
	}
	result := r.inBackground(r.fences, check)
	must(r.T, txB.Rollback())
	must(r.T, <-result) // B has never been there

	txB = r.begin()
	must(r.T, r.open(txB, r.b))
	result = r.inBackground(r.fences, check)
	must(r.T, r.finish(txB, nil))
	err := <-result
	if r.repeats {
		r.wantRepeatable(err)
		err = check()
	}
	wantStale(r.T, err, 33, 34)
	r.wantNumbers(3)
}

// testCheckOfAnOldSnapshot: the transaction of A began, and read, before B registered. It sees
// the past; its Check does not.
func testCheckOfAnOldSnapshot(r *register) {
	must(r.T, r.guard.Open(patient(r.T), r.db, r.a))
	txA := r.begin()
	_, err := r.read(txA)
	must(r.T, err)
	must(r.T, r.guard.Open(patient(r.T), r.db, r.b))
	switch err := r.check(txA, r.a); {
	case r.repeats:
		r.wantRepeatable(err)
	case !r.loses && repeatable(err): // those that notice it themselves may do so first
	default:
		wantStale(r.T, err, 33, 34)
	}
	must(r.T, txA.Rollback())
	txA = r.begin()
	wantStale(r.T, r.check(txA, r.a), 33, 34)
}

// testInit: many processes create the table at once, and find out that it is missing before.
func testInit(t *testing.T, d database) {
	guard, db := d.guard(t), d.connect(t)
	err := guard.Open(patient(t), db, fence.Of(lockName, 1))
	if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), "SQL.Init") {
		t.Errorf("without the table: %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := guard.Init(patient(t), db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, guard.Open(patient(t), db, fence.Of(lockName, 1)))
	must(t, guard.Init(patient(t), db))
	must(t, guard.Store(db).Check(patient(t), fence.Of(lockName, 1)))
	ended, cancel := context.WithCancel(patient(t))
	cancel()
	if err := guard.Open(ended, db, fence.Of(lockName, 2)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// testOpenRace: many register at once under a name that is new there. Whoever is let in was the
// largest so far, so the largest of all is.
func testOpenRace(t *testing.T, d database) {
	const most = 30
	guard, db := d.guard(t), d.connect(t)
	must(t, guard.Init(patient(t), db))
	var wg sync.WaitGroup
	for i := int64(1); i <= most; i++ {
		wg.Go(func() {
			err := guard.Open(patient(t), db, fence.Of(lockName, i))
			for repeatable(err) {
				err = guard.Open(patient(t), db, fence.Of(lockName, i))
			}
			if err != nil && (i == most || !errors.Is(err, holdfast.ErrStale)) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	must(t, guard.Store(db).Check(patient(t), fence.Of(lockName, most)))
}

// testOwnColumn: the pattern of the documentation for a fence in a column of the caller's own.
func testOwnColumn(t *testing.T, d database) {
	db, table := d.connect(t), fmt.Sprintf("account_%d", tables.Add(1))
	execute(t, db, "CREATE TABLE "+table+" (id INTEGER NOT NULL, balance INTEGER NOT NULL, fence BIGINT NOT NULL)",
		"INSERT INTO "+table+" VALUES (7, 100, 0)")
	rows := func(statement string, args ...any) int64 {
		t.Helper()
		if d.dialect == fence.PostgreSQL {
			for i := range args {
				statement = strings.Replace(statement, "?", fmt.Sprint("$", i+1), 1)
			}
		}
		result, err := db.ExecContext(patient(t), statement, args...)
		must(t, err)
		n, err := result.RowsAffected()
		must(t, err)
		return n
	}
	open := func(fence int64) int64 {
		return rows("UPDATE "+table+" SET fence = ? WHERE id = ? AND fence <= ?", fence, 7, fence)
	}
	write := func(fence int64, balance int) int64 {
		return rows("UPDATE "+table+" SET balance = ? WHERE id = ? AND fence = ?", balance, 7, fence)
	}
	for i, step := range []struct{ got, want int64 }{
		{open(33), 1}, {write(33, 90), 1}, {write(34, 80), 0}, {open(34), 1}, {write(33, 70), 0}, {open(33), 0}, {write(34, 60), 1},
	} {
		if step.got != step.want {
			t.Errorf("step %d: %d rows, want %d", i, step.got, step.want)
		}
	}
}
