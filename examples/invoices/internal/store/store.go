// Package store keeps the invoices, and the last number that was given, in PostgreSQL or SQLite.
//
// It leaves undone on purpose what a database can do here by itself: numbers have no unique
// index, and the row with the last number is not locked by who reads it. Which number an invoice
// gets, and who may decide that at the same time, is up to the strategies.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/fence"
)

// ErrNotFound says that there is no invoice for a key.
var ErrNotFound = errors.New("no invoice has this key")

// ErrIssued says that there is an invoice for the key already: nothing was written.
var ErrIssued = errors.New("an invoice with this key was issued before")

// Store is the database as one instance sees it. It is safe for concurrent use.
type Store struct {
	db       *sql.DB
	dialect  dialect
	instance int
	guard    *fence.SQL
}

// Open connects to the database that rawURL names, postgres://user:password@host/database or
// sqlite:///path/to/file, and creates what is missing in it. Invoices are stored as the work of
// that instance. The password appears in no error.
func Open(ctx context.Context, rawURL string, instance int) (*Store, error) {
	scheme, _, _ := strings.Cut(rawURL, "://")
	d, ok := dialects[scheme]
	if !ok {
		return nil, errors.New("the database's URL has to begin with postgres:// or sqlite://")
	}
	db, err := d.connect(rawURL, fmt.Sprintf("invoices %d", instance))
	if err != nil {
		return nil, err
	}
	guard, err := fence.NewSQL(d.fences, fence.SQLConfig{})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Store{db: db, dialect: d, instance: instance, guard: guard}
	if err := s.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the tables: %w", err), db.Close())
	}
	return s, nil
}

// Close closes all connections.
func (s *Store) Close() error { return s.db.Close() }

// Ping returns nil if the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }

// create makes the tables where they are missing, one instance after the other.
func (s *Store) create(ctx context.Context) error {
	return s.Write(ctx, func(tx *Tx) error {
		for _, statement := range append(s.dialect.schema, s.guard.DDL()) {
			if _, err := tx.tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// Last returns the last number that was given. Another one may have been given when it
// arrives.
func (s *Store) Last(ctx context.Context) (last int64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT last FROM ledger`).Scan(&last)
	return last, err
}

// Highest returns the highest number of an invoice, 0 where there is none.
func (s *Store) Highest(ctx context.Context) (n int64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM invoices`).Scan(&n)
	return n, err
}

const columns = `id, number, customer, cents, idempotency_key, instance, fence, issued`

func scan(row interface{ Scan(...any) error }) (i Invoice, err error) {
	var micros int64
	err = row.Scan(&i.ID, &i.Number, &i.Customer, &i.Cents, &i.Key, &i.Instance, &i.Fence, &micros)
	i.Issued = time.UnixMicro(micros).UTC()
	return i, err
}

// Find returns the invoice that was issued for a key, or fails with ErrNotFound.
func (s *Store) Find(ctx context.Context, key string) (Invoice, error) {
	i, err := scan(s.db.QueryRowContext(ctx, s.dialect.sql(`SELECT `+columns+` FROM invoices WHERE idempotency_key = $1`), key))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return i, err
}

// List returns up to limit invoices in the order of their ids, beginning after one.
func (s *Store) List(ctx context.Context, after int64, limit int) ([]Invoice, error) {
	rows, err := s.db.QueryContext(ctx, s.dialect.sql(`SELECT `+columns+` FROM invoices WHERE id > $1 ORDER BY id LIMIT $2`), after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Invoice{}
	for rows.Next() {
		i, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, rows.Err()
}

// Write calls f with a transaction, and commits it if f returns nil. It is rolled back when ctx
// ends. After an error of the commit itself what f wrote may be there: ask with Find.
func (s *Store) Write(ctx context.Context, f func(*Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if err := f(&Tx{store: s, tx: tx}); err != nil {
		return err
	}
	return tx.Commit()
}

// Tx is a transaction of [Store.Write].
type Tx struct {
	store *Store
	tx    *sql.Tx
}

// Guard registers the fence of a lease, and fails with holdfast.ErrStale where a later holder
// has. As the first step of a transaction it makes all of it the work of that holder: a later
// one waits, in its own Guard, until this transaction has ended.
func (t *Tx) Guard(ctx context.Context, l fence.Lease) error {
	return t.store.guard.Open(ctx, t.tx, l)
}

// Ledger returns the last number that was given, and how often the row has changed.
func (t *Tx) Ledger(ctx context.Context) (last, version int64, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT last, version FROM ledger`).Scan(&last, &version)
	return last, version, err
}

// SetLast writes down the last number, whatever is there.
func (t *Tx) SetLast(ctx context.Context, last int64) error {
	_, err := t.tx.ExecContext(ctx, t.store.dialect.sql(`UPDATE ledger SET last = $1, version = version + 1`), last)
	return err
}

// SetLastIf does so if nobody changed the row since it had that version, and reports whether.
func (t *Tx) SetLastIf(ctx context.Context, last, version int64) (bool, error) {
	r, err := t.tx.ExecContext(ctx, t.store.dialect.sql(`UPDATE ledger SET last = $1, version = version + 1 WHERE version = $2`), last, version)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// Insert stores an invoice with that number, or fails with ErrIssued. Of several that come with
// one key at the same time, one is stored. fence is 0 where it was not issued under a lease.
func (t *Tx) Insert(ctx context.Context, r Request, number, fence int64) (Invoice, error) {
	i := Invoice{
		Number: number, Customer: r.Customer, Cents: r.Cents, Key: r.Key,
		Instance: t.store.instance, Fence: fence, Issued: time.Now().UTC().Truncate(time.Microsecond),
	}
	err := t.tx.QueryRowContext(ctx, t.store.dialect.sql(`INSERT INTO invoices (number, customer, cents, idempotency_key, instance, fence, issued)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (idempotency_key) DO NOTHING RETURNING id`),
		i.Number, i.Customer, i.Cents, i.Key, i.Instance, i.Fence, i.Issued.UnixMicro()).Scan(&i.ID)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrIssued
	}
	return i, err
}
