package redislock_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// TestNotOverEarly: no share is free before its TTL is over, not even by the part of a
// millisecond that the server's clock does not show.
func TestNotOverEarly(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	e := newEngine(t, client, redislock.Config{})
	clock := driver.BootClock()
	ctx, cancel := bounded()
	defer cancel()
	const ttl = redislock.MinTTL
	var all sync.WaitGroup
	for i, mode := range []driver.Mode{driver.Exclusive, driver.Shared, driver.Upgradeable, driver.Permits} {
		all.Go(func() {
			for round := range 40 {
				req := ask(fmt.Sprint(i, "-", round), ttl)
				if req.Mode = mode; mode == driver.Permits {
					req.Weight, req.Limit = 1, 1
				}
				g, err := e.Acquire(ctx, req)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(ttl - 3*time.Millisecond)
				for {
					next := ask(req.Name, time.Second)
					_, err := e.Acquire(ctx, next)
					now := clock.Now()
					if kind, _ := kindOf(err); err != nil && kind != driver.Held {
						t.Error(err)
						return
					}
					if err != nil {
						continue
					}
					if end := g.Sent.Add(ttl); now < end {
						t.Errorf("%v share: free %v too early", mode, end.Sub(now))
					}
					break
				}
			}
		})
	}
	all.Wait()
}
