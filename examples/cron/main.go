// Command cron runs a job at every tick of the clock, once for all instances together.
//
// Run it in two terminals:
//
//	go run ./cron -every 10s
//
// Each tick is done by one of them. Then try this:
//
//   - kill -9 the one that says "running": the other does that tick again once the lock is free, at
//     once on files, after the TTL on a server (-engine 'redis://127.0.0.1:6379?ttl=3s').
//   - start one with -ahead 3s, as on a machine whose clock is wrong. It comes first now; the others
//     find the tick done.
//
// A tick is a moment on the clock, so that all machines mean the same one, and the last that was
// done is stored. Whoever gets the lock looks there first; who comes later, because its clock is
// behind or because it waited for the lock, has nothing left to do. A tick is done at least once: a job
// that was done when its instance died, and was not noted yet, is done again. Where that matters
// have the job note the tick itself, in the transaction of its results. Ticks that come while the
// job of an earlier one runs may be left out, and so are those at which no instance runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/program"
)

func main() {
	every := flag.Duration("every", 10*time.Second, "time between ticks")
	takes := flag.Duration("takes", 3*time.Second, "how long the job takes")
	ahead := flag.Duration("ahead", 0, "how far this machine's clock is ahead; negative: behind")
	program.Main(func(ctx context.Context, hf *holdfast.Client) error {
		c := newCron(hf, "report", *every, func(ctx context.Context, tick time.Time) error {
			log.Printf("running %s", stamp(tick))
			return program.Sleep(ctx, *takes)
		})
		c.now = func() time.Time { return time.Now().Add(*ahead) }
		return c.run(ctx)
	})
}

// cron is one instance of a job that many run.
type cron struct {
	lock  *holdfast.Mutex
	last  *holdfast.Item // the last tick that was done
	every time.Duration
	job   func(ctx context.Context, tick time.Time) error
	now   func() time.Time
}

func newCron(hf *holdfast.Client, name string, every time.Duration, job func(context.Context, time.Time) error) *cron {
	return &cron{lock: hf.Mutex("cron:" + name), last: hf.Item("cron:" + name), every: every, job: job, now: time.Now}
}

// run does its part of every tick until ctx ends.
func (c *cron) run(ctx context.Context) error {
	if c.every <= 0 {
		return fmt.Errorf("every is %v: it must be positive", c.every)
	}
	for {
		tick := c.now().Truncate(c.every).Add(c.every)
		// The clock is read again after the sleep: it may have been set back meanwhile.
		for left := tick.Sub(c.now()); left > 0; left = tick.Sub(c.now()) {
			if err := program.Sleep(ctx, left); err != nil {
				return err
			}
		}
		// What fails, because the engine does not answer for example, is tried until the next tick.
		for err := c.do(ctx, tick); err != nil && ctx.Err() == nil; err = c.do(ctx, tick) {
			log.Printf("tick %s: %v", stamp(tick), err)
			if !c.now().Before(tick.Add(c.every)) {
				break
			}
			if err := program.Sleep(ctx, min(time.Second, c.every/10)); err != nil {
				return err
			}
		}
	}
}

// do waits for its turn and runs the job unless the tick is done. It waits where others are
// busy with that tick, for they may die.
func (c *cron) do(ctx context.Context, tick time.Time) error {
	return c.lock.Do(ctx, func(ctx context.Context, _ *holdfast.Lease) error {
		was, err := c.last.Get(ctx)
		if err != nil {
			return err
		}
		last, err := parse(was)
		if err != nil {
			return err
		}
		if ahead := last.Sub(c.now()); ahead > c.every {
			return fmt.Errorf("%s was done already, %v ahead of this machine: set the clock that is wrong", stamp(last), ahead)
		}
		if !last.Before(tick) {
			return nil
		}
		if err := c.job(ctx, tick); err != nil {
			return err
		}
		// Refused if another instance has noted a tick since: this one was paused past its lease.
		if _, err := c.last.CompareAndSet(ctx, was.Version, []byte(stamp(tick)), 0); err != nil {
			return err
		}
		log.Printf("done %s", stamp(tick))
		return nil
	})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// parse returns the tick that is stored, the zero time where none is.
func parse(v holdfast.ItemValue) (time.Time, error) {
	if v.Version == 0 {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, string(v.Data))
}
