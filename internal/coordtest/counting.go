package coordtest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast"
)

// take draws a number n times and keeps it, checking that numbers grow for one who waits for each.
func (x *env) take(s *holdfast.Sequence, n int, into *bag) {
	last := int64(0)
	for range n {
		got, err := s.Next(x.ctx)
		if err != nil {
			x.Errorf("Next: %v", err)
			return
		}
		if got <= last {
			x.Errorf("Next returned %d after %d", got, last)
		}
		last = got
		into.add(got)
	}
}

// distinct ends the case unless all numbers are.
func (x *env) distinct(b *bag, want int) []int64 {
	x.Helper()
	all := b.sorted()
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			x.Fatalf("%d was handed out twice", all[i])
		}
	}
	if len(all) != want {
		x.Fatalf("%d numbers of %d", len(all), want)
	}
	return all
}

func testSequence(x *env) {
	clients, name := x.clients(3), x.name()
	if n, err := clients[0].Sequence(name).Peek(x.ctx); n != 0 || err != nil {
		x.Fatalf("Peek of a new sequence: %d, %v", n, err)
	}
	var numbers bag
	each(clients, 4, func(c *holdfast.Client) { x.take(c.Sequence(name), 10, &numbers) })
	all := x.distinct(&numbers, 120)
	if all[0] != 1 || all[119] != 120 {
		x.Errorf("numbers are %d to %d: want 1 to 120", all[0], all[119])
	}
	block, err := clients[1].Sequence(name).Reserve(x.ctx, 1000)
	x.ok(err, "Reserve")
	if block.First != 121 || block.Last != 1120 {
		x.Errorf("Reserve returned %+v: want 121 to 1120", block)
	}
	if n, err := clients[2].Sequence(name).Peek(x.ctx); n != 1120 || err != nil {
		x.Errorf("Peek: %d, %v, want 1120", n, err)
	}
}

func testSequenceSource(x *env) {
	clients, name := x.clients(3), x.name()
	var asked atomic.Int64
	source := holdfast.WithSource(func(context.Context) (int64, error) {
		asked.Add(1)
		time.Sleep(50 * time.Millisecond) // long enough for the others to find out as well
		return 5000, nil
	})
	var numbers bag
	each(clients, 2, func(c *holdfast.Client) { x.take(c.Sequence(name, source), 5, &numbers) })
	all := x.distinct(&numbers, 30)
	if all[0] != 5001+holdfast.DefaultSequenceGap {
		x.Errorf("the first number is %d, after 5000 in the source and a gap", all[0])
	}
	if asked.Load() != 1 {
		x.Errorf("the source was asked %d times", asked.Load())
	}
	ahead := holdfast.WithSource(func(context.Context) (int64, error) { return 100_000, nil })
	x.ok(clients[0].Sequence(name, ahead).Resync(x.ctx), "Resync")
	n, err := clients[1].Sequence(name).Next(x.ctx)
	x.ok(err, "Next")
	if n != 100_001 {
		x.Errorf("after Resync to 100,000 the next number is %d", n)
	}
}

func testSequenceBlocks(x *env) {
	clients, name := x.clients(3), x.name()
	var numbers bag
	each(clients, 1, func(c *holdfast.Client) {
		s := c.Sequence(name, holdfast.WithBlock(10))
		each([]*holdfast.Client{c}, 4, func(*holdfast.Client) { x.take(s, 25, &numbers) })
	})
	if all := x.distinct(&numbers, 300); all[299] > 330 {
		x.Errorf("300 numbers from blocks of 10 go up to %d", all[299])
	}
}

func testCounter(x *env) {
	clients, name := x.clients(3), x.name()
	each(clients, 4, func(c *holdfast.Client) {
		for range 5 {
			if _, err := c.Counter(name, time.Hour).Add(x.ctx, 2); err != nil {
				x.Errorf("Add: %v", err)
			}
		}
	})
	n := clients[0].Counter(name, time.Hour)
	tally, err := n.Add(x.ctx, 0)
	x.ok(err, "Add")
	if tally.Total != 120 || tally.ResetIn <= 0 || tally.ResetIn > time.Hour {
		x.Errorf("60 times 2 were counted as %+v", tally)
	}
	x.ok(n.Reset(x.ctx), "Reset")
	if tally, err := n.Add(x.ctx, -3); tally.Total != -3 || err != nil {
		x.Errorf("after Reset: %+v, %v", tally, err)
	}
	short := clients[1].Counter(x.name(), x.TTL.Round(time.Millisecond))
	_, err = short.Add(x.ctx, 1)
	x.ok(err, "Add")
	x.eventually(func() bool { tally, err := short.Add(x.ctx, 0); return err == nil && tally.Total == 0 }, "a window ends")
}

func testLimiter(x *env) {
	clients := x.clients(3)
	for _, rate := range []holdfast.Rate{
		holdfast.FixedWindow(20, time.Hour), holdfast.SlidingWindow(20, time.Hour), holdfast.Pace(60, time.Hour, 20),
	} {
		name := x.name()
		var passed atomic.Int64
		each(clients, 4, func(c *holdfast.Client) {
			for range 3 {
				d, err := c.Limiter(name, rate).Allow(x.ctx, 1)
				if err != nil {
					x.Errorf("%v: %v", rate, err)
				}
				if d.Allowed {
					passed.Add(1)
				} else if d.RetryAfter <= 0 || d.Remaining != 0 {
					x.Errorf("%v refused: %+v", rate, d)
				}
			}
		})
		if passed.Load() != 20 {
			x.Errorf("%v let %d of 36 pass", rate, passed.Load())
		}
		x.ok(clients[0].Limiter(name, rate).Reset(x.ctx), "Reset")
		d, err := clients[1].Limiter(name, rate).Allow(x.ctx, 20)
		if err != nil || !d.Allowed {
			x.Errorf("%v after Reset: %+v, %v", rate, d, err)
		}
	}
}

func testLimiterWait(x *env) {
	clients, name := x.clients(2), x.name()
	rate := holdfast.Pace(10, 500*time.Millisecond, 2)
	began := time.Now()
	each(clients, 3, func(c *holdfast.Client) { // 12, 2 of them at once, one every 50 ms
		for range 2 {
			if err := c.Limiter(name, rate).Wait(x.ctx, 1); err != nil {
				x.Errorf("Wait: %v", err)
			}
		}
	})
	if took := time.Since(began); took < 499*time.Millisecond {
		x.Errorf("12 at a pace of one in 50 ms took %v", took)
	}
	slow := clients[0].Limiter(x.name(), holdfast.FixedWindow(1, time.Hour))
	x.ok(slow.Wait(x.ctx, 1), "Wait")
	x.fails(slow.Wait(x.ctx, 1), holdfast.ErrHeld, "Wait beyond the deadline")
	x.fails(slow.Wait(x.ctx, 1), context.DeadlineExceeded, "Wait beyond the deadline")
}
