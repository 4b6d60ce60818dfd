package main

import (
	"slices"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

var onRedis = product{
	name:  "redis",
	start: startRedis,
	adapters: slices.Concat(yardsticks, rawAdapters, redsyncAdapters, redislockAdapters, rueidislockAdapters,
		holdfastAdapters),
	patterns: patternsOnRedis,
	targets:  targetsOnRedis,
}

func startRedis(l *testserver.Lab) *server {
	s := testserver.Redis(l, testserver.RedisOptions{Config: []string{"maxclients 4000"}})
	redis := []string{s.Addr()}
	return &server{addr: s.Addr(), pids: []int{s.PID()}, redis: redis, clean: func() error { return flush(redis) }}
}

// flush empties servers and sets their counters to zero.
func flush(addrs []string) error {
	for _, addr := range addrs {
		w, err := dialWire(addr)
		if err != nil {
			return err
		}
		defer w.close()
		if _, err := w.do("FLUSHALL"); err != nil {
			return err
		}
		if _, err := w.do("CONFIG", "RESETSTAT"); err != nil {
			return err
		}
	}
	return nil
}

var (
	distinct = []string{
		"raw-goredis", "raw-goredis-ap", "raw-rueidis", "redsync-goredis", "redsync-goredis-ap", "redsync-rueidis",
		"redislock", "redislock-ap", "rueidislock", "rueidislock-tuned", "holdfast", "holdfast-gated", "holdfast-async",
	}
	polling = []string{
		"raw-goredis", "raw-rueidis", "redsync-goredis", "redsync-goredis-tuned", "redsync-rueidis-tuned",
		"redislock", "redislock-tuned", "rueidislock", "rueidislock-tuned", "holdfast", "holdfast-gated",
	}
)

var patternsOnRedis = []pattern{
	patternA1.of("redsync-goredis", distinct...),
	patternA2.of("redsync-goredis", distinct...),
	patternB.of("redsync-goredis-ap", distinct...),
	patternC.of("redsync-goredis-ap", distinct...),
	patternD.of("rueidislock", slices.Concat([]string{"local", "token"}, polling)...),
	patternE.of("token", slices.Concat([]string{"token", "token-goredis"}, polling)...),
	patternF.of("redislock-ap", "redsync-goredis", "redsync-goredis-ap", "redsync-rueidis",
		"redislock", "redislock-ap", "rueidislock", "rueidislock-tuned", "holdfast"),
}

// peersIn names the other libraries among adapters on Redis.
func peersIn(adapters []string) (peers []string) {
	for _, a := range slices.Concat(redsyncAdapters, redislockAdapters, rueidislockAdapters) {
		if slices.Contains(adapters, a.name) {
			peers = append(peers, a.name)
		}
	}
	return peers
}

var targetsOnRedis = []target{
	{pattern: "a1", what: "cycles/s to the best peer", value: rate, to: peersIn(distinct), limit: 0.97, least: true},
	{pattern: "a1", what: "acquire p50 to SET NX PX over the same client", value: acquireMid, to: []string{"raw-goredis"}, limit: 1.1},
	{pattern: "a2", what: "cycles/s to the best peer", value: rate, to: peersIn(distinct), limit: 0.97, least: true},
	{pattern: "a2", what: "acquire p50 to SET NX PX over the same client", value: acquireMid, to: []string{"raw-goredis"}, limit: 1.1},
	{pattern: "b", what: "cycles/s to redsync over AutoPipeline", value: rate, to: []string{"redsync-goredis-ap"}, limit: 1.2, least: true},
	{pattern: "b", what: "cycles/s to redsync, defaults", value: rate, to: []string{"redsync-goredis"}, limit: 2.5, least: true},
	{pattern: "b", what: "cycles/s to redislock, defaults", value: rate, to: []string{"redislock"}, limit: 2.5, least: true},
	{pattern: "c", what: "cycles/s to the best peer", value: rate, to: peersIn(distinct), limit: 1.5, least: true},
	{pattern: "c", what: "cycles/s to redsync, defaults", value: rate, to: []string{"redsync-goredis"}, limit: 5, least: true},
	{pattern: "c", what: "cycles/s to redislock, defaults", value: rate, to: []string{"redislock"}, limit: 5, least: true},
	{pattern: "c", what: "client CPU us a cycle", value: clientCost, limit: 5},
	{pattern: "c", what: "allocations a cycle", value: allocations, limit: 8},
	{pattern: "d", what: "turns/s", value: rate, limit: 300_000, least: true},
	{pattern: "d", what: "wait p99 us", value: acquireLate, limit: 1000},
	{pattern: "d", what: "turns of goroutines, max/min", value: (*sample).spread, limit: 1.2},
	{pattern: "e", what: "hand-overs/s to the token, bare connections", value: handoverRate, to: []string{"token"}, limit: 0.95, least: true},
	{pattern: "e", what: "hand-overs/s to the token over go-redis", value: handoverRate, to: []string{"token-goredis"}, limit: 0.95, least: true},
	{pattern: "e", what: "hand-over p50 to the token, bare connections", value: handoverMid, to: []string{"token"}, limit: 1.2},
	{pattern: "e", what: "hand-over p50 to the token over go-redis", value: handoverMid, to: []string{"token-goredis"}, limit: 1.2},
	{pattern: "e", what: "turns of processes, max/min", value: (*sample).spread, limit: 1.2},
	{pattern: "f", what: "client CPU, % of a core", value: clientShare, limit: 1},
	{pattern: "f", what: "calls/s", value: callRate, limit: 40},
	{pattern: "f", what: "bytes of client memory a lease", value: func(s *sample) float64 { return heapEach(s) + stackEach(s) }, limit: 1024},
	{pattern: "f", what: "leases lost", value: lostLeases, limit: 0},
}
