package main

import (
	"context"
	"errors"
	"math"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	rueidispool "github.com/go-redsync/redsync/v4/redis/rueidis"
	"github.com/redis/rueidis/rueidiscompat"
)

// A waiter of redsync gives up after so many tries; the tuned ones go on, at short pauses.
var redsyncPolls = []redsync.Option{redsync.WithRetryDelay(pollEvery), redsync.WithTries(math.MaxInt32)}

var redsyncAdapters = []adapter{
	{name: "redsync-goredis", kind: byDefault, about: "redsync over go-redis, defaults", open: openRedsync(false)},
	{name: "redsync-goredis-ap", kind: atBest, about: "redsync over go-redis AutoPipeline", open: openRedsync(true)},
	{name: "redsync-goredis-tuned", kind: atBest, about: "redsync over go-redis, waiters try every ms", open: openRedsync(false, redsyncPolls...)},
	{name: "redsync-rueidis", kind: atBest, about: "redsync over rueidis", open: openRedsyncRueidis()},
	{name: "redsync-rueidis-tuned", kind: atBest, about: "redsync over rueidis, waiters try every ms", open: openRedsyncRueidis(redsyncPolls...)},
}

func openRedsync(autoPipeline bool, options ...redsync.Option) func(string) (peer, error) {
	return func(addr string) (peer, error) {
		client, end, err := goRedis(addr, autoPipeline)
		if err != nil {
			return nil, err
		}
		options := append([]redsync.Option{redsync.WithExpiry(ttl)}, options...)
		return &redsyncPeer{redsync.New(goredis.NewPool(client)), options, end}, nil
	}
}

func openRedsyncRueidis(options ...redsync.Option) func(string) (peer, error) {
	return func(addr string) (peer, error) {
		client, err := rueidisClient(addr)
		if err != nil {
			return nil, err
		}
		pool := rueidispool.NewPool(rueidiscompat.NewAdapter(client))
		options := append([]redsync.Option{redsync.WithExpiry(ttl)}, options...)
		return &redsyncPeer{redsync.New(pool), options, func() error { client.Close(); return nil }}, nil
	}
}

type redsyncPeer struct {
	redsync *redsync.Redsync
	options []redsync.Option
	end     func() error
}

func (p *redsyncPeer) locker(key string) locker {
	return redsyncLock{p.redsync.NewMutex(key, p.options...)}
}
func (p *redsyncPeer) close() error { return p.end() }

type redsyncLock struct{ mutex *redsync.Mutex }

func (l redsyncLock) lock(ctx context.Context) error {
	for {
		err := l.mutex.LockContext(ctx)
		var taken *redsync.ErrTaken
		if err == nil || ctx.Err() != nil || !errors.Is(err, redsync.ErrFailed) && !errors.As(err, &taken) {
			return err
		}
	}
}

func (l redsyncLock) unlock() error {
	ok, err := l.mutex.UnlockContext(context.Background())
	if err == nil && !ok {
		err = errNotMine
	}
	return err
}

func (l redsyncLock) extend(ctx context.Context) error {
	_, err := l.mutex.ExtendContext(ctx)
	return err
}
