//go:build unix

package interoptest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	common(t, "Redis", func(t *testing.T) string { return testserver.Redis(t, testserver.RedisOptions{}).Addr() })
	server := testserver.Redis(t, testserver.RedisOptions{})
	t.Run("Keys", func(t *testing.T) {
		client := dial(t, server.Addr())
		testRedisKeys(t, client)
		testRedisScript(t, client)
	})
	t.Run("FencesEnd", func(t *testing.T) { testFencesEnd(t, dial(t, server.Addr())) })
}

// TestRedisCluster: whatever the key, its fence is in the same slot, or the guard says beforehand
// that it cannot be.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	c := testserver.Cluster(t, testserver.ClusterOptions{})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	t.Cleanup(func() { client.Close() })
	testRedisKeys(t, client)
	testRedisScript(t, client)
}

func newRedis(t *testing.T, client redis.UniversalClient, cfg fence.RedisConfig) *fence.Redis {
	t.Helper()
	r, err := fence.NewRedis(scripts(client), cfg)
	must(t, err)
	return r
}

func testRedisKeys(t *testing.T, client redis.UniversalClient) {
	r, ctx := newRedis(t, client, fence.RedisConfig{}), patient(t)
	keys := []string{"{tag}a", "{tag}b", "x{{y}}", "open{brace", "x}{a}", "\x00\xff\r\n", "ü"}
	for i := range 50 { // all over the slots
		keys = append(keys, fmt.Sprint("key", i))
	}
	a, b := fence.Of("a lock {with} braces}", 1760000000123456), fence.Of("a lock {with} braces}", 1760000000123457)
	must(t, r.Open(ctx, a, keys...))
	for _, key := range keys {
		must(t, r.Set(ctx, a, key, "by a", time.Hour))
	}
	must(t, r.Open(ctx, b, keys...))
	for _, key := range keys {
		wantStale(t, r.Set(ctx, a, key, "late", 0), a.Fence(), b.Fence())
		if got, err := client.Get(ctx, key).Result(); err != nil || got != "by a" {
			t.Errorf("%q has %q (%v)", key, got, err)
		}
		if ttl := client.PTTL(ctx, key).Val(); ttl <= 0 || ttl > time.Hour {
			t.Errorf("%q lives for %v", key, ttl)
		}
	}
	wantStale(t, r.Set(ctx, b, "not opened", "x", 0), b.Fence(), 0)
}

// testRedisScript: a script of the user's sees its own keys and arguments, all of its keys are
// checked, and nothing of it is run when one of them is refused.
func testRedisScript(t *testing.T, client redis.UniversalClient) {
	const move = `
local left = redis.call('DECRBY', KEYS[1], ARGV[1])
local right = redis.call('INCRBY', KEYS[2], ARGV[1])
return {left, right, #KEYS, #ARGV}`
	r, ctx := newRedis(t, client, fence.RedisConfig{}), patient(t)
	keys := []string{"{move}left", "{move}right"}
	a, b := fence.Of("move", 33), fence.Of("move", 34)
	must(t, r.Open(ctx, a, keys...))
	reply, err := r.Eval(ctx, a, move, keys, 7)
	if got := fmt.Sprint(reply); err != nil || got != "[-7 7 2 1]" {
		t.Fatalf("the script answers %s (%v)", got, err)
	}
	must(t, r.Open(ctx, b, keys[1])) // the tag is the same
	_, err = r.Eval(ctx, a, move, keys, 7)
	wantStale(t, err, 33, 34)
	if got := client.Get(ctx, keys[0]).Val(); got != "-7" {
		t.Errorf("a script that was refused left %s", got)
	}
	_, err = r.Eval(ctx, b, "return redis.call('NOSUCH')", keys)
	if err == nil || errors.Is(err, holdfast.ErrStale) {
		t.Errorf("a script that is wrong: %v", err)
	}
	if _, err = r.Eval(ctx, b, "return nil", keys); err != redis.Nil {
		t.Errorf("a script that answers nil: %v", err)
	}
}

// testFencesEnd: fences have a TTL, which each use begins anew. Who finds its own gone is refused,
// and so is everybody where something else stands in its place.
func testFencesEnd(t *testing.T, client *redis.Client) {
	r, ctx, l := newRedis(t, client, fence.RedisConfig{Keep: time.Hour}), patient(t), fence.Of("n", 33)
	const key = "holdfast.fenced:{k}n"
	lives := func() {
		t.Helper()
		if ttl := client.PTTL(ctx, key).Val(); ttl < 50*time.Minute || ttl > time.Hour {
			t.Fatalf("the fence lives for %v, want about an hour", ttl)
		}
		must(t, client.PExpire(ctx, key, time.Minute).Err())
	}
	must(t, r.Open(ctx, l, "k"))
	lives()
	must(t, r.Open(ctx, l, "k"))
	lives()
	must(t, r.Set(ctx, l, "k", "v", 0))
	lives()
	must(t, client.Del(ctx, key).Err())
	wantStale(t, r.Set(ctx, l, "k", "late", 0), 33, 0)

	must(t, client.Set(ctx, key, "something", 0).Err())
	for _, err := range []error{r.Open(ctx, l, "k"), r.Set(ctx, l, "k", "late", 0)} {
		if !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("with something else in place of the fence: %v", err)
		}
	}
	if got := client.Get(ctx, "k").Val(); got != "v" {
		t.Errorf("the key has %q", got)
	}
}
