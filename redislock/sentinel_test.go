package redislock_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// sentinelClient returns a client that asks the sentinels who is master.
func sentinelClient(t drivertest.T, set *testserver.SentinelSet) *redis.Client {
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: set.MasterName(), SentinelAddrs: set.SentinelAddrs(),
		DialTimeout: time.Second, ReadTimeout: time.Second, MaxRetries: -1,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

func newEngine(t drivertest.T, client redis.UniversalClient, cfg redislock.Config) *redislock.Engine {
	e, err := redislock.New(client, cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func newClient(t testing.TB, client redis.UniversalClient, cfg redislock.Config, hf holdfast.Config) *holdfast.Client {
	t.Helper()
	c, err := holdfast.New(newEngine(t, client, cfg), hf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually tries until f succeeds.
func eventually[V any](t drivertest.T, what string, f func() (V, error)) V {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		v, err := f()
		if err == nil {
			return v
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// fast are the constants of a deployment whose failovers do not take long.
var fast = redislock.Config{Safety: redislock.PartitionSafe, MaxTTL: 3 * time.Second, MaxLag: time.Second}

func TestConformanceSentinel(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	drivertest.Run(t, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store {
			cfg := redislock.Config{Prefix: prefix(), MaxTTL: 10 * time.Second, MaxLag: 3 * time.Second}
			url := "redis+sentinel://" + strings.Join(set.SentinelAddrs(), ",") + "/" + set.MasterName()
			open := func() driver.Engine {
				return eventually(t, "open", func() (driver.Engine, error) {
					return redislock.Open(context.Background(), url, cfg)
				})
			}
			e := open()
			awaitGrace(t, e)
			e.Close()
			return drivertest.Store{Open: open}
		},
		TTL: 300 * time.Millisecond, Rounds: 100,
	})
}

// awaitGrace returns when the engine grants something new.
func awaitGrace(t drivertest.T, e driver.Engine) {
	t.Helper()
	eventually(t, "the grace ends", func() (driver.Grant, error) {
		req := driver.Request{Name: "grace", Mode: driver.Exclusive, Token: driver.Token{1}, TTL: time.Second, Span: 1}
		g, err := e.Acquire(context.Background(), req)
		if err == nil {
			err = e.Release(context.Background(), req.Claim(g))
		}
		return g, err
	})
}

// lostInFailover has a lock taken on a master that loses it: the replicas never hear of it,
// the master dies, and one of them takes over. It returns what lock returned.
func lostInFailover[V any](t *testing.T, set *testserver.SentinelSet, lock func() V) V {
	t.Helper()
	master := set.Master()
	acknowledged(t, master, 2) // so that it goes on granting for a while
	set.FreezeReplication(master)
	held := lock()
	master.Kill()
	set.WaitForMaster(master)
	set.Proxy(master).Thaw()
	return held
}

// The race of the article: without a grace two clients hold the lock. The tests below would
// see it.
func TestFailoverWithoutGrace(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	ctx := t.Context()
	t.Run("plain client", func(t *testing.T) {
		client := sentinelClient(t, set)
		take := func() error {
			ok, err := client.SetNX(ctx, "plain", "token", time.Minute).Result()
			if err == nil && !ok {
				err = errors.New("held")
			}
			return err
		}
		lost := set.Master()
		if err := lostInFailover(t, set, take); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a second holder within the first one's minute", func() (int, error) { return 0, take() })
		lost.Restart()
	})
	t.Run("SingleProcess", func(t *testing.T) {
		cfg := redislock.Config{Safety: redislock.SingleProcess, Prefix: prefix()}
		a := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{TTL: time.Minute})
		b := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{TTL: time.Minute})
		first := lostInFailover(t, set, func() *holdfast.Lease { return mustLock(t, a) })
		second := eventually(t, "a second holder", func() (*holdfast.Lease, error) {
			return b.Mutex("race").TryLock(ctx)
		})
		if first.Context().Err() != nil || first.Remaining() <= 0 || second.Remaining() <= 0 {
			t.Error("no overlap was seen where there must be one: this test cannot see them")
		}
	})
}

func mustLock(t testing.TB, c *holdfast.Client) *holdfast.Lease {
	t.Helper()
	return eventually(t, "the lock", func() (*holdfast.Lease, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return c.Mutex("race").Lock(ctx)
	})
}

// failovers is how many the test below goes through: few in a normal run, as many as asked
// for in `make verify`.
func failovers(t *testing.T) int {
	if s := os.Getenv("HOLDFAST_FAILOVERS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 2
}

// With the grace, no failover makes two holders, though each loses the write of the lock.
// The waiter goes on to wait, gets the lock in the end, and fences only grow.
func TestFailoverWithGrace(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	cfg := fast
	cfg.Prefix = prefix()
	a := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{})
	b := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{})
	for round := range failovers(t) {
		lost := set.Master()
		mustLock(t, a).Unlock() // the grace of the master before is over
		type result struct {
			lease *holdfast.Lease
			err   error
		}
		second := make(chan result, 1)
		first := lostInFailover(t, set, func() *holdfast.Lease {
			l := mustLock(t, a)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				l, err := b.Mutex("race").Lock(ctx)
				second <- result{l, err}
			}()
			eventually(t, "the second client waits", func() (int, error) {
				info, err := a.Inspect(t.Context(), "race")
				if err == nil && info.Waiters == 0 {
					err = errors.New("nobody waits")
				}
				return 0, err
			})
			return l
		})
		r := <-second
		if r.err != nil {
			t.Fatalf("round %d: the waiter did not get through the failover: %v", round, r.err)
		}
		if left := first.Remaining(); left > 0 && first.Context().Err() == nil {
			t.Fatalf("round %d: two holders: the first has %v left", round, left)
		}
		if r.lease.Fence() <= first.Fence() {
			t.Fatalf("round %d: fence %d follows %d", round, r.lease.Fence(), first.Fence())
		}
		first.Unlock()
		if err := r.lease.Unlock(); err != nil {
			t.Errorf("round %d: unlock: %v", round, err)
		}
		lost.Restart()
		eventually(t, "the old master follows the new one", func() (int, error) {
			info, err := set.Master().Info()
			if err == nil && info["connected_slaves"] != "2" {
				err = errors.New(info["connected_slaves"] + " replicas")
			}
			return 0, err
		})
		a, b = b, a
	}
}

// What a new master never heard of can be given back to it.
func TestUnlockBehindFailover(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	cfg := fast
	cfg.Prefix, cfg.MaxTTL = prefix(), 10*time.Second
	a := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{})
	mustLock(t, a).Unlock()
	first := lostInFailover(t, set, func() *holdfast.Lease { return mustLock(t, a) })
	eventually(t, "the new master answers", func() (holdfast.Info, error) {
		return a.Inspect(t.Context(), "race")
	})
	if err := first.Unlock(); err != nil {
		t.Errorf("unlock: %v", err)
	}
}

// A holder whose TTL meets the rule keeps its lock, though the new master never heard of it,
// and nobody else gets it meanwhile.
func TestHolderSurvivesFailover(t *testing.T) {
	t.Parallel()
	set := testserver.Sentinel(t, testserver.SentinelOptions{})
	cfg := redislock.Config{Prefix: prefix(), MaxTTL: 15 * time.Second, MaxLag: time.Second}
	grace := 25 * time.Second
	if failovers(t) > 2 {
		cfg, grace = redislock.Config{Prefix: prefix()}, 45*time.Second // the defaults: TTL 30 s
	}
	a := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{})
	b := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{})
	mustLock(t, a).Unlock() // the first lock on a new deployment waits for the grace
	first := lostInFailover(t, set, func() *holdfast.Lease { return mustLock(t, a) })
	fence := first.Fence()
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	defer cancel()
	for ctx.Err() == nil { // at first the master is not there
		if l, err := b.Mutex("race").Lock(ctx); err == nil {
			t.Fatalf("fence %d was granted beside %d, which has %v left", l.Fence(), fence, first.Remaining())
		} else if !errors.Is(err, holdfast.ErrHeld) && !errors.Is(err, holdfast.ErrUnavailable) {
			t.Errorf("waiting: %v", err)
		}
	}
	if first.Context().Err() != nil || first.Remaining() <= 0 {
		t.Fatalf("the holder lost its lock: %v", context.Cause(first.Context()))
	}
	if err := first.Unlock(); err != nil {
		t.Errorf("unlock: %v", err)
	}
	if l := mustLock(t, b); l.Fence() <= fence {
		t.Errorf("fence %d follows %d", l.Fence(), fence)
	}
}

// An isolated master that lives on, with a client on its side, makes no second holder.
func TestIsolatedMaster(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		safety  redislock.Safety
		overlap bool
	}{
		{"SingleProcess", redislock.SingleProcess, true}, // the test can see it
		{"PartitionSafe", redislock.PartitionSafe, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			set := testserver.Sentinel(t, testserver.SentinelOptions{})
			master := set.Master()
			direct := redis.NewClient(&redis.Options{Addr: master.Addr(), MaxRetries: -1})
			defer direct.Close()
			cfg := fast
			cfg.Prefix, cfg.Safety = prefix(), test.safety
			a := newClient(t, direct, cfg, holdfast.Config{})
			b := newClient(t, sentinelClient(t, set), cfg, holdfast.Config{})
			first := mustLock(t, a)
			set.Isolate(master)
			set.WaitForMaster(master)
			second := mustLock(t, b)
			overlap := first.Remaining() > 0 && first.Context().Err() == nil
			if overlap != test.overlap {
				t.Errorf("overlap is %v, want %v: the first has %v left", overlap, test.overlap, first.Remaining())
			}
			// The isolated master goes on to grant, or not.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if l, err := a.Mutex("other").Lock(ctx); (err == nil) != test.overlap {
				t.Errorf("the isolated master granted %v, %v", l, err)
			}
			second.Unlock()
		})
	}
}
