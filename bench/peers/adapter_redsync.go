package main

import (
	"context"
	"errors"
	"math"
	"strings"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis"
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

// openRedsync takes the addresses of one server, or of several with commas between them.
func openRedsync(autoPipeline bool, options ...redsync.Option) func(string) (peer, error) {
	return func(addr string) (peer, error) {
		p := &redsyncPeer{options: append([]redsync.Option{redsync.WithExpiry(ttl)}, options...)}
		var pools []redis.Pool
		for node := range strings.SplitSeq(addr, ",") {
			client, end, err := goRedis(node, autoPipeline)
			if err != nil {
				return nil, errors.Join(err, p.close())
			}
			pools = append(pools, goredis.NewPool(client))
			p.ends = append(p.ends, end)
		}
		p.redsync = redsync.New(pools...)
		return p, nil
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
		end := func() error { client.Close(); return nil }
		return &redsyncPeer{redsync.New(pool), options, []func() error{end}}, nil
	}
}

type redsyncPeer struct {
	redsync *redsync.Redsync
	options []redsync.Option
	ends    []func() error
}

func (p *redsyncPeer) locker(key string) locker {
	return redsyncLock{p.redsync.NewMutex(key, p.options...)}
}
func (p *redsyncPeer) close() (err error) {
	for _, end := range p.ends {
		err = errors.Join(err, end())
	}
	return err
}

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
