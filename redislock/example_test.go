package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

func issueInvoice(ctx context.Context, fence int64) error { return ctx.Err() }

// With the URL of a server. The blank import of redislock is what makes the scheme known.
func Example() {
	ctx := context.Background()
	hf, err := holdfast.Open(ctx, "redis://app:secret@127.0.0.1:6379/0", holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	err = hf.Mutex("invoice:2026").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		return issueInvoice(ctx, l.Fence())
	})
	switch {
	case errors.Is(err, holdfast.ErrLost):
		log.Print("stopped: the lock was lost while we held it")
	case errors.Is(err, holdfast.ErrUnavailable):
		log.Print("Redis did not answer: ", err)
	case err != nil:
		log.Print(err)
	}
}

// On the client that the program has open already. New sends nothing.
func ExampleNew() {
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "mymaster", SentinelAddrs: []string{"h1:26379", "h2:26379", "h3:26379"},
	})
	defer client.Close()
	e, err := redislock.New(client, redislock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // before the client is closed

	fmt.Println(e.Safety(), e.Capabilities().DefaultTTL)
	// Output: PartitionSafe 30s
}

// Three sentinels watch a master and its four replicas. MaxTTL is the longest TTL of a lease,
// and most of the time for which nothing new is granted after a failover.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	e, err := redislock.Open(ctx, "rediss+sentinel://app:secret@h1,h2,h3/mymaster?max-ttl=25s",
		redislock.Config{DataNodes: 5})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{TTL: 25 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // closes the engine and its connections
}

// The locks of RedLock.net are keys that begin with "redlock:". With the same prefix both
// exclude each other.
func ExampleConfig_prefix() {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	defer client.Close()
	e, err := redislock.New(client, redislock.Config{Prefix: "redlock:"})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	fmt.Println(e.Safety())
	// Output: SingleProcess
}

// What an administrator has to enter, with a password.
func ExampleEngine_ACL() {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	defer client.Close()
	e, err := redislock.New(client, redislock.Config{Prefix: "billing:"})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	rule, _, _ := strings.Cut(e.ACL("app")+" >secret", " +")
	fmt.Println(rule, "+…")
	// Output: ACL SETUSER app on ~holdfast.* ~billing:* resetchannels &holdfast.* -@all +…
}

// On five servers that know nothing of each other. NewQuorum sends nothing.
func ExampleNewQuorum() {
	var clients []redis.UniversalClient
	for _, addr := range []string{"h1:6379", "h2:6379", "h3:6379", "h4:6379", "h5:6379"} {
		client := redis.NewClient(&redis.Options{Addr: addr})
		defer client.Close()
		clients = append(clients, client)
	}
	e, err := redislock.NewQuorum(clients, redislock.QuorumConfig{})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // before the clients are closed

	fmt.Println(e.Capabilities().DefaultTTL, e.Capabilities().MaxTTL)
	// Output: 10s 30s
}

// Why a majority could not be had, node by node.
func ExampleQuorumError() {
	ctx := context.Background()
	hf, err := holdfast.Open(ctx, "redlock://app:secret@h1:6379,h2:6379,h3:6379", holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	lease, err := hf.Mutex("invoice:2026").TryLock(ctx)
	var quorum *redislock.QuorumError
	switch {
	case err == nil:
		defer lease.Unlock()
	case errors.As(err, &quorum):
		log.Print(quorum.Status)
		for _, n := range quorum.Nodes {
			log.Print(n.Addr, n.Status, n.Err)
		}
	}
}
