package redislock

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// TestACutOffMasterIsNotKnown: a master that too few replicas acknowledge has not begun its
// graces, so the time since then must not stand in for one.
func TestACutOffMasterIsNotKnown(t *testing.T) {
	server := testserver.Redis(t, testserver.RedisOptions{})
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	for _, c := range []struct {
		safety Safety
		known  bool
	}{{PartitionSafe, false}, {CrashSafe, true}} {
		e, err := New(client, Config{Safety: c.safety})
		if err != nil {
			t.Fatal(err)
		}
		req := driver.Request{Name: "slot", Mode: driver.Exclusive, Token: driver.Token{1}, TTL: time.Second, Span: 1}
		_, err = e.Acquire(context.Background(), req)
		if cut := errors.Is(err, errCutOff); cut == c.known {
			t.Errorf("%v: Acquire: %v", c.safety, err)
		}
		e.only.mu.Lock()
		known := e.only.term.Known(e.clock.Now())
		e.only.mu.Unlock()
		if (known != "") != c.known {
			t.Errorf("%v: the term is known as %q", c.safety, known)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}
