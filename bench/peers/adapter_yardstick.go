package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"
)

var yardsticks = []adapter{
	{name: "local", kind: yardstick, about: "a fair semaphore within the process, no server", open: openLocal},
	{name: "token", kind: yardstick, about: "a list with one element: BLPOP takes it, RPUSH passes it on; a bare connection each", open: openToken},
	{name: "token-goredis", kind: yardstick, about: "the same over go-redis", open: openTokenGoRedis},
}

// controls do not lock at all: the check for overlaps has to see them.
var controls = []adapter{{name: "control", kind: control, about: "no lock", open: func(string) (peer, error) { return noLock{}, nil }}}

type noLock struct{}

func (noLock) locker(string) locker           { return noLock{} }
func (noLock) close() error                   { return nil }
func (noLock) lock(ctx context.Context) error { return ctx.Err() }
func (noLock) unlock() error                  { return nil }

type localPeer struct {
	mu    sync.Mutex
	locks map[string]*semaphore.Weighted
}

func openLocal(string) (peer, error) { return &localPeer{locks: map[string]*semaphore.Weighted{}}, nil }

func (p *localPeer) locker(key string) locker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locks[key] == nil {
		p.locks[key] = semaphore.NewWeighted(1)
	}
	return localLock{p.locks[key]}
}

func (p *localPeer) close() error { return nil }

type localLock struct{ s *semaphore.Weighted }

func (l localLock) lock(ctx context.Context) error { return l.s.Acquire(ctx, 1) }
func (l localLock) unlock() error                  { l.s.Release(1); return nil }

// tokenPeer passes a list element around. It is no lock: the element is lost with its
// holder. No lock that visits the server for each turn does so in fewer or cheaper steps.
type tokenPeer struct{ addr string }

// mint puts the one element into the list, whoever comes first.
const mint = `if redis.call("SET", KEYS[1] .. ":minted", 1, "NX") then redis.call("RPUSH", KEYS[1], "token") end return 1`

func openToken(addr string) (peer, error) { return tokenPeer{addr}, nil }
func (tokenPeer) close() error            { return nil }

func (p tokenPeer) locker(key string) locker {
	w, err := dialWire(p.addr)
	if err == nil {
		_, err = w.do("EVAL", mint, "1", key)
	}
	return &tokenLock{wire: w, key: key, err: err}
}

type tokenLock struct {
	wire  *wire
	key   string
	err   error
	watch bool
}

func (l *tokenLock) lock(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	if !l.watch {
		l.watch = true
		l.wire.interruptible(ctx)
	}
	_, err := l.wire.do("BLPOP", l.key, "0")
	return err
}

func (l *tokenLock) unlock() error {
	_, err := l.wire.do("RPUSH", l.key, "token")
	return err
}

type tokenGoRedis struct{ client *redis.Client }

func openTokenGoRedis(addr string) (peer, error) {
	return tokenGoRedis{redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})}, nil
}

func (p tokenGoRedis) close() error { return p.client.Close() }

func (p tokenGoRedis) locker(key string) locker {
	err := p.client.Eval(context.Background(), mint, []string{key}).Err()
	return &tokenGoRedisLock{p.client, key, err}
}

type tokenGoRedisLock struct {
	client *redis.Client
	key    string
	err    error
}

func (l *tokenGoRedisLock) lock(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	for {
		// The client looks at ctx between calls only, so it must not block for good.
		err := l.client.BLPop(ctx, time.Second, l.key).Err()
		if err == nil || ctx.Err() != nil || !errors.Is(err, redis.Nil) {
			return err
		}
	}
}

func (l *tokenGoRedisLock) unlock() error {
	return l.client.RPush(context.Background(), l.key, "token").Err()
}
