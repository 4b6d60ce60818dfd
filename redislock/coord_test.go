package redislock_test

import (
	"context"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// coordinates checks the types beside locks on what url names.
func coordinates(t *testing.T, url string, cfg redislock.Config) {
	coordtest.Run(t, coordtest.Harness{Open: func(t *testing.T) *holdfast.Client {
		e, err := redislock.Open(context.Background(), url, cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}})
}

func TestCoordinationStandalone(t *testing.T) {
	t.Parallel()
	coordinates(t, "redis://"+testserver.Redis(t, testserver.RedisOptions{}).Addr(), redislock.Config{})
}

func TestCoordinationCluster(t *testing.T) {
	t.Parallel()
	x := testserver.Cluster(t, testserver.ClusterOptions{})
	coordinates(t, "redis+cluster://"+strings.Join(x.Addrs(), ","), redislock.Config{Safety: redislock.SingleProcess})
}
