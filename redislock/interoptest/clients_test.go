package interoptest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	bsm "github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// client is one of another library.
type client interface {
	// acquire tries once, and answers errHeld when the lock is held. A ttl of 0 asks for a
	// lock without an end.
	acquire(key string, ttl time.Duration) (lock, error)
}

var errHeld = errors.New("held")

// lock is what a foreign client holds, or believes to.
type lock interface {
	extend(ttl time.Duration) (bool, error)
	release() (bool, error)
}

// library is one whose locks exclude ours, and how to set ours up for that.
type library struct {
	name   string
	prefix string // Config.Prefix; where it is empty, Config.RawKeys
	open   func(testing.TB, *testserver.RedisServer) client

	endless bool // has locks without an end
	silent  bool // its release does not say whether it released anything
}

var libraries = []library{
	{name: "redis-py", open: openPython, endless: true},
	{name: "node-redlock", prefix: "locks:", open: openNode("redlock")},
	{name: "redis-semaphore", prefix: "mutex:", open: openNode("redis-semaphore"), silent: true},
	{name: "redsync", prefix: "app.", open: openRedsync},
	{name: "bsm-redislock", open: openBSM},
	{name: "RedLock.net", prefix: "redlock:", open: openRedLockNet},
	{name: "LockTake", open: openLockTake},
}

func dial(t testing.TB, server *testserver.RedisServer) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { c.Close() })
	return c
}

// redsyncClient is github.com/go-redsync/redsync.
type redsyncClient struct{ sync *redsync.Redsync }

type redsyncLock struct {
	client redsyncClient
	mutex  *redsync.Mutex
}

func openRedsync(t testing.TB, server *testserver.RedisServer) client {
	return redsyncClient{redsync.New(goredis.NewPool(dial(t, server)))}
}

func (c redsyncClient) acquire(key string, ttl time.Duration) (lock, error) {
	m := c.sync.NewMutex(key, redsync.WithExpiry(ttl), redsync.WithTimeoutFactor(1))
	var taken *redsync.ErrTaken
	if err := m.TryLock(); errors.As(err, &taken) {
		return nil, errHeld
	} else if err != nil {
		return nil, err
	}
	return redsyncLock{c, m}, nil
}

func (l redsyncLock) extend(ttl time.Duration) (bool, error) {
	m := l.client.sync.NewMutex(l.mutex.Name(), redsync.WithExpiry(ttl), redsync.WithValue(l.mutex.Value()))
	return settled(m.Extend())
}

func (l redsyncLock) release() (bool, error) { return settled(l.mutex.Unlock()) }

// settled turns the errors by which redsync says no into that.
func settled(ok bool, err error) (bool, error) {
	var taken *redsync.ErrTaken
	if errors.As(err, &taken) || errors.Is(err, redsync.ErrExtendFailed) || errors.Is(err, redsync.ErrLockAlreadyExpired) {
		return false, nil
	}
	return ok, err
}

// bsmClient is github.com/bsm/redislock.
type bsmClient struct{ client *bsm.Client }

type bsmLock struct{ lock *bsm.Lock }

func openBSM(t testing.TB, server *testserver.RedisServer) client {
	return bsmClient{bsm.New(dial(t, server))}
}

func (c bsmClient) acquire(key string, ttl time.Duration) (lock, error) {
	l, err := c.client.Obtain(context.Background(), key, ttl, &bsm.Options{Metadata: "metadata"})
	if errors.Is(err, bsm.ErrNotObtained) {
		return nil, errHeld
	} else if err != nil {
		return nil, err
	}
	return bsmLock{l}, nil
}

func (l bsmLock) extend(ttl time.Duration) (bool, error) {
	return answered(l.lock.Refresh(context.Background(), ttl, nil))
}

func (l bsmLock) release() (bool, error) { return answered(l.lock.Release(context.Background())) }

func answered(err error) (bool, error) {
	if errors.Is(err, bsm.ErrNotObtained) || errors.Is(err, bsm.ErrLockNotHeld) {
		return false, nil
	}
	return err == nil, err
}

// commands are libraries by what they send: where a library itself cannot run here.
type commands struct {
	redis           *redis.Client
	value           func() string
	extend, release func(l *commandLock, ttl time.Duration) (bool, error)
}

type commandLock struct {
	*commands
	key, value string
}

func (c *commands) acquire(key string, ttl time.Duration) (lock, error) {
	l := &commandLock{c, key, c.value()}
	err := c.redis.Do(context.Background(), "SET", key, l.value, "NX", "PX", ttl.Milliseconds()).Err()
	if errors.Is(err, redis.Nil) {
		return nil, errHeld
	} else if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *commandLock) extend(ttl time.Duration) (bool, error) { return l.commands.extend(l, ttl) }
func (l *commandLock) release() (bool, error)                 { return l.commands.release(l, 0) }

// guid returns what .NET calls one.
func guid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// openRedLockNet acts as RedLock.net with one server: scripts that compare. Its extension takes
// a lock that is gone anew.
func openRedLockNet(t testing.TB, server *testserver.RedisServer) client {
	extend := redis.NewScript(`
		local v = redis.call('GET', KEYS[1])
		if not v then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1 end
		return v == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or -1`)
	release := redis.NewScript(`
		return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0`)
	run := func(s *redis.Script) func(*commandLock, time.Duration) (bool, error) {
		return func(l *commandLock, ttl time.Duration) (bool, error) {
			n, err := s.Run(context.Background(), l.redis, []string{l.key}, l.value, ttl.Milliseconds()).Int()
			return n == 1, err
		}
	}
	return &commands{redis: dial(t, server), value: guid, extend: run(extend), release: run(release)}
}

// openLockTake acts as LockTake, LockExtend and LockRelease of StackExchange.Redis: watched
// transactions. Values are the caller's there: these are no text in any encoding.
func openLockTake(t testing.TB, server *testserver.RedisServer) client {
	run := func(act func(redis.Pipeliner, *commandLock, time.Duration)) func(*commandLock, time.Duration) (bool, error) {
		return func(l *commandLock, ttl time.Duration) (bool, error) {
			ctx, mine := context.Background(), false
			err := l.redis.Watch(ctx, func(tx *redis.Tx) error {
				v, err := tx.Get(ctx, l.key).Result()
				if mine = v == l.value; !mine {
					return err
				}
				_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { act(p, l, ttl); return nil })
				return err
			}, l.key)
			if errors.Is(err, redis.Nil) || errors.Is(err, redis.TxFailedErr) {
				return false, nil
			}
			return mine && err == nil, err
		}
	}
	return &commands{
		redis: dial(t, server),
		value: func() string { return "\xff\xfe\x00\n \x80" + guid() },
		extend: run(func(p redis.Pipeliner, l *commandLock, ttl time.Duration) {
			p.PExpire(context.Background(), l.key, ttl)
		}),
		release: run(func(p redis.Pipeliner, l *commandLock, _ time.Duration) { p.Del(context.Background(), l.key) }),
	}
}
