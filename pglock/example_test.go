package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"log"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/pglock"
)

// A lock in the database that a program has open already, and the check of its fence in the
// same database: a holder that was paused past the end of its lease changes nothing.
func Example() {
	ctx := context.Background()
	db, err := sql.Open("pgx", "postgres://app:password@127.0.0.1:5432/app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	eng, err := pglock.New(ctx, db, pglock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(eng, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()

	err = hf.Mutex("account:7").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		// The fence is shown before the first read: whoever had the lock before can write no
		// more from then on.
		done, err := db.ExecContext(ctx, "UPDATE account SET fence = $1 WHERE id = 7 AND fence < $1", l.Fence())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, holdfast.ErrStale)
		}
		// Read, think, and write while nobody else came.
		_, err = db.ExecContext(ctx, "UPDATE account SET balance = balance - 10 WHERE id = 7 AND fence = $1", l.Fence())
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}

// A write that only the latest holder can make: package fence keeps the fence of every name in the
// database that is written to. The new holder registers its own in the transaction that then reads and
// writes, so whoever had the lock before is refused from then on.
func Example_fenceSQL() {
	ctx := context.Background()
	var db *sql.DB
	var hf *holdfast.Client // on db
	guard, err := fence.NewSQL(fence.PostgreSQL, fence.SQLConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if err := guard.Init(ctx, db); err != nil { // once: it makes the table
		log.Fatal(err)
	}
	err = hf.Mutex("account-7").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := guard.Open(ctx, tx, l); err != nil {
			return err
		}
		var balance int
		if err := tx.QueryRowContext(ctx, "SELECT balance FROM account WHERE id = 7").Scan(&balance); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = $1 WHERE id = 7", balance-10); err != nil {
			return err
		}
		return tx.Commit()
	})
	if errors.Is(err, holdfast.ErrStale) {
		log.Print("somebody else has the account by now: lock again, and start over")
	}
}

// A lock that lives with a transaction: it works through any pooler, and needs no renewal.
func ExampleInTx() {
	ctx := context.Background()
	db, err := sql.Open("pgx", "postgres://app:password@127.0.0.1:5432/app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback()
	fence, err := pglock.InTx(ctx, tx, "invoices", pglock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO invoice (fence) VALUES ($1)", fence); err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
}
