package redislock_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// must carries out a command that has to succeed.
func must(t *testing.T, s *testserver.RedisServer, args ...string) any {
	t.Helper()
	reply, err := s.Do(args...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return reply
}

// comesTrue fails unless ok holds within a time that no test should need.
func comesTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// before7 reports whether a server is older than Redis 7.0, HOLDFAST_REDIS_SERVER being one.
func before7(t *testing.T, s *testserver.RedisServer) bool {
	t.Helper()
	info, err := s.Info()
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(info["redis_version"], "6.")
}
