package zklock

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	// sweepEvery is how often, give or take a half, a process looks for values that have ended
	// and that nobody writes any more.
	sweepEvery = 5 * time.Minute

	// sweepMost is how many values it looks at, and sweepTogether at how many at a time.
	sweepMost     = 1000
	sweepTogether = 16

	// sweepSpare is how long ago they must have ended by our clock, which may be ahead of
	// others.
	sweepSpare = time.Minute
)

// beginSweeping has this process sweep from now on, if it does not already.
func (e *Engine) beginSweeping() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.sweeping {
		return
	}
	e.sweeping = true
	e.work.Go(func() {
		for {
			timer := time.NewTimer(sweepEvery/2 + mathrand.N(sweepEvery))
			select {
			case <-timer.C:
			case <-e.done:
				timer.Stop()
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), sweepEvery)
			_, _ = e.sweepOnce(ctx, time.Now().Add(-sweepSpare)) // what fails is left to the next
			cancel()
		}
	})
}

// sweepOnce deletes values that had ended by then, and says how many. Of many values it looks
// at some, others each time. It reads the names of guards only, not the values.
func (e *Engine) sweepOnce(ctx context.Context, then time.Time) (swept int, err error) {
	if _, err := e.session.ready(ctx, e.patience(false)); err != nil {
		return 0, err
	}
	elements, err := e.childrenOf(ctx, e.valuesDir())
	if err != nil {
		return 0, err
	}
	mathrand.Shuffle(len(elements), func(i, k int) { elements[i], elements[k] = elements[k], elements[i] })
	for some := range slices.Chunk(elements[:min(len(elements), sweepMost)], sweepTogether) {
		var calls []<-chan result[bool]
		for _, element := range some {
			calls = append(calls, start(&e.session, func(c *zk.Conn) (bool, error) {
				return e.sweep(c, e.valuesDir()+"/"+element, then.UnixMicro())
			}))
		}
		for _, call := range calls {
			select {
			case r := <-call:
				if r.value {
					swept++
				}
				if r.err != nil {
					err = r.err
				}
			case <-ctx.Done():
				return swept, ctx.Err()
			}
		}
		if err != nil {
			return swept, err
		}
	}
	return swept, nil
}

// sweep deletes a value if it had ended by then, unless somebody writes it meanwhile.
func (e *Engine) sweep(c *zk.Conn, path string, then int64) (swept bool, err error) {
	guards, _, err := c.Children(path)
	if err == nil && len(guards) == 1 {
		if until := guardEnds(guards[0]); until != 0 && until <= then {
			_, err = c.Multi(&zk.DeleteRequest{Path: path + "/" + guards[0], Version: -1}, &zk.DeleteRequest{Path: path, Version: -1})
			swept = err == nil
		}
	}
	if errors.Is(err, zk.ErrNoNode) {
		err = nil
	}
	return swept, err
}
