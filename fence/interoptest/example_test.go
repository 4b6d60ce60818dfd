package interoptest

import (
	"context"
	"errors"
	"log"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/redis/go-redis/v9"
)

// A guard on a client of go-redis, of whatever kind. The script is the user's own.
func Example_redis() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	defer client.Close()
	eval := func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
		return redis.NewScript(script).Run(ctx, client, keys, args...).Result()
	}
	guard, err := fence.NewRedis(eval, fence.RedisConfig{})
	if err != nil {
		log.Fatal(err)
	}

	var lease *holdfast.Lease                                              // from Lock
	if err := guard.Open(ctx, lease, "{stock}7", "{stock}8"); err != nil { // before the first read
		log.Fatal(err)
	}
	left, err := client.Get(ctx, "{stock}7").Int()
	if err != nil {
		log.Fatal(err)
	}
	if err := guard.Set(ctx, lease, "{stock}7", left-1, 0); errors.Is(err, holdfast.ErrStale) {
		log.Fatal("overtaken: nothing was written")
	}
	const move = `redis.call('DECRBY', KEYS[1], ARGV[1]) return redis.call('INCRBY', KEYS[2], ARGV[1])`
	if _, err := guard.Eval(ctx, lease, move, []string{"{stock}7", "{stock}8"}, 5); err != nil {
		log.Fatal(err)
	}
}
