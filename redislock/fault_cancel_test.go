package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// A waiter gives up in the instant in which the lock is passed to it: either it has the lock or
// the next one gets it, and nobody has to wait for a TTL.
func TestFaultCancelRacesGrant(t *testing.T) {
	t.Parallel()
	const lanes = 50
	l := newLab(t, testserver.RedisOptions{})
	r := &cancelRace{l: l, holder: l.process(), fickle: l.process(), patient: l.process()}
	rounds := scale(10_000) / lanes
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds)*300*time.Millisecond)
	defer cancel()
	r.ctx = ctx // a round takes a hundredth of that: waits for polls and offers would show
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(lane), 7))
			for range rounds {
				if !r.round(fmt.Sprintf("lane %d", lane), rng) {
					return
				}
			}
		})
	}
	all.Wait()
	l.Logf("%d rounds: %d times the one that gave up had the lock", lanes*rounds, r.won.Load())
	if won := r.won.Load(); won == 0 || won == int64(lanes*rounds) {
		l.Error("there was no race")
	}
	l.tidy()
}

type cancelRace struct {
	l                       *lab
	ctx                     context.Context
	holder, fickle, patient *holdfast.Client
	won                     atomic.Int64
}

func (r *cancelRace) round(name string, rng *rand.Rand) bool {
	long, cancelLong := context.WithTimeout(r.ctx, labPatience)
	defer cancelLong()
	first, err := r.holder.Mutex(name).Lock(long)
	if err != nil {
		r.l.Errorf("first lock: %v", err)
		return false
	}
	ctx, cancel := context.WithCancel(long)
	defer cancel()
	fence := make(chan int64, 1)
	go func() {
		lease, err := r.fickle.Mutex(name).Lock(ctx)
		switch {
		case err == nil:
			r.won.Add(1)
			fence <- lease.Fence()
			if err := lease.Unlock(); err != nil {
				r.l.Errorf("unlock: %v", err)
			}
			return
		case !errors.Is(err, context.Canceled):
			r.l.Errorf("the one that gave up: %v", err)
		}
		fence <- 0
	}()
	pause(rng, 3*time.Millisecond)
	both := make(chan struct{})
	go func() {
		defer close(both)
		pause(rand.New(rand.NewPCG(rng.Uint64(), 0)), 500*time.Microsecond)
		cancel()
	}()
	if err := first.Unlock(); err != nil {
		r.l.Errorf("unlock: %v", err)
		return false
	}
	last, err := r.patient.Mutex(name).Lock(long)
	<-both
	between := <-fence
	if err != nil {
		r.l.Errorf("the patient one: %v", err)
		return false
	}
	if last.Fence() <= first.Fence() || between != 0 && between <= first.Fence() || between == last.Fence() {
		r.l.Errorf("fences %d, %d, %d", first.Fence(), between, last.Fence())
	}
	if err := last.Unlock(); err != nil {
		r.l.Errorf("unlock: %v", err)
		return false
	}
	return true
}

func pause(rng *rand.Rand, most time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(most)))) }

// A request that arrives after the release of its token, as a copy in the network could: it
// costs others no more than the silence after which a waiter loses its place.
func TestFaultAcquireAfterRelease(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	slow := l.client(l.engineAt(p.Addr(), "timeout=10s"))
	l.unlock(l.lock(slow, "name"))
	for range 3 {
		lease := l.lock(l.process(), "name")
		p.FreezeUp() // the request is under way, and its caller gives up
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := slow.Mutex("name").Lock(ctx)
		cancel()
		l.failed(err, holdfast.ErrUnavailable, holdfast.Unknown)
		l.unlock(lease)
		p.Heal() // now it arrives
		l.unlock(l.lock(l.process(), "name"))
	}
	l.tidy()
}
