package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

var onRedlock = product{
	name:  "redlock",
	start: startRedlock,
	adapters: []adapter{
		{name: "trip", kind: yardstick, about: "no lock: a PING to all five servers at once over go-redis, each answer waited for", open: openTrip},
		{name: "redsync", kind: byDefault, about: "redsync over go-redis, defaults", open: openRedsync(false)},
		{name: "redsync-ap", kind: atBest, about: "redsync over go-redis AutoPipeline", open: openRedsync(true)},
		{name: "redsync-tuned", kind: atBest, about: "redsync over go-redis, waiters try every ms", open: openRedsync(false, redsyncPolls...)},
		{name: "holdfast", kind: ours, about: "Mutex on a quorum of redislock, defaults", open: holdfastAt("redlock://")},
	},
	patterns: []pattern{
		patternA.of("redsync", "trip", "redsync", "redsync-ap", "holdfast"),
		patternA1.of("redsync", "trip", "redsync", "redsync-ap", "holdfast"),
		patternA2.of("redsync", "trip", "redsync", "redsync-ap", "holdfast"),
		patternB.of("redsync", "redsync", "redsync-ap", "holdfast"),
		patternD.of("redsync", "redsync", "redsync-tuned", "holdfast"),
		patternE.of("redsync", "redsync", "redsync-tuned", "holdfast"),
	},
	targets: []target{
		{pattern: "a", what: "acquire p50 to a round trip to all servers", value: acquireMid, to: []string{"trip"}, limit: 1.5},
		{pattern: "a1", what: "acquire p50 to a round trip to all servers", value: acquireMid, to: []string{"trip"}, limit: 1.5},
		{pattern: "a2", what: "acquire p50 to a round trip to all servers", value: acquireMid, to: []string{"trip"}, limit: 1.5},
		{pattern: "b", what: "cycles/s to redsync, defaults", value: rate, to: []string{"redsync"}, limit: 5, least: true},
		{pattern: "b", what: "cycles/s to redsync over AutoPipeline", value: rate, to: []string{"redsync-ap"}, limit: 5, least: true},
		{pattern: "d", what: "turns/s to redsync, tuned", value: rate, to: []string{"redsync-tuned"}, limit: 100, least: true},
	},
}

func startRedlock(l *testserver.Lab) *server {
	s := &server{}
	for range 5 {
		node := testserver.Redis(l, testserver.RedisOptions{Config: []string{"maxclients 4000"}})
		s.redis = append(s.redis, node.Addr())
		s.pids = append(s.pids, node.PID())
	}
	s.addr = strings.Join(s.redis, ",")
	s.clean = func() error { return foundAnew(s.redis) }
	return s
}

// foundAnew empties the servers and founds a quorum of them, as an operator does with new ones.
func foundAnew(addrs []string) error {
	if err := flush(addrs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanWithin)
	defer cancel()
	q, err := redislock.OpenQuorum(ctx, []string{"redlock://" + strings.Join(addrs, ",")}, redislock.QuorumConfig{})
	if err != nil {
		return err
	}
	return errors.Join(q.Init(ctx), q.Close())
}

// trip is what it takes to hear from all servers once.
type trip struct{ nodes []redis.UniversalClient }

func openTrip(addr string) (peer, error) {
	var t trip
	for node := range strings.SplitSeq(addr, ",") {
		c, _, err := goRedis(node, false)
		if err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.nodes = append(t.nodes, c)
	}
	return t, nil
}

func (t trip) close() (err error) {
	for _, c := range t.nodes {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (t trip) locker(string) locker { return t }
func (t trip) unlock() error        { return nil }

func (t trip) lock(ctx context.Context) error {
	errs := make([]error, len(t.nodes))
	var asked sync.WaitGroup
	for i, c := range t.nodes {
		asked.Go(func() { errs[i] = c.Ping(ctx).Err() })
	}
	asked.Wait()
	return errors.Join(errs...)
}
