package interoptest

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

var tables atomic.Int64

// table returns one that no other test uses.
func table() string { return fmt.Sprintf("locks_%d", tables.Add(1)) }

// TestConformance runs through a DB of the caller's, and through URLs with one connection an engine,
// where waiting is polling.
func TestConformance(t *testing.T) {
	server := testserver.MariaDB(t, testserver.MariaDBOptions{})
	for name, store := range map[string]func(drivertest.T, *testserver.MariaDBServer) drivertest.Store{
		"New": newStore, "Open": openStore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drivertest.Run(t, drivertest.Harness{
				New: func(t drivertest.T) drivertest.Store { return store(t, server) },
				TTL: mysqllock.MinTTL, Rounds: 60,
			})
		})
	}
}

func newStore(t drivertest.T, server *testserver.MariaDBServer) drivertest.Store {
	own := table()
	cfg := mysqllock.Config{Table: own, Prefix: own + ":"}
	db, err := sql.Open("mysql", server.DSN(""))
	if err != nil {
		t.Fatalf("sql.Open: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return drivertest.Store{Open: func() driver.Engine {
		e, err := mysqllock.New(context.Background(), db, cfg)
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		return e
	}}
}

func openStore(t drivertest.T, server *testserver.MariaDBServer) drivertest.Store {
	own := table()
	return drivertest.Store{Open: func() driver.Engine {
		e, err := mysqllock.Open(context.Background(), server.URL("")+"?connections=1&table="+own+"&prefix="+own+":", mysqllock.Config{})
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return e
	}}
}
