package redislock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestACallThatHangsKeepsNobody: a caller makes its call by itself, and gets no answer. Whoever
// came behind it leaves when its context ends, and what is asked for then goes out beside it.
func TestACallThatHangsKeepsNobody(t *testing.T) {
	t.Parallel()
	e, err := New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}), Config{}) // never called
	if err != nil {
		t.Fatal(err)
	}
	e.owned = true // as Open has it: callers make calls by themselves
	hangs, begun := make(chan struct{}), make(chan struct{})
	e.only.exchange = func(b *batch) {
		if b == e.only.alone {
			close(begun)
			<-hangs
		}
		for _, r := range b.requests {
			r.finish("=", "", nil)
		}
	}
	request := func(ctx context.Context, key string) chan error {
		r, answer := newRequest(key, "r", "token", 0), make(chan error, 1)
		go func() {
			e.only.make(r)
			answer <- r.await(ctx, 0)
		}()
		return answer
	}
	answered := func(what string, answer chan error) error {
		t.Helper()
		select {
		case err := <-answer:
			return err
		case <-time.After(30 * time.Second):
			t.Fatalf("the %s call does not end", what)
			return nil
		}
	}
	first := request(context.Background(), "first")
	<-begun
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := answered("second", request(over, "second")); !errors.Is(err, context.Canceled) {
		t.Errorf("the second call: %v, want its context's end", err)
	}
	if err := answered("third", request(context.Background(), "third")); err != nil {
		t.Errorf("the third call: %v", err)
	}
	close(hangs)
	if err := answered("first", first); err != nil {
		t.Errorf("the first call: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestIdleSendersEnd: a sender that has had nothing to send for long ends, and a request that
// comes at that very moment is sent nevertheless.
func TestIdleSendersEnd(t *testing.T) {
	t.Parallel()
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // never called
			defer client.Close()
			e, err := New(client, Config{})
			if err != nil {
				t.Fatal(err)
			}
			c := e.only
			c.exchange = func(b *batch) {
				time.Sleep(10 * stuckAfter) // late, so that the next call goes out beside it
				for _, r := range b.requests {
					r.finish("=", "", nil)
				}
			}
			senders := func() int {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.senders
			}
			var asked sync.WaitGroup
			ask := func() {
				r := &request{key: "key", op: "r", id: "token", done: make(chan struct{}, 2)} // of this bubble
				c.submit(r)
				asked.Go(func() {
					if err := r.await(context.Background(), 0); err != nil {
						t.Error(err)
					}
				})
			}
			ask()
			time.Sleep(2 * stuckAfter)
			ask()
			asked.Wait() // the second sender is idle from now on, the first is already
			if n := senders(); n != 2 {
				t.Fatalf("%d senders, want 2", n)
			}
			time.Sleep(idleAfter)
			ask()
			ask()
			asked.Wait()
			time.Sleep(2 * idleAfter)
			synctest.Wait()
			if n := senders(); n != 0 {
				t.Errorf("%d senders are left", n)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOnlyPassesGoTheShortWay: two requests in one call are a pass only where one gives an exclusive
// lock back and the other asks for the same one, for the first time.
func TestOnlyPassesGoTheShortWay(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // never called
	defer client.Close()
	e, err := New(client, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ask := func(key, op string) *request { return newRequest(key, op, "token", 1000) }
	again := ask("a", "X1")
	again.poll = true
	for _, pair := range [][2]*request{
		{ask("a", "x1"), ask("a", "x1")},
		{ask("a", "d7"), ask("a", "x1")},
		{ask("a", "r"), ask("b", "x1")},
		{ask("a", "r"), ask("a", "r")},
		{ask("a", "r"), ask("a", "s1")},
		{ask("a", "r"), again},
	} {
		b := &batch{requests: pair[:]}
		if b.exchangePass(e.only, b.frame(0)) {
			t.Errorf("%s %s and %s %s went as a pass", pair[0].op, pair[0].key, pair[1].op, pair[1].key)
		}
	}
}
