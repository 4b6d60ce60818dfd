package store

import (
	"database/sql"
	"errors"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/holdfast-go/holdfast/fence"
)

// dialect is where the databases differ.
type dialect struct {
	fences  fence.Dialect
	connect func(rawURL, application string) (*sql.DB, error)
	schema  []string // in one transaction
	sql     func(string) string
}

var dialects = map[string]dialect{"postgres": postgres, "postgresql": postgres, "sqlite": sqlite}

// connections is how many an instance has to its database at most.
const connections = 8

var postgres = dialect{
	fences:  fence.PostgreSQL,
	connect: connectPostgres,
	sql:     func(text string) string { return text },
	schema: []string{
		// One of two who create a table at once would fail.
		`SELECT pg_advisory_xact_lock(7350216894)`,
		`CREATE TABLE IF NOT EXISTS ledger (last bigint NOT NULL, version bigint NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS invoices (
			id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			number bigint NOT NULL,
			customer text NOT NULL,
			cents bigint NOT NULL,
			idempotency_key text NOT NULL UNIQUE,
			instance integer NOT NULL,
			fence bigint NOT NULL,
			issued bigint NOT NULL)`,
		`CREATE INDEX IF NOT EXISTS invoices_number ON invoices (number)`,
		`INSERT INTO ledger SELECT 0, 0 WHERE NOT EXISTS (SELECT FROM ledger)`,
	},
}

// connectPostgres has the server end a transaction in which nothing happens for a while: a
// process that is frozen inside of one keeps the row with its fence locked, and so everybody
// else waiting, until it goes on.
func connectPostgres(rawURL, application string) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil { // it quotes what it stumbled over
		return nil, errors.New("the database's URL cannot be read: write postgres://user:password@host:5432/database, with special characters of user and password percent-encoded")
	}
	cfg.RuntimeParams["application_name"] = application
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "3s"
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

var sqlite = dialect{
	fences:  fence.SQLite,
	connect: connectSQLite,
	sql:     func(text string) string { return strings.ReplaceAll(text, "$", "?") },
	schema: []string{
		`CREATE TABLE IF NOT EXISTS ledger (last INTEGER NOT NULL, version INTEGER NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS invoices (
			id INTEGER PRIMARY KEY AUTOINCREMENT,
			number INTEGER NOT NULL,
			customer TEXT NOT NULL,
			cents INTEGER NOT NULL,
			idempotency_key TEXT NOT NULL UNIQUE,
			instance INTEGER NOT NULL,
			fence INTEGER NOT NULL,
			issued INTEGER NOT NULL)`,
		`CREATE INDEX IF NOT EXISTS invoices_number ON invoices (number)`,
		`INSERT INTO ledger SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM ledger)`,
	},
}

// connectSQLite has transactions begin as writers: one that has read and then wants to write
// would be refused when another has written meanwhile. All instances are on one machine then.
// SQLite lets one connection write at a time and makes the others look again every few
// milliseconds, so an instance has one, for which its requests queue.
func connectSQLite(rawURL, _ string) (*sql.DB, error) {
	path := strings.TrimPrefix(rawURL, "sqlite://")
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
		return nil, errors.New("the database's URL has to be sqlite:///path/to/file: an absolute path without ? and #")
	}
	u := url.URL{Scheme: "file", Path: path}
	u.RawQuery = "_txlock=immediate&_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	db, err := sql.Open("sqlite", u.String())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}
