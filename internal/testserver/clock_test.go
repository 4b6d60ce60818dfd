package testserver_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// shows fails unless a server's clock is ahead of the machine's by so much: between the moments
// before and after it was asked.
func shows(t *testing.T, s *testserver.RedisServer, ahead time.Duration) {
	t.Helper()
	before := time.Now().Add(ahead)
	reply, _ := do(t, s, "TIME").([]any)
	after := time.Now().Add(ahead)
	if len(reply) != 2 {
		t.Fatalf("TIME: %v", reply)
	}
	seconds, err := strconv.ParseInt(reply[0].(string), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	micros, err := strconv.ParseInt(reply[1].(string), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(seconds, micros*1000)
	if at.Before(before.Truncate(time.Microsecond)) || at.After(after) {
		t.Errorf("the server's clock shows %v, want one between %v and %v", at, before, after)
	}
}

func TestOwnClock(t *testing.T) {
	t.Parallel()
	s, other := testserver.Redis(t, testserver.RedisOptions{OwnClock: true}), plain(t)
	for _, ahead := range []time.Duration{0, 10 * time.Second, -10 * time.Second, 123456789 * time.Nanosecond, -999999999} {
		s.SetClock(ahead)
		shows(t, s, ahead)
		shows(t, other, 0)
	}
	s.SetClock(0)
	do(t, s, "SET", "k", "v", "PX", "60000")
	s.SetClock(59 * time.Second)
	if left := do(t, s, "PTTL", "k").(int64); left > 1000 {
		t.Errorf("%d ms are left of a minute, 59 s later", left)
	}
	s.SetClock(time.Hour)
	want(t, nil, s, "GET", "k")
	s.Restart()
	shows(t, s, time.Hour)
	s.Kill()
	s.SetClock(-time.Hour)
	s.Start()
	shows(t, s, -time.Hour)
}

func TestOwnClocks(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{OwnClocks: true})
	for i, n := range set.Nodes() {
		n.SetClock(time.Duration(i-1) * time.Hour)
	}
	for i, n := range set.Nodes() {
		shows(t, n, time.Duration(i-1)*time.Hour)
	}
}
