package interoptest

import (
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.PostgresOptions{Config: []string{"max_connections = 500"}})
	for _, through := range []string{"pgx", "postgres"} {
		t.Run(through, func(t *testing.T) {
			db := pool(t, through, server.URL())
			drivertest.Run(t, drivertest.Harness{
				New: func(t drivertest.T) drivertest.Store {
					return drivertest.Store{Open: func() driver.Engine {
						return engine(t, db, pglock.Config{MaxTTL: pglock.LongestTTL, Heartbeat: 50 * time.Millisecond})
					}}
				},
				TTL: 400 * time.Millisecond, Rounds: 40,
			})
		})
	}
}
