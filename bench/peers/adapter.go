package main

import (
	"context"
	"time"
)

// kind says what an adapter is to the comparison.
type kind string

const (
	ours      kind = "holdfast"
	byDefault kind = "peer"       // another library as it comes
	atBest    kind = "peer, best" // at the best setting that was found for it
	raw       kind = "raw"        // the bare commands
	yardstick kind = "yardstick"  // a limit, not a lock that one would use
	control   kind = "control"    // a broken lock
)

// adapter lets a library be measured.
type adapter struct {
	name  string
	kind  kind
	about string
	open  func(addr string) (peer, error) // addr is that of its server
}

// peer is a library at work in this process.
type peer interface {
	// locker returns one contender for the lock called key.
	locker(key string) locker
	close() error
}

// locker is used by one goroutine.
type locker interface {
	// lock waits until it has the lock or ctx ends.
	lock(ctx context.Context) error
	// unlock fails when the lock had been lost.
	unlock() error
}

// extender is a locker whose holders have to see to its renewal.
type extender interface {
	extend(ctx context.Context) error
}

const (
	// ttl is what leases are asked for where the library has no default: what holdfast has.
	ttl = 10 * time.Second

	// pollEvery is the best pause between two tries for those that poll.
	pollEvery = time.Millisecond
)

// pause sleeps for d unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
