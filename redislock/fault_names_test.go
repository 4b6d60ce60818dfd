package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// hostileNames are names that somebody could take for something else, each different from all
// others.
var hostileNames = []string{
	"a", "A", "ab", "a ", " a", "a b", "a:b", "a:", ":a", "a/b", "a/../b", "..", "/", `\`, `a\b`, "%", "%61", "%00",
	"{a}", "{", "}", "{}", "{}a", "a{b}c", "{a}{b}", "}{", "*", "a*", "?", "[a-z]", "[", "]", `"`, "'", "`", "$a", "$(a)", ";",
	"holdfast", "holdfast:", "holdfast:a", ":holdfast:a", "group", "holdfast:group", ".fence", "oldfast.fence", ".q:holdfast:a",
	"\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a", "\ufb01", "fi", "\U0001f512", "\u200b", "a\u200b", "\u202ea", "\ufeff",
	"x1", "r", "cX1", "0", "-1", "1e3", "NaN", "nil", "PX", "KEYS[1]", "a\u00a0b", "1 2 3",
	strings.Repeat("n", driver.MaxName), strings.Repeat("n", driver.MaxName-1),
}

// With whatever prefix, no two names are one lock, and none is something else.
func TestFaultNames(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	for _, cfg := range []redislock.Config{
		{}, {RawKeys: true}, {Prefix: "holdfast"}, {Prefix: "h"}, {Prefix: "a*b?[c]:"}, {Prefix: "caf\u00e9 "}, {Prefix: "redlock:"},
	} {
		t.Run(fmt.Sprintf("prefix %q", cfg.Prefix), func(t *testing.T) {
			sub := &lab{t, l.server}
			sub.do("FLUSHALL")
			open := func() *holdfast.Client {
				r := redis.NewClient(&redis.Options{Addr: l.server.Addr()})
				sub.Cleanup(func() { r.Close() })
				e, err := redislock.New(r, cfg)
				if err != nil {
					sub.Fatal(err)
				}
				return sub.client(e)
			}
			separateNames(sub, open(), open(), cfg)
		})
	}
}

// reserved reports whether the key of a name would be one of the engine's own.
func reserved(cfg redislock.Config, name string) bool {
	prefix := cfg.Prefix
	if prefix == "" && !cfg.RawKeys {
		prefix = redislock.DefaultPrefix
	}
	return strings.HasPrefix(prefix+name, "holdfast.")
}

func separateNames(l *lab, c, other *holdfast.Client, cfg redislock.Config) {
	ctx := l.patience()
	leases := map[string]*holdfast.Lease{}
	for _, name := range hostileNames {
		lease, err := c.Mutex(name).TryLock(ctx)
		if reserved(cfg, name) {
			l.failed(err, holdfast.ErrInvalid, holdfast.NotApplied, "choose another")
			for what, err := range map[string]error{
				"inspect": second(c.Inspect(ctx, name)),
				"break":   second(c.Break(ctx, name, holdfast.Break{Reason: "test"})),
			} {
				if !errors.Is(err, holdfast.ErrInvalid) {
					l.Errorf("%s %q: %v, want ErrInvalid", what, name, err)
				}
			}
			continue
		}
		if err != nil {
			l.Fatalf("lock %q beside the others: %v", name, err)
		}
		leases[name] = lease
	}
	var want []string
	for name, lease := range leases {
		want = append(want, name)
		_, err := other.Mutex(name).TryLock(ctx)
		if !errors.Is(err, holdfast.ErrHeld) {
			l.Errorf("second lock of %q: %v, want ErrHeld", name, err)
		}
		info, err := other.Inspect(ctx, name)
		if err != nil || info.Name != name || info.Fence != lease.Fence() {
			l.Errorf("inspect %q: %+v, %v", name, info, err)
		}
	}
	slices.Sort(want)
	infos, err := other.List(ctx, "", holdfast.MaxList)
	if err != nil {
		l.Fatal(err)
	}
	var got []string
	for _, info := range infos {
		got = append(got, info.Name)
	}
	if !slices.Equal(got, want) {
		l.Errorf("list has %q, want %q", got, want)
	}
	for name, lease := range leases {
		l.unlock(lease)
		if _, err := other.Inspect(ctx, name); err != nil {
			l.Error(err)
		}
	}
	if keys := l.list("KEYS", "*"); !slices.Equal(keys, []string{"holdfast.fence"}) {
		l.Errorf("keys %q are left, want the fence counter only", keys)
	}
}

func second[A any](_ A, err error) error { return err }

// What is no name, or no TTL, is refused before anything is sent.
func TestFaultBounds(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.application(l.server.Addr())
	ctx := l.patience()
	for _, name := range []string{
		"", "a\x00b", "a\nb", "\r", "a\tb", "\x1b[31m", "\u0085", "\xff\xfe", "a\x80", string([]byte{0xed, 0xa0, 0x80}),
		strings.Repeat("n", driver.MaxName+1), strings.Repeat("n", 1<<20),
	} {
		for what, err := range map[string]error{
			"lock":    second(c.Mutex(name).Lock(ctx)),
			"inspect": second(c.Inspect(ctx, name)),
			"break":   second(c.Break(ctx, name, holdfast.Break{Reason: "test"})),
		} {
			if !errors.Is(err, holdfast.ErrInvalid) || len(err.Error()) > 1000 {
				l.Errorf("%s of %.20q: %.200v, want a short ErrInvalid", what, name, err)
			}
		}
	}
	for _, ttl := range []time.Duration{
		0, -1, -time.Hour, 1, time.Millisecond, redislock.MinTTL - 1, redislock.MaxTTL + 1, 1 << 62, math.MaxInt64, math.MinInt64,
	} {
		_, err := c.Mutex("name", holdfast.WithTTL(ttl)).TryLock(ctx)
		l.failed(err, holdfast.ErrInvalid, holdfast.NotApplied, "TTL")
	}
	_, err := redislock.New(redis.NewClient(&redis.Options{Addr: l.server.Addr()}), redislock.Config{Prefix: "holdfast.q:"})
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Invalid {
		l.Errorf("a prefix of companions: %v", err)
	}
	if n := l.scripts(); n != 0 {
		l.Errorf("%d script calls", n)
	}
	for _, ttl := range []time.Duration{redislock.MinTTL, redislock.MaxTTL, redislock.MinTTL + 1} {
		lease, err := c.Mutex("name", holdfast.WithTTL(ttl)).TryLock(ctx)
		if err != nil {
			l.Errorf("TTL %v: %v", ttl, err)
			continue
		}
		_ = lease.Unlock() // the shortest may be over by now
	}
}

// A context that has ended: nothing is sent, whatever the call.
func TestFaultEndedContext(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.application(l.server.Addr())
	lease := l.lock(c, "held", holdfast.WithoutRenewal())
	before := l.scripts()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
	defer cancel()
	for _, ctx := range []context.Context{over, late} {
		for what, err := range map[string]error{
			"lock":    second(c.Mutex("name").Lock(ctx)),
			"trylock": second(c.Mutex("name").TryLock(ctx)),
			"rlock":   second(c.RWMutex("name").RLock(ctx)),
			"acquire": second(c.Semaphore("name", 2).Acquire(ctx, 1)),
			"extend":  lease.Extend(ctx, labTTL),
			"inspect": second(c.Inspect(ctx, "name")),
			"list":    second(c.List(ctx, "", 1)),
			"break":   second(c.Break(ctx, "held", holdfast.Break{Reason: "test"})),
		} {
			var e *holdfast.Error
			if !errors.Is(err, ctx.Err()) || !errors.As(err, &e) || e.Outcome != holdfast.NotApplied {
				l.Errorf("%s: %v, want %v and not applied", what, err, ctx.Err())
			}
		}
	}
	if n := l.scripts(); n != before {
		l.Errorf("%d script calls", n-before)
	}
	l.unlock(lease)
}
