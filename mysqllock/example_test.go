package mysqllock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// With a URL. The program also imports github.com/go-sql-driver/mysql, and mysqllock, which makes
// the scheme known.
func Example() {
	ctx := context.Background()
	hf, err := holdfast.Open(ctx, "mysql://app:secret@127.0.0.1:3306/billing", holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	err = hf.Mutex("invoice-2026").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		return ctx.Err() // the work, which stops when ctx ends
	})
	switch {
	case errors.Is(err, holdfast.ErrLost):
		log.Print("stopped: the lock was lost while we held it")
	case err != nil:
		log.Print(err)
	}
}

// On the DB that the program has open already.
func ExampleNew() {
	ctx := context.Background()
	db, err := sql.Open("mysql", "app:secret@tcp(127.0.0.1:3306)/billing")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	e, err := mysqllock.New(ctx, db, mysqllock.Config{Connections: 2})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // before the DB is closed
}

// A write that only the latest holder can make: the fence is checked in the very statement, in
// the same database. The new holder enters its fence before its first read.
func ExampleNew_fence() {
	ctx := context.Background()
	var db *sql.DB
	var hf *holdfast.Client // on db
	err := hf.Mutex("account-7").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		if _, err := db.ExecContext(ctx, "UPDATE account SET fence=GREATEST(fence,?) WHERE id=7", l.Fence()); err != nil {
			return err
		}
		var balance int
		if err := db.QueryRowContext(ctx, "SELECT balance FROM account WHERE id=7").Scan(&balance); err != nil {
			return err
		}
		result, err := db.ExecContext(ctx, "UPDATE account SET balance=? WHERE id=7 AND fence=?", balance-10, l.Fence())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("somebody else has the account by now: %w", errors.Join(holdfast.ErrStale, err))
		}
		return nil
	})
	if err != nil {
		log.Print(err)
	}
}

// A write that only the latest holder can make: package fence keeps the fence of every name in the
// database that is written to. The new holder registers its own in the transaction that then reads and
// writes, so whoever had the lock before is refused from then on.
func Example_fenceSQL() {
	ctx := context.Background()
	var db *sql.DB
	var hf *holdfast.Client // on db
	guard, err := fence.NewSQL(fence.MySQL, fence.SQLConfig{})
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
		if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = ? WHERE id = 7", balance-10); err != nil {
			return err
		}
		return tx.Commit()
	})
	if errors.Is(err, holdfast.ErrStale) {
		log.Print("somebody else has the account by now: lock again, and start over")
	}
}

// What an administrator runs where the program's user must not create tables.
func ExampleSetup() {
	for statement := range strings.SplitSeq(mysqllock.Setup(mysqllock.Config{Table: "ops.locks"}), ";\n") {
		first, _, _ := strings.Cut(statement, " (")
		fmt.Println(first)
	}
	// Output:
	// CREATE TABLE IF NOT EXISTS `ops`.`locks`
	// INSERT IGNORE INTO `ops`.`locks`
	// CREATE TABLE IF NOT EXISTS `ops`.`locks_values`
	// INSERT IGNORE INTO `ops`.`locks_values`
	// GRANT SELECT, INSERT, UPDATE, DELETE ON `ops`.`locks` TO 'user'@'%'
	// GRANT SELECT, INSERT, UPDATE, DELETE ON `ops`.`locks_values` TO 'user'@'%';
}
