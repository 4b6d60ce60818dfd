package redislock

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// TestQuorumWokenBeforeAnswered: nodes wake a call that stands in line from an attempt before,
// or from another call, though no node has told it yet who holds the lock.
func TestQuorumWokenBeforeAnswered(t *testing.T) {
	var clients []redis.UniversalClient
	for i := range 3 {
		c := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", i+1)})
		defer c.Close()
		clients = append(clients, c)
	}
	q, err := NewQuorum(clients, QuorumConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	c := q.newCandidate(&driver.Request{Name: "name"}, "holdfast:name")
	c.wakes = make(chan wakeup, 1)
	c.wakes <- wakeup{node: 2, token: "somebody's"}
	if !c.sleep(t.Context(), 10*time.Millisecond) {
		t.Error("the call was ended")
	}
}
