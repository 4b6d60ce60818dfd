// Command cache fills a cache that many callers need at the same moment, once.
//
// Run it in two terminals:
//
//	go run ./cache
//
// Every few seconds a hundred callers of each instance want a value that takes two seconds to
// make. When it has run out one of them makes it; the others, of both instances, wait for
// that one and get what it made. Then try this:
//
//   - kill -9 the one that says "making": a caller of the other makes it in its place, at once on
//     files, after the TTL of the lock on a server (-engine 'redis://127.0.0.1:6379?ttl=3s').
//   - -keep 1s: it has run out again when it is asked for next.
//
// The value and the lock are on the engine. While the value is there it costs one reading for all
// callers of an instance that ask together, and no lock.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/program"
)

func main() {
	every := flag.Duration("every", 3*time.Second, "time between stampedes")
	callers := flag.Int("callers", 100, "callers of this instance that come at once")
	keep := flag.Duration("keep", 10*time.Second, "how long the value is good for")
	program.Main(func(ctx context.Context, hf *holdfast.Client) error {
		c := newCache(hf, "rates", *keep, func(ctx context.Context) (string, error) {
			log.Print("making it")
			made := time.Now().Format(time.TimeOnly)
			return "the value of " + made, program.Sleep(ctx, 2*time.Second)
		})
		for {
			stampede(ctx, c, *callers)
			if err := program.Sleep(ctx, *every); err != nil {
				return err
			}
		}
	})
}

// newCache returns what gets the value, and has it made where it is not there. A load that
// fails fails the callers that share it; what they do then is up to them.
func newCache(hf *holdfast.Client, name string, keep time.Duration, build func(context.Context) (string, error)) *holdfast.Once[string] {
	stored := hf.Item("cache:" + name)
	load := func(ctx context.Context) (string, bool, error) {
		v, err := stored.Get(ctx)
		return string(v.Data), v.Version != 0, err
	}
	return holdfast.NewOnce(hf, "cache:"+name, load, func(ctx context.Context, _ *holdfast.Lease) (string, error) {
		value, err := build(ctx)
		if err != nil {
			return "", err
		}
		// Only where there is still none: who was paused past its lease while it made the
		// value does not write over a newer one, and returns that instead.
		v, err := stored.CompareAndSet(ctx, 0, []byte(value), keep)
		if errors.Is(err, holdfast.ErrStale) {
			return string(v.Data), nil
		}
		return value, err
	})
}

// stampede has callers ask all at once, and tells what they got.
func stampede(ctx context.Context, c *holdfast.Once[string], callers int) {
	var all sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for range callers {
		all.Go(func() {
			value, err := c.Get(ctx)
			if err != nil {
				value = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			got[value]++
		})
	}
	all.Wait()
	for value, n := range got {
		log.Printf("%d callers got: %s", n, value)
	}
}
