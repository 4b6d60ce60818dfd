package interoptest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/pglock"
)

// crowd: 5,000 goroutines want 500 names, in two processes with a budget of 8 connections
// each. Everybody is served, nobody meets another, and the budget is kept.
func crowd(b *bench) {
	const goroutines, names, budget = 5000, 500, 8
	var clients []*holdfast.Client
	for i := range 2 {
		e := b.engine(drivers[i], pglock.Config{Connections: budget})
		c, err := holdfast.New(e, holdfast.Config{Owner: fmt.Sprint("crowd ", i)})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	var inside [names]atomic.Int32
	var served atomic.Int32
	var all sync.WaitGroup
	for i := range goroutines {
		all.Go(func() {
			n := i % names
			l, err := clients[i/names%2].Mutex(fmt.Sprint("crowd ", n)).Lock(ctx)
			if err != nil {
				b.Errorf("goroutine %d: %v", i, err)
				return
			}
			if inside[n].Add(1) > 1 {
				b.Errorf("two hold name %d", n)
			}
			time.Sleep(time.Millisecond)
			inside[n].Add(-1)
			if err := l.Unlock(); err != nil {
				b.Errorf("goroutine %d: unlock: %v", i, err)
			}
			served.Add(1)
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	most := 0
	began := time.Now()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(10 * time.Millisecond):
		}
		for i := range 2 {
			n := b.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", fmt.Sprint("holdfast crowd ", i))
			most = max(most, n)
		}
	}
	if most > budget {
		b.Errorf("%d sessions of a process at once, with a budget of %d", most, budget)
	}
	b.Logf("%d served in %v, with %d sessions of a process at most", served.Load(), time.Since(began), most)
}
