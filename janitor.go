package holdfast

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// janitor releases what may have been granted without anybody holding it: after a reply that
// never came, a caller that was gone, a release that failed. A few workers exist while there
// is something to clean, and none otherwise.
type janitor struct {
	client  *Client
	mu      sync.Mutex
	tasks   []cleanup
	workers int
	closed  bool
	done    sync.WaitGroup
	stop    chan struct{} // closed by close
}

// cleanup is a release that is owed to the engine.
type cleanup struct {
	claim     driver.Claim
	notBefore driver.Instant
	until     driver.Instant // the TTL is over by then, whatever was granted
}

// maxCleaners is enough to keep up with many names through one slow engine.
const maxCleaners = 4

// leastPatience is for how long a clean-up is tried at least, for engines whose shares do
// not end by themselves.
const leastPatience = time.Minute

// clean releases claim in the background.
func (j *janitor) clean(claim driver.Claim, ttl time.Duration) { j.cleanAfter(0, claim, ttl) }

// cleanAfter releases claim in the background once delay has passed.
func (j *janitor) cleanAfter(delay time.Duration, claim driver.Claim, ttl time.Duration) {
	now := j.client.clock.Now()
	if !j.client.caps.Expires {
		ttl = max(ttl, leastPatience)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.tasks = append(j.tasks, cleanup{claim: claim, notBefore: now.Add(delay), until: now.Add(delay + ttl)})
	if j.workers < maxCleaners {
		j.workers++
		j.done.Go(j.work)
	}
}

// work carries out tasks until there are none left.
func (j *janitor) work() {
	for {
		j.mu.Lock()
		if len(j.tasks) == 0 || j.closed {
			j.workers--
			j.mu.Unlock()
			return
		}
		t := j.tasks[0]
		j.tasks = j.tasks[1:]
		j.mu.Unlock()
		j.carryOut(t)
	}
}

// carryOut releases until the engine gives a definite answer.
func (j *janitor) carryOut(t cleanup) {
	c := j.client
	pause := 50 * time.Millisecond
	j.sleep(t.notBefore.Sub(c.clock.Now()))
	for c.clock.Now() < t.until {
		ctx, cancel := context.WithTimeout(context.Background(), c.cfg.ReleaseTimeout)
		err := c.engine.Release(ctx, t.claim)
		cancel()
		var d *driver.Error
		if err == nil || errors.As(err, &d) && d.Kind != driver.Unavailable {
			return
		}
		if !j.sleep(pause) {
			break
		}
		pause = min(2*pause, 5*time.Second)
	}
	if c.cfg.Logger != nil {
		c.cfg.Logger.Warn("lock could not be released, its TTL has to end it", "name", t.claim.Name, "engine", c.caps.Engine)
	}
}

// sleep waits for d and reports whether the janitor is still open then.
func (j *janitor) sleep(d time.Duration) bool {
	if d > 0 {
		over := make(chan struct{})
		timer := j.client.clock.AfterFunc(d, func() { close(over) })
		defer timer.Stop()
		select {
		case <-over:
		case <-j.stop:
		}
	}
	select {
	case <-j.stop:
		return false
	default:
		return true
	}
}

// close tries what is left once more, and ends.
func (j *janitor) close() {
	j.mu.Lock()
	j.closed = true
	rest := j.tasks
	j.tasks = nil
	close(j.stop)
	j.mu.Unlock()
	j.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), j.client.cfg.ReleaseTimeout)
	defer cancel()
	for _, t := range rest {
		if err := j.client.engine.Release(ctx, t.claim); err != nil && ctx.Err() != nil {
			return
		}
	}
}
