package main

import (
	"context"
	"errors"
	"time"

	"github.com/bsm/redislock"
)

// redislock does not wait unless it is told how: its documentation waits in steps of 100 ms.
var redislockAdapters = []adapter{
	{name: "redislock", kind: byDefault, about: "bsm/redislock over go-redis, waiters try every 100 ms", open: openRedislock(false, 100*time.Millisecond)},
	{name: "redislock-ap", kind: atBest, about: "bsm/redislock over go-redis AutoPipeline", open: openRedislock(true, 100*time.Millisecond)},
	{name: "redislock-tuned", kind: atBest, about: "bsm/redislock over go-redis, waiters try every ms", open: openRedislock(false, pollEvery)},
}

func openRedislock(autoPipeline bool, retry time.Duration) func(string) (peer, error) {
	return func(addr string) (peer, error) {
		client, end, err := goRedis(addr, autoPipeline)
		if err != nil {
			return nil, err
		}
		return &redislockPeer{redislock.New(client), &redislock.Options{RetryStrategy: redislock.LinearBackoff(retry)}, end}, nil
	}
}

type redislockPeer struct {
	client  *redislock.Client
	options *redislock.Options
	end     func() error
}

func (p *redislockPeer) locker(key string) locker { return &redislockLock{peer: p, key: key} }
func (p *redislockPeer) close() error             { return p.end() }

type redislockLock struct {
	peer *redislockPeer
	key  string
	held *redislock.Lock
}

func (l *redislockLock) lock(ctx context.Context) (err error) {
	for {
		l.held, err = l.peer.client.Obtain(ctx, l.key, ttl, l.peer.options)
		// Without a deadline of ours it gives up after a TTL.
		if err == nil || ctx.Err() != nil || !errors.Is(err, redislock.ErrNotObtained) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

func (l *redislockLock) unlock() error { return l.held.Release(context.Background()) }

func (l *redislockLock) extend(ctx context.Context) error { return l.held.Refresh(ctx, ttl, nil) }
