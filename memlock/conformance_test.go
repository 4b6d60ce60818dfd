package memlock_test

import (
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/memlock"
)

func newStore(drivertest.T) drivertest.Store {
	s := memlock.NewStore(memlock.Config{})
	return drivertest.Store{Open: func() driver.Engine { return s.Engine() }}
}

func newManualStore(drivertest.T) drivertest.Store {
	clock := memlock.NewManualClock()
	s := memlock.NewStore(memlock.Config{Clock: clock})
	return drivertest.Store{Open: func() driver.Engine { return s.Engine() }, Advance: clock.Advance}
}

func TestConformance(t *testing.T) {
	t.Run("fake time", func(t *testing.T) {
		drivertest.Run(t, drivertest.Harness{New: newStore, TTL: time.Second, FakeTime: true})
	})
	t.Run("real time", func(t *testing.T) {
		drivertest.Run(t, drivertest.Harness{New: newStore, TTL: 100 * time.Millisecond})
	})
	t.Run("manual clock", func(t *testing.T) {
		drivertest.Run(t, drivertest.Harness{New: newManualStore, TTL: time.Second})
	})
}

func BenchmarkEngine(b *testing.B) {
	drivertest.Benchmark(b, drivertest.Harness{New: newStore})
}
