package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// amount is what every invoice adds to the total, in cents.
const amount = 100

// The tables. An invoice's number is deliberately not unique: the database must not do the
// work of the lock.
const schema = `
CREATE TABLE ledger (name TEXT PRIMARY KEY, value INTEGER NOT NULL, fence INTEGER NOT NULL);
CREATE TABLE invoices (number INTEGER NOT NULL, instance INTEGER NOT NULL, fence INTEGER NOT NULL);
INSERT INTO ledger VALUES ('last number', 0, 0), ('total', 0, 0);`

var errStale = errors.New("a later holder of the lock has been here")

// store is the database of the cluster, as one process sees it.
type store struct {
	db *sql.DB

	register, read, write, insert *sql.Stmt
}

// open opens the database for any strategy: they differ in the lock and in nothing else.
//
// The journal is the one that lets readers and a writer work at the same time. The disk is
// not waited for: the demo is about who comes when, not about power cuts. SQLite lets one
// connection write at a time and makes the others look again every few milliseconds, so an
// instance has one connection, for which its requests queue statement by statement.
func open(path string) (*sql.DB, error) {
	u := fileURL(path)
	u.RawQuery = "_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)"
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func createStore(ctx context.Context, path string) error {
	db, err := open(path)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, schema)
	return errors.Join(err, db.Close())
}

func openStore(ctx context.Context, path string) (*store, error) {
	db, err := open(path)
	if err != nil {
		return nil, err
	}
	s := &store{db: db}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&s.register, `UPDATE ledger SET fence = ? WHERE fence < ?`},
		{&s.read, `SELECT value FROM ledger WHERE name = ?`},
		{&s.write, `UPDATE ledger SET value = ? WHERE name = ? AND fence = ?`},
		{&s.insert, `INSERT INTO invoices VALUES (?, ?, ?)`},
	} {
		if *p.stmt, err = db.PrepareContext(ctx, p.text); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return s, nil
}

func (s *store) close() error { return s.db.Close() }

// issue does both tasks: it takes the next number, and adds the amount to the total. Each is
// a read, an addition and a write, as programs without a transaction do it, so that another
// request may come in between, unless a lock keeps it out.
//
// A holder of a lock may be paused for longer than its lease, and write when the lock is
// somebody else's. So it leaves its fence at the rows before it reads them, and writes only
// while the fence is still its own.
func (s *store) issue(ctx context.Context, instance int, fence int64) (int64, error) {
	if fence > 0 {
		if err := checked(s.register.ExecContext(ctx, fence, fence)); err != nil {
			return 0, fmt.Errorf("registering fence %d: %w", fence, err)
		}
	}
	var number, total int64
	if err := s.read.QueryRowContext(ctx, "last number").Scan(&number); err != nil {
		return 0, err
	}
	if err := s.read.QueryRowContext(ctx, "total").Scan(&total); err != nil {
		return 0, err
	}
	number++
	total += amount
	if err := checked(s.write.ExecContext(ctx, number, "last number", fence)); err != nil {
		return 0, err
	}
	if err := checked(s.write.ExecContext(ctx, total, "total", fence)); err != nil {
		return 0, err
	}
	_, err := s.insert.ExecContext(ctx, number, instance, fence)
	return number, err
}

// checked reports a statement that found its rows in a later holder's hands.
func checked(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return errStale
}

// lostUpdates returns how many invoices are missing from the total.
func lostUpdates(ctx context.Context, path string) (int64, error) {
	db, err := open(path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var invoices, total int64
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM invoices), value FROM ledger WHERE name = 'total'`).
		Scan(&invoices, &total)
	return max(0, invoices-total/amount), err
}
