package fence

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/holdfast-go/holdfast"
)

// Dialect is the kind of database that a [SQL] guard works in.
type Dialect uint8

// The dialects. There is no default: the wrong one would fail at the first write only.
const (
	PostgreSQL Dialect = iota + 1 // 9.5 or later
	MySQL                         // 5.7 or later, and MariaDB 10.3 or later
	SQLite                        // 3.24 or later
)

// String returns the name of the product.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	case SQLite:
		return "SQLite"
	}
	return fmt.Sprintf("Dialect(%d)", uint8(d))
}

// DefaultTable is the default of SQLConfig.Table.
const DefaultTable = "holdfast_fences"

// SQLConfig configures a [SQL] guard. The zero value is ready for use.
type SQLConfig struct {
	// Table is where fences are kept, in the database that the lock protects: "table" or
	// "schema.table", each 1 to 63 letters, digits and underscores that do not begin with a
	// digit, in the case that it has there. Default DefaultTable. Guards of one table share
	// their fences.
	Table string

	_ struct{}
}

// SQL guards a database: a table in it has one row for each name, with the largest fence that
// was shown. It holds no connection, and is safe for concurrent use.
//
// Open and Check change that row, and so lock it until their transaction ends: whoever wants to
// register a newer fence waits for the transactions that have passed a Check, and reads what
// they have written. That makes check and write one step, if the writes are in the transaction
// of the Check. The wait has no bound but the context's and the server's: where a holder may be
// paused inside of a transaction, let the server end those that idle (PostgreSQL:
// idle_in_transaction_session_timeout, MariaDB: idle_write_transaction_timeout).
//
// # Isolation levels
//
// Open comes first in its transaction, or before it: what a transaction has read before its Open
// is not guarded. Then every level is safe. Otherwise, where a holder reads, opens and writes in
// one transaction:
//
//   - READ COMMITTED loses updates. So does REPEATABLE READ of MySQL and MariaDB, their default.
//   - REPEATABLE READ and SERIALIZABLE of PostgreSQL, SERIALIZABLE of MySQL, and SQLite notice
//     it: one of the transactions fails. Do not build on it.
//
// At the levels of PostgreSQL above READ COMMITTED an Open that had to wait fails with
// SQLSTATE 40001, as every change of a row that was changed meanwhile; deadlocks and
// SQLITE_BUSY are failures of the same kind. They match holdfast.ErrUnavailable, and errors.As
// finds the driver's error; roll back and repeat the transaction.
//
// Fences are as durable as the data, since they are in the same commits: a standby that takes
// over without the last of them has neither. Reads that go to a replica are not guarded.
type SQL struct {
	dialect          Dialect
	table            string // quoted
	open, check, get string
}

// Execer runs statements: *sql.DB, *sql.Conn and *sql.Tx.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

var tablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$`)

// NewSQL returns a guard for databases of that dialect. It does not connect to anything. What is
// wrong with its arguments is reported as one holdfast.ErrInvalid.
func NewSQL(dialect Dialect, cfg SQLConfig) (*SQL, error) {
	if cfg.Table == "" {
		cfg.Table = DefaultTable
	}
	var errs violations
	errs.check(dialect < PostgreSQL || dialect > SQLite,
		"dialect is %d: use fence.PostgreSQL, fence.MySQL or fence.SQLite", uint8(dialect))
	errs.check(!tablePattern.MatchString(cfg.Table),
		"Table is %.140q: it must be table or schema.table, each 1 to 63 letters, digits and underscores", cfg.Table)
	if len(errs) > 0 {
		return nil, invalid("new fence.SQL", "", errs...)
	}
	return newSQL(dialect, cfg.Table), nil
}

// newSQL writes the statements.
//
// The column uses only counts, so that every Open and Check that is accepted makes a new version
// of the row. Under PostgreSQL's REPEATABLE READ only such a change makes an Open fail whose
// snapshot is older than the write that it waited for; a row that was merely locked would let
// it pass. And MySQL counts a row that it did not have to change as not affected.
func newSQL(dialect Dialect, table string) *SQL {
	quote := `"`
	if dialect == MySQL {
		quote = "`"
	}
	s := &SQL{dialect: dialect}
	s.table = quote + strings.Join(strings.Split(table, "."), quote+"."+quote) + quote

	const numbered = `INSERT INTO %s AS f (name, fence, uses) VALUES ($1, $2, 1)` +
		` ON CONFLICT (name) DO UPDATE SET fence = excluded.fence, uses = f.uses + 1 WHERE f.fence <= excluded.fence`
	// MySQL has no condition there, and how many rows it counts depends on how the client is
	// connected. What LAST_INSERT_ID was given comes back with the reply instead: the larger
	// of both fences, which is the one that is registered then. Assignments go from left to
	// right, so uses is compared with the fence before.
	const lastID = `INSERT INTO %s (name, fence, uses) VALUES (?, LAST_INSERT_ID(?), 1)` +
		` ON DUPLICATE KEY UPDATE uses = uses + (fence <= ?), fence = LAST_INSERT_ID(GREATEST(fence, ?))`
	s.open = fmt.Sprintf(numbered, s.table)
	s.check = fmt.Sprintf(`UPDATE %s SET uses = uses + 1 WHERE name = $1 AND fence = $2`, s.table)
	s.get = fmt.Sprintf(`SELECT fence FROM %s WHERE name = $1`, s.table)
	if dialect == MySQL {
		s.open = fmt.Sprintf(lastID, s.table)
		s.get += " FOR UPDATE" // a plain SELECT could show what was there when the transaction began
	}
	if dialect != PostgreSQL {
		for _, text := range []*string{&s.open, &s.check, &s.get} {
			*text = strings.NewReplacer("$1", "?", "$2", "?").Replace(*text)
		}
	}
	return s
}

// DDL returns the statement that creates the table where it is not there, for those who manage
// their schema themselves. Its user needs SELECT, INSERT and UPDATE on the table.
func (s *SQL) DDL() string {
	name, number, end := `text COLLATE "C"`, "bigint", ""
	switch s.dialect {
	case MySQL:
		// Bytes, as other types fold case or ignore spaces at the end. Other engines than
		// InnoDB need not have transactions.
		name, end = "VARBINARY(512)", " ENGINE=InnoDB"
	case SQLite:
		name, number = "TEXT", "INTEGER"
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (\n\tname %s NOT NULL PRIMARY KEY,\n\tfence %s NOT NULL,\n\tuses %s NOT NULL\n)%s",
		s.table, name, number, number, end)
}

// Init creates the table where it is not there. It may be called by any number of processes at
// once. Do not pass a transaction: MySQL commits it.
func (s *SQL) Init(ctx context.Context, db Execer) error {
	const op = "fence.SQL init"
	_, err := db.ExecContext(ctx, s.DDL())
	if err == nil {
		return nil
	}
	// PostgreSQL lets one of two that create a table at once fail.
	var n int
	if db.QueryRowContext(ctx, "SELECT count(*) FROM "+s.table+" WHERE 1 = 0").Scan(&n) == nil {
		return nil
	}
	return failed(op, "", holdfast.Unknown, err)
}

// Open registers the fence of the lease, unless a larger one is registered for its name: then
// it fails with holdfast.ErrStale. It is one statement.
//
// With a *sql.Tx it counts once that commits, and keeps newer holders waiting until then: as
// the first statement of a transaction it guards all that follows in it, without a Check. With
// a *sql.DB it counts at once; then every transaction that writes needs a Check.
func (s *SQL) Open(ctx context.Context, db Execer, l Lease) error {
	const op = "fence.SQL open"
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	if s.dialect == MySQL {
		r, err := db.ExecContext(ctx, s.open, []byte(n.name), n.fence, n.fence, n.fence)
		if err != nil {
			return s.failed(op, n, err)
		}
		stored, err := r.LastInsertId()
		switch {
		case err != nil:
			return s.failed(op, n, err)
		case stored != n.fence:
			return stale(op, n, stored)
		}
		return nil
	}
	return s.expectRow(ctx, op, db, n, s.open)
}

// Check returns nil if the fence of the lease is the registered one, and keeps newer holders
// from registering until tx ends; so what tx writes is the work of the present holder. Otherwise
// it fails with holdfast.ErrStale, and tx is to be rolled back. It may come before the writes
// or after them. It is one statement.
//
// It guards the writes of tx and no others, and the readings since Open.
func (s *SQL) Check(ctx context.Context, tx *sql.Tx, l Lease) error {
	const op = "fence.SQL check"
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	return s.expectRow(ctx, op, tx, n, s.check)
}

// expectRow runs a statement that changes the row of the name if the fence is good enough.
func (s *SQL) expectRow(ctx context.Context, op string, db Execer, n numbers, statement string) error {
	r, err := db.ExecContext(ctx, statement, s.key(n), n.fence)
	if err != nil {
		return s.failed(op, n, err)
	}
	rows, err := r.RowsAffected()
	if err != nil {
		return s.failed(op, n, err)
	}
	if rows == 1 {
		return nil
	}
	var stored int64
	err = db.QueryRowContext(ctx, s.get, s.key(n)).Scan(&stored)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s.failed(op, n, err)
	}
	return stale(op, n, stored)
}

// key returns the name as the table's column compares it: byte by byte.
func (s *SQL) key(n numbers) any {
	if s.dialect == MySQL {
		return []byte(n.name)
	}
	return n.name
}

// missingTable is how PostgreSQL, MySQL and SQLite say it. Their drivers' errors have codes, but
// are not to be imported here.
var missingTable = regexp.MustCompile(`relation .* does not exist|[Tt]able .* doesn't exist|no such table`)

func (s *SQL) failed(op string, n numbers, err error) error {
	if missingTable.MatchString(err.Error()) {
		err = fmt.Errorf("%w: SQL.Init creates the table, SQL.DDL returns the statement", err)
	}
	return failed(op, n.name, holdfast.Unknown, err)
}

// Store returns the guard as a [Store] in db, for [HTTP] on several servers. Its Check is over
// when it returns, and guards no write: handlers that write to db call SQL.Check in their own
// transaction as well.
func (s *SQL) Store(db *sql.DB) Store { return sqlStore{s, db} }

type sqlStore struct {
	guard *SQL
	db    *sql.DB
}

func (s sqlStore) Open(ctx context.Context, l Lease) error { return s.guard.Open(ctx, s.db, l) }

func (s sqlStore) Check(ctx context.Context, l Lease) error {
	n, err := read(ctx, "fence.SQL check", l)
	if err != nil {
		return err
	}
	return s.guard.expectRow(ctx, "fence.SQL check", s.db, n, s.guard.check)
}
