package interoptest

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/pglock"
)

// TestServer is everything that goes together on one server.
func TestServer(t *testing.T) {
	t.Parallel()
	b := newBench(t, "max_connections = 600")
	for name, run := range map[string]func(*bench){
		"Conformance": conformance, "Faults": faults, "HolderIsFrozen": holderIsFrozen, "Crowd": crowd,
		"Poolers": poolers, "Leads": leads, "Astray": astray, "Swapped": swapped, "Coordination": coordination, "Values": valueFaults,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(b.sub(t))
		})
	}
}

func conformance(b *bench) {
	for _, through := range drivers {
		b.Run(through, func(t *testing.T) {
			db := pool(t, through, b.server.URL())
			drivertest.Run(t, drivertest.Harness{
				New: func(t drivertest.T) drivertest.Store {
					return drivertest.Store{Open: func() driver.Engine {
						return engine(t, db, pglock.Config{Schema: "conformance", MaxTTL: pglock.LongestTTL, Heartbeat: 50 * time.Millisecond})
					}}
				},
				TTL: 400 * time.Millisecond, Pause: 100 * time.Millisecond, Rounds: rounds(),
			})
		})
	}
}

// rounds is how often the cases about races try: HOLDFAST_PGLOCK_ROUNDS for long runs.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_PGLOCK_ROUNDS")); err == nil {
		return n
	}
	return 40
}
