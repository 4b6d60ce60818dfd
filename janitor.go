package holdfast

import (
	"context"
	"errors"
	"slices"
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
	kick    chan struct{} // buffered: there is a new task
	stop    chan struct{} // closed by close
}

// cleanup is a release that is owed to the engine.
type cleanup struct {
	claim driver.Claim
	due   driver.Instant
	until driver.Instant // the TTL is over by then, whatever was granted
	pause time.Duration  // before the next try
}

const (
	// maxCleaners is enough to keep up with many names through one slow engine.
	maxCleaners = 4

	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second

	// maxCleanups bounds what is remembered of an engine that does not answer.
	maxCleanups = 10_000
)

func newJanitor(c *Client) janitor {
	return janitor{client: c, kick: make(chan struct{}, 1), stop: make(chan struct{})}
}

// clean releases claim in the background.
func (j *janitor) clean(claim driver.Claim, ttl time.Duration) { j.cleanAfter(0, claim, ttl) }

// cleanAfter releases claim in the background once delay has passed. It is tried until the
// engine gives a definite answer or the TTL is over; on an engine that keeps shares until
// they are released, until the client is closed.
func (j *janitor) cleanAfter(delay time.Duration, claim driver.Claim, ttl time.Duration) {
	now := j.client.clock.Now()
	t := cleanup{claim: claim, due: now.Add(delay), until: forever, pause: firstPause}
	if j.client.caps.Expires {
		t.until = t.due.Add(ttl)
	}
	j.add(t)
}

func (j *janitor) add(t cleanup) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.tasks) >= maxCleanups {
		j.giveUp(t, errors.New("too many others have to be released as well"))
		return
	}
	j.tasks = append(j.tasks, t)
	if j.workers < maxCleaners && !j.closed {
		j.workers++
		j.done.Go(j.work)
	}
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// work carries out tasks until there are none left.
func (j *janitor) work() {
	for {
		t, wait, ok := j.next()
		if !ok {
			return
		}
		if wait > 0 {
			j.sleep(wait)
			continue
		}
		j.carryOut(t)
	}
}

// next takes the task that is due first. When none is due yet it says how long to sleep;
// when there is none, or the client was closed, the worker ends.
func (j *janitor) next() (t cleanup, wait time.Duration, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.client.clock.Now()
	j.tasks = slices.DeleteFunc(j.tasks, func(t cleanup) bool { return t.until <= now })
	if len(j.tasks) == 0 || j.closed {
		j.workers--
		return t, 0, false
	}
	first := 0
	for i := range j.tasks {
		if j.tasks[i].due < j.tasks[first].due {
			first = i
		}
	}
	if wait = j.tasks[first].due.Sub(now); wait > 0 {
		return t, wait, true
	}
	t = j.tasks[first]
	j.tasks = slices.Delete(j.tasks, first, first+1)
	return t, 0, true
}

// carryOut releases once, and puts the task back when the engine gave no definite answer.
func (j *janitor) carryOut(t cleanup) {
	c := j.client
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.ReleaseTimeout)
	err := c.engine.Release(ctx, t.claim)
	cancel()
	var d *driver.Error
	if err == nil || errors.As(err, &d) && d.Kind != driver.Unavailable {
		return
	}
	t.due = c.clock.Now().Add(t.pause)
	t.pause = min(2*t.pause, lastPause)
	if t.due < t.until {
		j.add(t)
	} else {
		j.giveUp(t, err)
	}
}

func (j *janitor) giveUp(t cleanup, why error) {
	if log := j.client.cfg.Logger; log != nil {
		log.Warn("lock could not be released, its TTL or the end of this process has to end it",
			"name", t.claim.Name, "engine", j.client.caps.Engine, "error", why)
	}
}

// sleep waits for d, a new task or the end.
func (j *janitor) sleep(d time.Duration) {
	over := make(chan struct{})
	timer := j.client.clock.AfterFunc(d, func() { close(over) })
	defer timer.Stop()
	select {
	case <-over:
	case <-j.kick:
	case <-j.stop:
	}
}

// halt lets the workers end: close carries out what is left.
func (j *janitor) halt() {
	j.mu.Lock()
	j.closed = true
	close(j.stop)
	j.mu.Unlock()
}

// close tries what is left once more, and ends.
func (j *janitor) close() {
	j.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), j.client.cfg.ReleaseTimeout)
	defer cancel()
	for ctx.Err() == nil {
		j.mu.Lock()
		tasks := j.tasks // calls that end only now may add to them
		j.tasks = nil
		j.mu.Unlock()
		if len(tasks) == 0 {
			return
		}
		for _, t := range tasks {
			if err := j.client.engine.Release(ctx, t.claim); err != nil && ctx.Err() != nil {
				return
			}
		}
	}
}
