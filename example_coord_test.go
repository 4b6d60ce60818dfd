package holdfast_test

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

// A sequence that is restored from the database when its counter was lost.
func ExampleSequence() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	highest := func(ctx context.Context) (int64, error) {
		return 0, nil // SELECT coalesce(max(number), 0) FROM invoices
	}
	numbers := hf.Sequence("invoice", holdfast.WithSource(highest))
	for range 2 {
		n, err := numbers.Next(ctx)
		fmt.Println(n, err)
	}
	block, err := numbers.Reserve(ctx, 10)
	fmt.Println(block.First, block.Last, err)
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 12 <nil>
}

func ExampleCounter() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	failures := hf.Counter("login-failures:alice", time.Hour)
	failures.Add(ctx, 1)
	tally, err := failures.Add(ctx, 1)
	fmt.Println(tally.Total, tally.ResetIn <= time.Hour, err)
	// Output: 2 true <nil>
}

func ExampleLimiter() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	mails := hf.Limiter("mail:alice", holdfast.Pace(60, time.Hour, 2))
	for range 3 {
		d, err := mails.Allow(ctx, 1)
		fmt.Println(d.Allowed, d.Remaining, d.RetryAfter.Round(time.Minute), err)
	}
	// Output:
	// true 1 0s <nil>
	// true 0 0s <nil>
	// false 0 1m0s <nil>
}

// Whoever comes first fills the cache; the others wait and read it.
func ExampleNewOnce() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	cache := hf.Item("cache:rates")
	rates := holdfast.NewOnce(hf, "fill:rates",
		func(ctx context.Context) (string, bool, error) {
			v, err := cache.Get(ctx)
			return string(v.Data), v.Version != 0, err
		},
		func(ctx context.Context, l *holdfast.Lease) (string, error) {
			fmt.Println("computed")
			_, err := cache.Set(ctx, []byte("1.17"), time.Hour)
			return "1.17", err
		})
	for range 2 {
		fmt.Println(rates.Get(ctx))
	}
	// Output:
	// computed
	// 1.17 <nil>
	// 1.17 <nil>
}

func ExampleCond() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	m := hf.Mutex("shelf")
	filled := m.Cond("shelf-filled")
	shelf := hf.Item("shelf-content")

	done := make(chan struct{})
	go func() {
		defer close(done)
		l, err := m.Lock(ctx)
		for err == nil {
			v, _ := shelf.Get(ctx)
			if v.Version != 0 {
				fmt.Printf("took %s\n", v.Data)
				break
			}
			l, err = filled.Wait(ctx, l) // gives the lock back, sleeps, locks again
		}
		l.Unlock()
	}()

	m.Do(ctx, func(ctx context.Context, _ *holdfast.Lease) error {
		shelf.Set(ctx, []byte("a book"), 0)
		return filled.Signal(ctx)
	})
	<-done
	// Output: took a book
}

func ExampleElection() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	scheduler := hf.Election("scheduler")
	term, err := scheduler.Campaign(ctx, []byte("10.0.0.7:8080"))
	if err != nil {
		return
	}
	for leader, err := range scheduler.Observe(ctx) { // anywhere
		fmt.Printf("%s %v\n", leader.Value, err)
		break
	}
	fmt.Println(term.Resign())
	// Output:
	// 10.0.0.7:8080 <nil>
	// <nil>
}

func ExampleItem() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	config := hf.Item("config")
	first, _ := config.Set(ctx, []byte("blue"), 0)
	config.Set(ctx, []byte("green"), 0) // somebody else

	_, err := config.CompareAndSet(ctx, first.Version, []byte("red"), 0)
	fmt.Println(err != nil)

	locked, _ := config.GetAndLock(ctx)
	fmt.Printf("%s\n", locked.Data)
	fmt.Println(locked.UpdateAndUnlock(ctx, []byte("red"), 0))
	// Output:
	// true
	// green
	// <nil>
}

func ExampleAssignment() {
	ctx, cancel := context.WithCancel(context.Background())
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	workers := hf.Assignment("mailboxes", holdfast.AssignmentConfig{Partitions: 1})
	err := workers.Run(ctx, func(ctx context.Context, p *holdfast.Partition) error {
		fmt.Println("has partition", p.Number)
		cancel() // a real one goes on until it is told
		<-p.Draining()
		return nil
	})
	fmt.Println(err != nil)
	// Output:
	// has partition 0
	// true
}
