package redislock

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
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

// patientQuorum returns an engine on three new nodes that waits a minute for each. The test closes it.
func patientQuorum(t *testing.T) (*Quorum, []*testserver.RedisServer) {
	t.Helper()
	var clients []redis.UniversalClient
	var servers []*testserver.RedisServer
	for range 3 {
		s := testserver.Redis(t, testserver.RedisOptions{})
		c := redis.NewClient(&redis.Options{Addr: s.Addr(), ReadTimeout: time.Minute})
		t.Cleanup(func() { c.Close() })
		clients, servers = append(clients, c), append(servers, s)
	}
	q, err := NewQuorum(clients, QuorumConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := q.Init(ctx); err != nil {
		t.Fatal(err)
	}
	return q, servers
}

// TestQuorumRefusedAtOnce: who is refused does not wait for a node that hangs, which may have
// granted, to give that back.
func TestQuorumRefusedAtOnce(t *testing.T) {
	t.Parallel()
	q, servers := patientQuorum(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	hanging := servers[2]
	for _, s := range servers[:2] {
		if _, err := s.Do("SET", "holdfast:name", "theirs"); err != nil {
			t.Fatal(err)
		}
	}
	hanging.Pause()
	for range 3 { // it has a call of each under way
		c := q.newCandidate(&driver.Request{Name: "name", TTL: time.Second, Span: 1}, "holdfast:name")
		_, d := c.attempt(ctx, 'x')
		if d == nil || d.Kind != driver.Held {
			t.Fatalf("an attempt at what others hold: %+v", d)
		}
		if !d.undo.await(ctx) {
			t.Error("it waits for the node that hangs")
		}
		time.Sleep(2 * stuckAfter)
	}
	hanging.Resume()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestQuorumLearnsRecords: an engine learns what nodes keep about themselves from the first
// lock, and anew when a node has written it anew, as nodes do twice an hour.
func TestQuorumLearnsRecords(t *testing.T) {
	t.Parallel()
	q, servers := patientQuorum(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	last := int64(0)
	for token := byte(1); token < 4; token++ {
		req := driver.Request{Name: "name", Mode: driver.Exclusive, TTL: 10 * time.Second, Span: 1, Token: driver.Token{token}}
		g, err := q.Acquire(ctx, req)
		if err != nil || g.Fence <= last {
			t.Fatalf("Acquire: %+v, %v; the last fence was %d", g, err, last)
		}
		last = g.Fence
		if err := q.Release(ctx, req.Claim(g)); err != nil {
			t.Fatal(err)
		}
		known := 0
		for i, s := range servers {
			reply, err := s.Do("GET", nodeKey)
			text, _ := reply.(string)
			if err != nil || text == "" {
				t.Fatalf("the record of a node: %v, %v", reply, err)
			}
			if r := q.nodes[i].record.Load(); r != nil && r.Text == text {
				known++
			}
			f := strings.SplitN(text, " ", 8)
			f[6] = formatInt(time.Now().Add(-time.Duration(token) * time.Second).UnixMilli()) // of the mark
			if _, err := s.Do("SET", nodeKey, strings.Join(f, " ")); err != nil {
				t.Fatal(err)
			}
		}
		if known < 2 {
			t.Errorf("after lock %d the records of %d nodes are known, want a majority", token, known)
		}
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestQuorumSlowNodes: where all nodes are slow, one that has not answered yet is not given up. The
// attempt would otherwise be lost by who is the one to win it, and the vote with it, by all.
func TestQuorumSlowNodes(t *testing.T) {
	t.Parallel()
	key := "holdfast:name"
	order := protocol.Quorum(3).Order(key)
	for name, test := range map[string]struct{ slow, held []int }{
		"who leads waits for a majority":       {slow: order[2:], held: order[1:2]},
		"who may lead waits for the first one": {slow: order[:1], held: order[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, servers := patientQuorum(t)
			do := func(i int, args ...string) {
				t.Helper()
				if _, err := servers[i].Do(args...); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			epoch, unknown := q.knownEpoch(ctx)
			if unknown != nil {
				t.Fatal(unknown)
			}
			for _, i := range test.held {
				do(i, "SET", key, fmt.Sprint("rival ", i))
			}
			for _, i := range test.slow {
				servers[i].Pause()
			}
			a := &attempt{c: q.newCandidate(&driver.Request{Name: "name", TTL: time.Second, Span: 1}, key)}
			a.errand = errand{key: key, op: "x1 0", id: a.c.sign(), ttl: 60_000, span: 1, epoch: epoch}
			a.begin()
			a.first.sent = a.first.sent.Add(-20 * time.Second) // what has answered took so long
			a.first.submit()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				a.poll(ctx, &hold{errand: a.errand})
			}()
			time.Sleep(3 * straggle)
			for _, i := range test.held {
				do(i, "DEL", key)
			}
			for _, i := range test.slow {
				servers[i].Resume()
			}
			<-ended
			if a.result != protocol.Won && a.result != protocol.Split {
				t.Errorf("the result is %v", a.result)
			}
			a.first.end(true)
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
