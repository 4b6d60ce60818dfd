package redislock_test

import (
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// TestValueInItsLastMillisecond: a value that is about to expire is not read as one that lives
// for ever, not even in the millisecond in which it does.
func TestValueInItsLastMillisecond(t *testing.T) {
	t.Parallel()
	e, err := redislock.Open(t.Context(), "redis://"+testserver.Redis(t, testserver.RedisOptions{}).Addr(), redislock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	values := e
	for range 50 {
		if _, err := values.WriteValue(t.Context(), driver.Write{Name: "x", TTL: 5 * time.Millisecond, If: driver.AnyVersion}); err != nil {
			t.Fatal(err)
		}
		for {
			v, err := values.ReadValue(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if v.Version == 0 {
				break
			}
			if v.TTL <= 0 {
				t.Fatalf("TTL of a value that expires is %v", v.TTL)
			}
		}
	}
}
