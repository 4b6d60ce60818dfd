package interoptest

import (
	"context"
	"database/sql"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/pglock"
)

// pool opens a pool of that database driver, "pgx" or "postgres".
func pool(t drivertest.T, through, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(through, url)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// engine returns an engine on db that is closed at the end.
func engine(t drivertest.T, db *sql.DB, cfg pglock.Config) *pglock.Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	e, err := pglock.New(ctx, db, cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}
