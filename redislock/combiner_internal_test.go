package redislock

import (
	"context"
	"errors"
	"testing"
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
