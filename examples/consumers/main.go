// Command consumers reads the partitions of a stream, each by one instance at a time. When an
// instance comes or goes partitions move, as few as possible, and each is handed over between two messages.
//
// Run it in two terminals, and later in a third:
//
//	go run ./consumers
//
// Twelve partitions spread over them. Then try this:
//
//   - Ctrl-C: that instance finishes its messages and leaves; the others go on where it was.
//   - kill -9: the same after the TTL (10 s, or -engine 'redis://127.0.0.1:6379?ttl=3s'), and at most one
//     message of each of its partitions is handled a second time.
//   - -takes 8s: longer than the hand-over may take. The handler's context ends, and the next owner
//     begins that message again.
//
// Where a partition has got to is an item that is written with every message, if it is as this
// consumer has left it. Each owner writes it once before the first message: from then on an
// owner that was paused past its lease can note nothing any more. Messages are handled at least once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"strconv"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/program"
)

func main() {
	takes := flag.Duration("takes", time.Second, "how long a message takes")
	program.Main(func(ctx context.Context, hf *holdfast.Client) error {
		return run(ctx, hf, func(ctx context.Context, partition, message int) error {
			log.Printf("partition %d: message %d", partition, message)
			return program.Sleep(ctx, *takes)
		})
	})
}

const partitions = 12

// run consumes whatever share of the partitions this instance gets, until ctx ends.
func run(ctx context.Context, hf *holdfast.Client, handle func(ctx context.Context, partition, message int) error) error {
	group := hf.Assignment("consumers", holdfast.AssignmentConfig{Partitions: partitions, Drain: 5 * time.Second})
	return group.Run(ctx, func(ctx context.Context, p *holdfast.Partition) error {
		log.Printf("partition %d: begins, fence %d", p.Number, p.Fence())
		next, err := consume(ctx, hf.Item(fmt.Sprintf("consumers:%d", p.Number)), p, handle)
		if err != nil { // then it begins again after a moment, here or elsewhere
			log.Printf("partition %d: %v", p.Number, err)
		}
		log.Printf("partition %d: ends before message %d", p.Number, next)
		return err
	})
}

// consume handles messages until the partition is to go elsewhere. It returns the next one.
func consume(ctx context.Context, offset *holdfast.Item, p *holdfast.Partition, handle func(context.Context, int, int) error) (int, error) {
	next, at, err := take(ctx, offset)
	for err == nil {
		select {
		case <-p.Draining():
			return next, nil
		default:
		}
		// A real stream is asked for the message here, and for a while: <-p.Draining() ends that too.
		if err = handle(ctx, p.Number, next); err != nil {
			return next, err
		}
		if at, err = offset.CompareAndSet(ctx, at.Version, []byte(strconv.Itoa(next+1)), 0); err == nil {
			next++
		}
	}
	return next, err
}

// take reads the offset and writes it again: an earlier owner's version is out of date then.
func take(ctx context.Context, offset *holdfast.Item) (next int, at holdfast.ItemValue, err error) {
	at, err = offset.Get(ctx)
	for err == nil {
		if next = 0; at.Version > 0 {
			if next, err = strconv.Atoi(string(at.Data)); err != nil {
				return 0, at, err
			}
		}
		at, err = offset.CompareAndSet(ctx, at.Version, []byte(strconv.Itoa(next)), 0)
		if err == nil {
			return next, at, nil
		}
		if errors.Is(err, holdfast.ErrStale) {
			err = nil // the earlier owner noted another message in between: at is what is there now
		}
	}
	return 0, at, err
}
