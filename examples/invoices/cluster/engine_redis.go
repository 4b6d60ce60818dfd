package main

import (
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// behind is for how long a master's writes did not reach its replicas when it is killed: the step of
// the article's race that makes the difference.
const behind = 300 * time.Millisecond

var onRedis = &engine{
	name: "redis", title: "Redis", dependsOn: "one Redis server",
	start: func(l *testserver.Lab, _ *database) *backend {
		s := testserver.Redis(l, testserver.RedisOptions{})
		return &backend{
			url: "redis://" + s.Addr() + "?ttl=10s", version: redisVersion(s),
			breakIt: func(struck func()) string {
				struck()
				s.Restart()
				return "server killed and restarted, all locks forgotten"
			},
		}
	},
}

var onSentinel = &engine{
	name: "sentinel", title: "Redis with Sentinel", dependsOn: "a Redis master, one of its two replicas, two of three sentinels",
	start: func(l *testserver.Lab, _ *database) *backend {
		set := testserver.Sentinel(l, testserver.SentinelOptions{})
		return &backend{
			url:     "redis+sentinel://" + strings.Join(set.SentinelAddrs(), ",") + "/" + set.MasterName() + leases + "&max-ttl=2s&max-lag=2s",
			version: redisVersion(set.Master()),
			breakIt: func(struck func()) string {
				master := set.Master()
				set.FreezeReplication(master)
				time.Sleep(behind)
				struck()
				master.Kill()
				return "master killed, its last " + behind.String() + " on no replica"
			},
		}
	},
}

var onRedlock = &engine{
	name: "redlock", title: "RedLock", dependsOn: "three of five independent Redis servers",
	start: func(l *testserver.Lab, _ *database) *backend {
		var nodes []*testserver.RedisServer
		var addrs []string
		for range 5 {
			nodes = append(nodes, testserver.Redis(l, testserver.RedisOptions{}))
			addrs = append(addrs, nodes[len(nodes)-1].Addr())
		}
		return &backend{
			url: "redlock://" + strings.Join(addrs, ",") + leases + "&max-ttl=2s", version: redisVersion(nodes[0]),
			breakIt: func(struck func()) string {
				struck()
				nodes[0].Kill()
				return "one of five nodes killed"
			},
		}
	},
}

func redisVersion(s *testserver.RedisServer) string {
	info, err := s.Info()
	if err != nil {
		return ""
	}
	return "Redis " + info["redis_version"]
}
