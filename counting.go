package holdfast

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

const (
	// maxSteps is how many steps go out in one call. Beyond that the call grows longer, not cheaper.
	maxSteps = 128

	// countTimeout bounds every call, so that an engine that hangs does not hold up those who
	// come later for ever. Each caller leaves when its own context ends.
	countTimeout = 5 * time.Second
)

// counting sends the steps of counters, limiters and sequences. A lone step goes out at once
// from the caller's goroutine. While a call is under way, those that come meanwhile gather
// and go out together: many goroutines cost one round trip at a time.
type counting struct {
	client *Client

	mu      sync.Mutex
	busy    bool         // a call is under way
	closed  bool         // nothing more goes out
	waiting []*countStep // for the next call
	senders sync.WaitGroup

	free sync.Pool // of *countStep: each was answered, and its caller saw that
}

// countStep is the step of one caller.
type countStep struct {
	driver.Count
	at     int   // which step of the call it is part of,
	nth    int64 // and which of its times it is
	answer driver.Counted
	done   chan struct{} // signalled when the answer is there
}

// count carries out one step, which was checked.
func (c *Client) count(ctx context.Context, op string, step driver.Count) (driver.Counted, error) {
	if c.closed.Load() {
		return driver.Counted{}, c.fail(op, step.Name, ErrClosed, nil)
	}
	if err := ctx.Err(); err != nil {
		return driver.Counted{}, c.fail(op, step.Name, nil, err)
	}
	answer := c.counting.do(ctx, step)
	if answer.Err != nil {
		return answer, c.wrap(op, step.Name, answer.Err)
	}
	return answer, nil
}

func (g *counting) do(ctx context.Context, step driver.Count) driver.Counted {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return driver.Counted{Err: driver.Fail(driver.Closed, nil)}
	}
	if !g.busy {
		g.busy = true
		g.mu.Unlock()
		answer := g.call(ctx, []driver.Count{step})[0]
		g.next()
		return answer
	}
	s, _ := g.free.Get().(*countStep)
	if s == nil {
		s = &countStep{done: make(chan struct{}, 1)}
	}
	s.Count = step
	g.waiting = append(g.waiting, s)
	g.mu.Unlock()
	select {
	case <-s.done:
		answer := s.answer
		s.answer = driver.Counted{}
		g.free.Put(s)
		return answer
	case <-ctx.Done():
		return driver.Counted{Err: g.leave(s, ctx.Err())}
	}
}

// leave takes s out of those that wait. One that is on its way may count.
func (g *counting) leave(s *countStep, why error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range g.waiting {
		if other == s {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return driver.Fail(driver.Unavailable, why)
		}
	}
	return &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: why}
}

// next ends a call: what gathered meanwhile goes out from a goroutine of its own, which is
// there only as long as there is more.
func (g *counting) next() {
	if batch := g.take(); batch != nil {
		g.senders.Go(func() {
			for ; batch != nil; batch = g.take() {
				g.send(batch)
				// Who was answered often asks again at once: they share the next call.
				runtime.Gosched()
			}
		})
	}
}

// take returns the steps for the next call, or nil when there are none; then nobody is busy
// any more.
func (g *counting) take() []*countStep {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxSteps)
	if n == 0 {
		g.busy = false
		return nil
	}
	batch := append([]*countStep(nil), g.waiting[:n]...)
	g.waiting = append(g.waiting[:0], g.waiting[n:]...)
	return batch
}

func (g *counting) send(batch []*countStep) {
	steps := merge(batch)
	answers := g.call(g.client.renewer.ctx, steps)
	for _, s := range batch {
		s.answer = steps[s.at].Nth(answers[s.at], s.nth)
		s.done <- struct{}{}
	}
}

// call makes one call on the engine. Where it ends by itself or with the client, the errors say
// so: callers would take that of a context for their own's.
func (g *counting) call(ctx context.Context, steps []driver.Count) []driver.Counted {
	bounded, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	answers := g.client.countNow(bounded, steps)
	closed := g.client.closed.Load()
	if bounded.Err() == nil || ctx.Err() != nil && !closed {
		return answers
	}
	for i := range answers {
		var d *driver.Error
		switch errors.As(answers[i].Err, &d); {
		case d == nil || !errors.Is(d.Err, bounded.Err()):
		case closed:
			answers[i].Err = &driver.Error{Kind: driver.Closed, Outcome: d.Outcome}
		default:
			answers[i].Err = &driver.Error{Kind: driver.Unavailable, Outcome: d.Outcome, Err: fmt.Errorf("no answer within %v", countTimeout)}
		}
	}
	return answers
}

// close ends the calls under way, whose context has ended by now, and those that wait.
func (g *counting) close() {
	g.mu.Lock()
	g.closed = true
	waiting := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	for _, s := range waiting {
		s.answer = driver.Counted{Err: driver.Fail(driver.Closed, nil)}
		s.done <- struct{}{}
	}
	g.senders.Wait()
}

// merge makes one step of all that are alike, and tells each of the batch which one it is in
// and as what number. On an engine that is as if each went out by itself, right after each other:
// a step joins an earlier one unless another of that name came in between.
func merge(batch []*countStep) []driver.Count {
	var steps []driver.Count
	last := map[string]int{} // the last step of each name
	for _, s := range batch {
		at, known := last[s.Name]
		if known && alike(steps[at], s.Count) {
			steps[at].Times++
		} else {
			at = len(steps)
			last[s.Name] = at
			steps = append(steps, s.Count)
			steps[at].Times = 1
		}
		s.at, s.nth = at, steps[at].Times
	}
	return steps
}

// alike reports whether many, carried out once more, is one as well.
func alike(many, one driver.Count) bool {
	once := many
	once.Times = one.Times
	return once == one && (one.N == 0 || many.Times < driver.MaxTotal/max(one.N, -one.N))
}

// countNow carries out steps on the engine, in the way that it has.
func (c *Client) countNow(ctx context.Context, steps []driver.Count) []driver.Counted {
	switch e := c.engine.(type) {
	case driver.Counters:
		return e.Count(ctx, steps)
	case driver.Values:
		return countByValues(ctx, e, steps)
	}
	answers := make([]driver.Counted, len(steps))
	for i := range answers {
		answers[i].Err = driver.Failf(driver.Unsupported, "%s cannot count", c.caps.Engine)
	}
	return answers
}

// countByValues counts on an engine that compares and stores: everything for one name in one
// write, again from the start when another process was faster.
func countByValues(ctx context.Context, values driver.Values, steps []driver.Count) []driver.Counted {
	answers := make([]driver.Counted, len(steps))
	done := make([]bool, len(steps))
	for i := range steps {
		if done[i] {
			continue
		}
		var same []int
		for k := i; k < len(steps); k++ {
			if steps[k].Name == steps[i].Name {
				same, done[k] = append(same, k), true
			}
		}
		if err := countName(ctx, values, steps, same, answers); err != nil {
			for _, k := range same {
				answers[k] = driver.Counted{Err: err}
			}
		}
	}
	return answers
}

// countName carries out the steps of one name.
func countName(ctx context.Context, values driver.Values, steps []driver.Count, same []int, answers []driver.Counted) error {
	name := steps[same[0]].Name
	now, err := values.ReadValue(ctx, name)
	for tries := 0; err == nil; tries++ {
		data, ttl := now.Data, now.TTL
		for _, k := range same {
			keep, lives, answer := steps[k].Apply(data, now.Now)
			if answer.Err == nil {
				data, ttl = keep, lives
			}
			answers[k] = answer
		}
		if string(data) == string(now.Data) {
			return nil
		}
		w := driver.Write{Name: name, Data: data, Delete: data == nil, If: now.Version}
		if ttl > 0 {
			w.TTL = max(ttl.Truncate(time.Millisecond)+time.Millisecond, time.Millisecond) // not shorter
		}
		now, err = values.WriteValue(ctx, w)
		if err == nil {
			return nil
		}
		var d *driver.Error
		if errors.As(err, &d) && d.Kind == driver.Stale {
			err = pauseBriefly(ctx, tries)
		}
	}
	return err
}

// pauseBriefly lets the one who was faster get on, the longer the more often that happened.
func pauseBriefly(ctx context.Context, tries int) error {
	longest := time.Duration(min(tries, 10)) * time.Millisecond
	if longest == 0 {
		return nil
	}
	timer := time.NewTimer(rand.N(longest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return driver.Fail(driver.Unavailable, ctx.Err())
	}
}
