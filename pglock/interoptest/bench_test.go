package interoptest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

// BenchmarkEngine measures the engine, and BenchmarkBare pg_advisory_lock through pgx on a
// connection for each goroutine: the yardstick.
func BenchmarkEngine(b *testing.B) {
	server := testserver.Postgres(b, testserver.PostgresOptions{})
	drivertest.Benchmark(b, drivertest.Harness{New: func(t drivertest.T) drivertest.Store {
		db := pool(t, "pgx", server.URL())
		return drivertest.Store{Open: func() driver.Engine { return engine(t, db, pglock.Config{MaxTTL: time.Hour}) }}
	}})
}

func BenchmarkBare(b *testing.B) {
	server := testserver.Postgres(b, testserver.PostgresOptions{})
	for name, goroutines := range map[string]int{"uncontended": 1, "64-names": 64} {
		b.Run(name, func(b *testing.B) {
			db := pool(b, "pgx", server.URL())
			var begun atomic.Int64
			var all sync.WaitGroup
			for i := range goroutines {
				conn, err := db.Conn(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				all.Go(func() {
					defer conn.Close()
					ctx := context.Background()
					for begun.Add(1) <= int64(b.N) {
						var ok bool
						_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", i)
						if err == nil {
							err = conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", i).Scan(&ok)
						}
						if err != nil || !ok {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
