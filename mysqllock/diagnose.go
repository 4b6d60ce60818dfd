package mysqllock

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Diagnose implements driver.Diagnoser.
func (e *Engine) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	return driver.Diagnosis{}, nil
}
