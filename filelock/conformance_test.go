package filelock_test

import (
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/filelock"
)

// harness opens a folder for every case; every engine on it is a process to the others.
func harness() drivertest.Harness {
	return drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store {
			folder := t.TempDir()
			return drivertest.Store{Open: func() driver.Engine {
				e, err := filelock.Open(folder, filelock.Config{})
				if err != nil {
					t.Fatalf("opening: %v", err)
				}
				return e
			}}
		},
		TTL:    200 * time.Millisecond,
		Slack:  20 * time.Second,
		Pause:  150 * time.Millisecond,
		Rounds: 200,
	}
}

func TestConformance(t *testing.T) { drivertest.Run(t, harness()) }

func BenchmarkEngine(b *testing.B) { drivertest.Benchmark(b, harness()) }
