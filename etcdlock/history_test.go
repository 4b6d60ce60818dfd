package etcdlock_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
)

// historyLength is how long faults go on: HOLDFAST_ETCD_HISTORY says so, in seconds.
func historyLength(t *testing.T) time.Duration {
	seconds, err := strconv.Atoi(os.Getenv("HOLDFAST_ETCD_HISTORY"))
	if os.Getenv("HOLDFAST_ETCD_HISTORY") == "" {
		seconds, err = 10, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds) * time.Second
}

const (
	historyNames = 3
	historyTTL   = 3 * time.Second
)

// TestHistory: processes lock and unlock while members crash, freeze and are cut off, from each
// other and from clients. Nobody holds a lock whose last holder believes in it, fences grow, and
// when the faults are over everybody is served.
//
// HOLDFAST_ETCD_SEED repeats the faults of a run, though not what they meet.
func TestHistory(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("HOLDFAST_ETCD_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HOLDFAST_ETCD_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newLab(t, threeMembers)
	h := &history{l: l, last: map[string]*holdfast.Lease{}, fences: map[string]int64{}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for i, m := range l.cluster.Members() {
		// One process reaches one member, another all, through proxies that fail.
		addrs := l.cluster.ProxyAddrs()
		if i > 0 {
			addrs = []string{m.Proxy().Addr()}
		}
		c := l.process(historyTTL, addrs...)
		for range 2 * historyNames {
			own := rand.New(rand.NewPCG(rng.Uint64(), 0))
			h.workers.Go(func() { h.work(ctx, c, own) })
		}
	}
	h.faults(rng, time.Now().Add(historyLength(t)))
	before := h.count()
	l.eventually("everybody is served again", func() bool { return h.served(before) })
	stop()
	h.workers.Wait()
	t.Logf("%d grants, %d lost, faults: %v", h.count(), h.lost, h.events)
	for i := range historyNames {
		l.unlock(l.lock(l.process(historyTTL), fmt.Sprint("name", i)))
	}
}

// history is what the workers have seen.
type history struct {
	l       *lab
	workers sync.WaitGroup
	events  map[string]int

	mu     sync.Mutex
	last   map[string]*holdfast.Lease // of each name, nil when it was given back
	fences map[string]int64
	grants [historyNames]int
	lost   int
}

func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, g := range h.grants {
		n += g
	}
	return n
}

// served reports whether there have been some more grants than so many.
func (h *history) served(before int) bool { return h.count() >= before+20*historyNames }

func (h *history) work(ctx context.Context, c *holdfast.Client, rng *rand.Rand) {
	for ctx.Err() == nil {
		i := rng.IntN(historyNames)
		name := fmt.Sprint("name", i)
		asking, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(5000))*time.Millisecond)
		lease, err := c.Mutex(name).Lock(asking)
		cancel()
		if err != nil {
			select {
			case <-time.After(time.Duration(rng.IntN(50)) * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		h.enter(i, name, lease)
		hold := time.Duration(rng.IntN(30)) * time.Millisecond
		if rng.IntN(20) == 0 {
			hold = time.Duration(rng.IntN(int(2 * historyTTL))) // through a fault, and to the lease's end
		}
		select {
		case <-time.After(hold):
		case <-lease.Context().Done():
		}
		h.leave(name, lease)
		_ = lease.Unlock() // its outcome is the business of the clean-up
	}
}

// enter is called by a holder. The one before may not have noticed yet that its time is over,
// but its lease has to say so.
func (h *history) enter(i int, name string, lease *holdfast.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if lease.Remaining() == 0 {
		h.lost++
		return // it came too late, and says so
	}
	if last := h.last[name]; last != nil && last.Remaining() > 0 {
		h.l.Errorf("%s: granted with fence %d, and the holder of %d believes in %v more", name, lease.Fence(), last.Fence(), last.Remaining())
	}
	if lease.Fence() <= h.fences[name] {
		h.l.Errorf("%s: fence %d after %d", name, lease.Fence(), h.fences[name])
	}
	h.last[name], h.fences[name] = lease, lease.Fence()
	h.grants[i]++
}

func (h *history) leave(name string, lease *holdfast.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if lease.Remaining() == 0 {
		h.lost++
	}
	if h.last[name] == lease {
		h.last[name] = nil
	}
}

// faults breaks one thing after the other until end, and mends each.
func (h *history) faults(rng *rand.Rand, end time.Time) {
	h.events = map[string]int{}
	c := h.l.cluster
	pause := func(most int) { time.Sleep(time.Duration(100+rng.IntN(most)) * time.Millisecond) }
	for time.Now().Before(end) {
		m := c.Members()[rng.IntN(len(c.Members()))]
		if rng.IntN(2) == 0 {
			m = c.Leader()
		}
		kinds := []string{"kill", "pause", "isolate", "partition", "cut", "freeze replies"}
		kind := kinds[rng.IntN(len(kinds))]
		h.events[kind]++
		switch kind {
		case "kill":
			m.Kill()
			pause(2500)
			m.Start()
		case "pause":
			m.Pause()
			pause(5000)
			m.Resume()
		case "isolate":
			c.Isolate(m)
			pause(5000)
			c.Rejoin()
		case "partition":
			m.Proxy().Partition()
			pause(5000)
			m.Proxy().Heal()
		case "cut":
			m.Proxy().Cut()
		case "freeze replies":
			m.Proxy().FreezeDown()
			pause(4000)
			m.Proxy().Heal()
		}
		pause(500)
	}
	c.AwaitReady()
}
