package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// holders is how many goroutines take and release the leases that are then held.
const holders = 64

// takeWithin bounds how long taking all leases may take: a library may hang.
const takeWithin = 30 * time.Second

var errTooLong = fmt.Errorf("the leases were not all taken within %v", takeWithin)

// hold takes many leases, keeps them for the duration and gives them back.
func (w *worker) hold() (*result, error) {
	// Only the renewals end before the leases do.
	renewing, stopRenewing := context.WithCancel(context.Background())
	defer stopRenewing()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	tooLong := time.AfterFunc(takeWithin, func() { cancel(errTooLong) })
	k := &keeper{ctx: renewing, lockers: make([]locker, w.Leases)}
	keys := make([]string, w.Leases)
	for i := range keys {
		keys[i] = fmt.Sprint("bench:hold:", i)
	}
	heap, stack := memory()
	began := time.Now()
	err := inParallel(w.Leases, func(i int) error {
		k.lockers[i] = w.peer.locker(keys[i])
		if err := k.lockers[i].lock(ctx); err != nil {
			return err
		}
		k.keep(k.lockers[i])
		return nil
	})
	r := &result{Acquire: new(histogram), Handover: new(histogram), Acquired: time.Since(began), Cycles: uint64(w.Leases)}
	if !tooLong.Stop() {
		err = errTooLong
	}
	if err != nil {
		return nil, err
	}
	heapAfter, stackAfter := memory()
	r.HeapBytes, r.StackBytes = heapAfter-heap, stackAfter-stack
	before, err := w.usage()
	if err != nil {
		return nil, err
	}
	time.Sleep(w.Duration)
	after, err := w.usage()
	if err != nil {
		return nil, err
	}
	after.into(r, before)
	stopRenewing()
	k.renewals.Wait()
	lost := k.lost.Load()
	_ = inParallel(w.Leases, func(i int) error {
		if k.lockers[i].unlock() != nil {
			k.lost.Add(1)
		}
		return nil
	})
	r.Lost = int(max(lost, k.lost.Load()-lost))
	runtime.KeepAlive(keys)
	return r, w.peer.close()
}

// keeper renews the leases of libraries that do not do so by themselves, as their users do:
// a goroutine with a ticker for each.
type keeper struct {
	ctx      context.Context
	lockers  []locker
	renewals sync.WaitGroup
	lost     atomic.Int64
}

func (k *keeper) keep(l locker) {
	e, ok := l.(extender)
	if !ok {
		return
	}
	k.renewals.Go(func() {
		tick := time.NewTicker(ttl / 3)
		defer tick.Stop()
		for {
			select {
			case <-k.ctx.Done():
				return
			case <-tick.C:
			}
			if err := e.extend(k.ctx); err != nil && k.ctx.Err() == nil {
				k.lost.Add(1)
				return
			}
		}
	})
}

// inParallel calls f for 0 to n-1 and returns one of the errors.
func inParallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var failure atomic.Pointer[error]
	var running sync.WaitGroup
	for range holders {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failure.Store(&err)
				}
			}
		})
	}
	running.Wait()
	if err := failure.Load(); err != nil {
		return *err
	}
	return nil
}

// memory is what is in use after a collection: the heap, and the goroutines' stacks.
func memory() (heap, stack int64) {
	runtime.GC()
	runtime.GC() // the first one leaves what pools keep for one more round
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), int64(m.StackInuse)
}
