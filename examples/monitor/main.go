// Command monitor is a queue with room for five that processes share: a monitor, with a condition for
// "not full" and one for "not empty".
//
// Run it in two terminals:
//
//	go run ./monitor -put
//	go run ./monitor
//
// Whoever is faster waits for the other. Then try this:
//
//   - more of either kind, on several machines (-engine redis://127.0.0.1:6379): each thing is
//     taken once.
//   - kill -9 one that waits: a signal that was meant for it is lost with it, so those who wait
//     look again by themselves now and then.
//   - kill -9 one that takes: what it had taken out is gone. A queue that must not lose anything
//     keeps it until it was handled, as in ../consumers.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/program"
)

func main() {
	put := flag.Bool("put", false, "put things in, in place of taking them out")
	pause := flag.Duration("pause", time.Second, "between two of them")
	program.Main(func(ctx context.Context, hf *holdfast.Client) error {
		q := newQueue(hf, "queue", 5)
		for n := 1; ; n++ {
			thing, err := fmt.Sprintf("%d of process %d", n, os.Getpid()), error(nil)
			if *put {
				err = q.put(ctx, thing)
			} else {
				thing, err = q.take(ctx)
			}
			if err != nil {
				return err
			}
			log.Print(thing)
			if err := program.Sleep(ctx, *pause); err != nil {
				return err
			}
		}
	})
}

// queue is first in, first out, and has a capacity.
type queue struct {
	lock              *holdfast.Mutex
	notFull, notEmpty *holdfast.Cond
	stored            *holdfast.Item // the things, as a list in JSON
	capacity          int
	patience          time.Duration // after which one that waits looks by itself
}

func newQueue(hf *holdfast.Client, name string, capacity int) *queue {
	lock := hf.Mutex(name)
	return &queue{lock, lock.Cond(name + ":not-full"), lock.Cond(name + ":not-empty"), hf.Item(name), capacity, 5 * time.Second}
}

// put waits until there is room, or ctx ends. After an error of unknown outcome the thing may be in.
func (q *queue) put(ctx context.Context, thing string) error {
	full := func(things []string) bool { return len(things) >= q.capacity }
	return q.change(ctx, full, q.notFull, q.notEmpty, func(things []string) []string { return append(things, thing) })
}

// take waits until there is something, or ctx ends. After an error of unknown outcome it may be out.
func (q *queue) take(ctx context.Context) (thing string, err error) {
	empty := func(things []string) bool { return len(things) == 0 }
	err = q.change(ctx, empty, q.notEmpty, q.notFull, func(things []string) []string {
		thing = things[0]
		return things[1:]
	})
	return thing, err
}

// change is what a monitor is: with the lock held it waits in a loop while what it needs is not there,
// changes what is guarded, and wakes one of those for whom that is good news.
func (q *queue) change(ctx context.Context, notReady func([]string) bool, wait, wake *holdfast.Cond, do func([]string) []string) error {
	for l, err := q.lock.Lock(ctx); ; l, err = q.sleep(ctx, wait, l) {
		if err != nil {
			return err // and there is no lease
		}
		things, version, err := q.read(ctx)
		if err == nil && notReady(things) {
			continue
		}
		defer l.Unlock() // where it fails the lock runs out
		if err != nil {
			return err
		}
		data, _ := json.Marshal(do(things)) // strings never fail
		// Refused if the queue was changed since: this process was paused past its lease.
		if _, err := q.stored.CompareAndSet(ctx, version, data, 0); err != nil {
			return err
		}
		wake.Signal(ctx) // where it fails they look by themselves, as what is stored is stored
		return nil
	}
}

func (q *queue) read(ctx context.Context) (things []string, version int64, err error) {
	v, err := q.stored.Get(ctx)
	if err == nil && v.Version > 0 {
		err = json.Unmarshal(v.Data, &things)
	}
	return things, v.Version, err
}

// sleep gives l back and returns another lease once it was woken, or its patience ends: a signal
// is lost with a waiter that died.
func (q *queue) sleep(ctx context.Context, wait *holdfast.Cond, l *holdfast.Lease) (*holdfast.Lease, error) {
	patience, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	l, err := wait.Wait(patience, l)
	if err != nil && patience.Err() != nil && ctx.Err() == nil {
		return q.lock.Lock(ctx)
	}
	return l, err
}
