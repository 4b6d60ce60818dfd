package main

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

var rawAdapters = []adapter{
	{name: "raw-goredis", kind: raw, about: "SET NX PX and a script that deletes its own, go-redis", open: openRawGoRedis(false)},
	{name: "raw-goredis-ap", kind: raw, about: "the same over its AutoPipeline", open: openRawGoRedis(true)},
	{name: "raw-rueidis", kind: raw, about: "the same over rueidis, which pipelines by itself", open: openRawRueidis},
}

// release deletes a key that has the value of its owner.
const release = `if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0`

var errNotMine = errors.New("the lock is not the one that was taken")

// token is unique for each call: a counter behind what is random for each process.
func token() string { return tokenPrefix + strconv.FormatUint(tokenCounter.Add(1), 36) }

var (
	tokenPrefix  = rand.Text()
	tokenCounter atomic.Uint64
)

// goRedis returns a client with the library's defaults, and what closes it.
func goRedis(addr string, autoPipeline bool) (redis.UniversalClient, func() error, error) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	if err := client.Ping(context.Background()).Err(); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	if !autoPipeline {
		return client, client.Close, nil
	}
	pipe, err := client.AutoPipeline()
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return pipe, func() error { return errors.Join(pipe.Close(), client.Close()) }, nil
}

// rueidisClient returns a client with the library's defaults but for client-side caching,
// which locks do not use.
func rueidisClient(addr string) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
}

// bareCommands are the two commands, over whatever client.
type bareCommands struct {
	set    func(ctx context.Context, key, token string) (bool, error)
	remove func(ctx context.Context, key, token string) (int64, error)
	end    func() error
}

func (p *bareCommands) locker(key string) locker { return &bareLock{peer: p, key: key} }
func (p *bareCommands) close() error             { return p.end() }

type bareLock struct {
	peer       *bareCommands
	key, token string
}

func (l *bareLock) lock(ctx context.Context) error {
	l.token = token()
	for {
		if done, err := l.peer.set(ctx, l.key, l.token); done || err != nil {
			return err
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

func (l *bareLock) unlock() error {
	n, err := l.peer.remove(context.Background(), l.key, l.token)
	if err == nil && n != 1 {
		err = errNotMine
	}
	return err
}

func openRawGoRedis(autoPipeline bool) func(string) (peer, error) {
	return func(addr string) (peer, error) {
		client, end, err := goRedis(addr, autoPipeline)
		if err != nil {
			return nil, err
		}
		sha, err := client.ScriptLoad(context.Background(), release).Result()
		if err != nil {
			return nil, errors.Join(err, end())
		}
		return &bareCommands{
			set: func(ctx context.Context, key, token string) (bool, error) {
				return client.SetNX(ctx, key, token, ttl).Result()
			},
			remove: func(ctx context.Context, key, token string) (int64, error) {
				return client.EvalSha(ctx, sha, []string{key}, token).Int64()
			},
			end: end,
		}, nil
	}
}

func openRawRueidis(addr string) (peer, error) {
	client, err := rueidisClient(addr)
	if err != nil {
		return nil, err
	}
	sha, err := client.Do(context.Background(), client.B().ScriptLoad().Script(release).Build()).ToString()
	if err != nil {
		client.Close()
		return nil, err
	}
	return &bareCommands{
		set: func(ctx context.Context, key, token string) (bool, error) {
			cmd := client.B().Set().Key(key).Value(token).Nx().PxMilliseconds(int64(ttl / time.Millisecond)).Build()
			err := client.Do(ctx, cmd).Error()
			if rueidis.IsRedisNil(err) {
				return false, nil
			}
			return err == nil, err
		},
		remove: func(ctx context.Context, key, token string) (int64, error) {
			return client.Do(ctx, client.B().Evalsha().Sha1(sha).Numkeys(1).Key(key).Arg(token).Build()).AsInt64()
		},
		end: func() error { client.Close(); return nil },
	}, nil
}
