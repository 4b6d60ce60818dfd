package redislock

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

func TestSurvives(t *testing.T) {
	for _, c := range []struct {
		down, silence, least time.Duration
	}{
		{5 * time.Second, 5 * time.Second, 22 * time.Second},
		{5 * time.Second, 0, 14 * time.Second},
		{30 * time.Second, 5 * time.Second, 59 * time.Second},
	} {
		least := shortestTTL(c.down, c.silence)
		if least != c.least || !survives(least, c.down, c.silence) || survives(least-time.Second-time.Millisecond, c.down, c.silence) {
			t.Errorf("down-after %v, silence %v: %v, want %v, the shortest that survives", c.down, c.silence, least, c.least)
		}
	}
}

func TestQuorum(t *testing.T) {
	for _, c := range []struct {
		safety         Safety
		nodes, n, live int
		level          driver.Level
		says           string
	}{
		{SingleProcess, 3, 0, 0, driver.LevelOK, "none"},
		{SingleProcess, 3, 1, 1, driver.LevelWarning, "second time"},
		{CrashSafe, 3, 0, 0, driver.LevelOK, "none"},
		{CrashSafe, 3, 2, 1, driver.LevelNote, "1 up to date"},
		{PartitionSafe, 3, 2, 2, driver.LevelOK, "2 acknowledge, 1 have to"},
		{PartitionSafe, 3, 2, 1, driver.LevelWarning, "one more fails"},
		{PartitionSafe, 3, 2, 0, driver.LevelProblem, "nothing is granted"},
		{PartitionSafe, 2, 1, 1, driver.LevelNote, "if one fails"},
		{PartitionSafe, 5, 4, 1, driver.LevelProblem, "2 have to"},
	} {
		x := &exam{e: &Engine{cfg: Config{Safety: c.safety, DataNodes: c.nodes, MaxLag: time.Second}}}
		x.quorum(c.n, c.live)
		if len(x.Findings) != 1 || x.Findings[0].Level != c.level || !strings.Contains(x.Findings[0].Text, c.says) {
			t.Errorf("%+v: %+v", c, x.Findings)
		}
	}
}

func TestWatched(t *testing.T) {
	view := func(change ...string) map[string]string {
		v := map[string]string{"ip": "h", "port": "1", "flags": "master", "down-after-milliseconds": "5000",
			"num-other-sentinels": "2", "num-slaves": "2", "quorum": "2"}
		for i := 0; i < len(change); i += 2 {
			v[change[i]] = change[i+1]
		}
		return v
	}
	for _, c := range []struct {
		views []map[string]string
		level driver.Level
		says  string
	}{
		{[]map[string]string{view(), view()}, driver.LevelOK, ""},
		{[]map[string]string{view(), view("port", "2")}, driver.LevelWarning, "h:1 and h:2"},
		{[]map[string]string{view("flags", "master,s_down")}, driver.LevelWarning, "s_down"},
		{[]map[string]string{view("num-other-sentinels", "1")}, driver.LevelWarning, "there are 2"},
		{[]map[string]string{view("quorum", "1")}, driver.LevelNote, "1 of 3"},
		{[]map[string]string{view("num-slaves", "3")}, driver.LevelProblem, "4 data nodes"},
		{[]map[string]string{view(), view("down-after-milliseconds", "30000")}, driver.LevelWarning, "30s"},
	} {
		x := &exam{e: &Engine{cfg: Config{}.withDefaults(false, false)}, ttl: 30 * time.Second}
		x.watched(c.views)
		ok := c.says == ""
		for _, f := range x.Findings {
			ok = ok || f.Level == c.level && strings.Contains(f.Text, c.says)
		}
		if !ok || x.Worst() != c.level {
			t.Errorf("%v: worst %v, want %v, %q\n%+v", c.views, x.Worst(), c.level, c.says, x.Findings)
		}
	}
}

func TestClock(t *testing.T) {
	server := testserver.Redis(t, testserver.RedisOptions{})
	node := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer node.Close()
	for _, c := range []struct {
		off   time.Duration
		level driver.Level
	}{
		{0, driver.LevelOK}, {5 * time.Second, driver.LevelNote}, {-5 * time.Second, driver.LevelNote},
		{time.Hour, driver.LevelWarning}, {-time.Hour, driver.LevelWarning},
	} {
		x := &exam{e: &Engine{wall: func() time.Time { return time.Now().Add(c.off) }}}
		x.clock(t.Context(), node)
		if len(x.Findings) != 1 || x.Findings[0].Level != c.level {
			t.Errorf("off by %v: %+v, want %v", c.off, x.Findings, c.level)
		}
	}
}
