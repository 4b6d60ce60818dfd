package redislock_test

import (
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// TestRefusalsWriteNothing: a crowd that a window refuses costs replicas and the append-only
// file nothing, and the window ends when it would have.
func TestRefusalsWriteNothing(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	e, err := redislock.Open(t.Context(), "redis://"+server.Addr(), redislock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	changes := func() any { // how many there were so far
		return must(t, server, "EVAL", "return string.match(redis.call('INFO', 'persistence'), 'rdb_changes_since_last_save:(%d+)')", "0")
	}
	for _, rule := range []driver.Rule{driver.FixedWindow, driver.SlidingWindow} {
		step := driver.Count{Name: rule.String(), Rule: rule, N: 5, Limit: 5, Window: time.Hour}
		ask := func() driver.Counted {
			a := e.Count(t.Context(), []driver.Count{step})[0]
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			return a
		}
		if a := ask(); !a.Allowed {
			t.Fatalf("%v: the first is refused: %+v", rule, a)
		}
		before := changes()
		for range 3 {
			if a := ask(); a.Allowed {
				t.Errorf("%v: another passes: %+v", rule, a)
			}
		}
		if now := changes(); now != before {
			t.Errorf("%v: %v changes became %v", rule, before, now)
		}
		if left, _ := must(t, server, "PTTL", "holdfast.c:holdfast:"+step.Name).(int64); left <= 0 {
			t.Errorf("%v: what is kept ends in %d ms", rule, left)
		}
	}
}
