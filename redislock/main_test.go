package redislock_test

import (
	"os"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestMain(m *testing.M) {
	os.Exit(testserver.Main(m, 6,
		// A client for Sentinel that is closed while it looks for a new master goes on listening.
		"redis/go-redis/v9.(*sentinelFailover).listen",
		"redis/go-redis/v9.(*channel).initHealthCheck",
		"redis/go-redis/v9.(*channel).initMsgChan",
		// Of a connection that fails while it is being made.
		"redis/go-redis/v9/maintnotifications.(*CircuitBreakerManager).cleanupLoop",
	))
}
