package zklock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

// history is what processes did with one name, each lease as long as its holder could believe
// in it.
type history struct {
	*lab
	clock driver.Clock

	mu     sync.Mutex
	leases []believed
	lost   int
}

type believed struct {
	from, to driver.Instant
	fence    int64
	asked    driver.Instant // when the call began
}

// testHistory has processes lock one name while servers, connections and sessions fail, and
// checks what every one of them believed: no two leases overlap, fences are in the order of
// grants, and nobody waits for ever. HOLDFAST_HISTORY is its length, HOLDFAST_SEED repeats
// the choices of a run, though not its timing.
func testHistory(t *testing.T, e *testserver.ZooKeeperEnsemble) {
	length := 5 * time.Second
	if d, err := time.ParseDuration(os.Getenv("HOLDFAST_HISTORY")); err == nil {
		length = d
	}
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	h := &history{clock: driver.BootClock()}
	h.lab = newEnsembleLab(t, e, zklock.Config{SessionTimeout: 3 * time.Second, Timeout: 300 * time.Millisecond})

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var processes sync.WaitGroup
	var proxies [][]*testserver.TCPProxy
	var visits [5]atomic.Int64
	for i := range visits {
		var mine []*testserver.TCPProxy
		var addrs []string
		for _, addr := range e.Addrs() {
			p := testserver.Proxy(t, addr)
			mine, addrs = append(mine, p), append(addrs, p.Addr())
		}
		proxies = append(proxies, mine)
		engine, own := h.open(addrs...), rand.New(rand.NewPCG(rng.Uint64(), 0))
		processes.Go(func() { h.process(ctx, engine, own, &visits[i]) })
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		h.fail(e, proxies, rng)
	}
	e.AllServe()
	// Nobody is stuck: with everything well again, everybody gets the lock once more.
	for i := range visits {
		before := visits[i].Load()
		h.eventually("process gets the lock again", func() bool { return visits[i].Load() > before })
	}
	stop()
	processes.Wait()
	h.check()
	t.Logf("%d leases, of which %d were lost", len(h.leases), h.lost)
	if len(h.leases) < 5 {
		t.Errorf("only %d leases: the run says little", len(h.leases))
	}
}

// process locks and unlocks, holding on to some leases for longer than they live unless they
// are renewed.
func (h *history) process(ctx context.Context, e *zklock.Engine, rng *rand.Rand, visits *atomic.Int64) {
	const ttl = 900 * time.Millisecond
	for ctx.Err() == nil {
		asked := h.clock.Now()
		req := request("n", driver.Exclusive, ttl)
		req.Wait = rng.IntN(5) > 0
		wait, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(5000))*time.Millisecond)
		g, err := e.Acquire(wait, req)
		cancel()
		if err != nil {
			// What may have been granted is given back, as the core does.
			_ = e.Release(ctx, req.Claim(driver.Grant{}))
			time.Sleep(10 * time.Millisecond)
			continue
		}
		b := believed{from: h.clock.Now(), fence: g.Fence, asked: asked}
		// A core stops believing a little before the end; so does this one.
		end := g.Sent.Add(g.Lives(ttl) - ttl/50)
		release := b.from.Add(time.Duration(rng.IntN(100)) * time.Millisecond)
		if rng.IntN(4) == 0 {
			release = b.from.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
		}
		lost := false
		for h.clock.Now() < min(release, end) {
			time.Sleep(min(ttl/6, max(0, release.Sub(h.clock.Now()))))
			sent := h.clock.Now()
			if sent >= end {
				break
			}
			renewal, cancel := context.WithTimeout(ctx, end.Sub(sent))
			err := e.Renew(renewal, []driver.Claim{req.Claim(g)})[0]
			cancel()
			var d *driver.Error
			if err == nil && h.clock.Now() < end {
				end = sent.Add(ttl - ttl/50)
			} else if errors.As(err, &d) && d.Kind == driver.Lost {
				lost = true
				break
			}
		}
		b.to = min(h.clock.Now(), end)
		h.mu.Lock()
		h.leases = append(h.leases, b)
		if lost || b.to == end {
			h.lost++
		}
		h.mu.Unlock()
		_ = e.Release(ctx, req.Claim(g))
		visits.Add(1)
	}
}

// fail does one thing to the ensemble or its network and takes it back after a while.
func (h *history) fail(e *testserver.ZooKeeperEnsemble, proxies [][]*testserver.TCPProxy, rng *rand.Rand) {
	pause := func(most int) { time.Sleep(time.Duration(50+rng.IntN(most)) * time.Millisecond) }
	one := proxies[rng.IntN(len(proxies))]
	switch what := rng.IntN(9); what {
	case 0:
		i := rng.IntN(3)
		e.Servers[i].Kill()
		pause(500)
		e.Servers[i].Start()
	case 1:
		i := rng.IntN(3)
		e.Servers[i].Pause()
		pause(2500)
		e.Servers[i].Resume()
	case 2:
		i := e.Follower()
		e.Part(i)
		pause(2500)
		e.Join(i)
	case 3, 4: // a process cut off, perhaps past its session
		for _, p := range one {
			p.Partition()
		}
		pause(5000)
		for _, p := range one {
			p.Heal()
		}
	case 5:
		for _, p := range one {
			p.Cut()
		}
	case 6, 7: // answers to whatever is under way
		for _, p := range one {
			p.CutAfterReplyBytes(rng.IntN(60))
		}
	case 8:
		for _, p := range one {
			p.Delay(time.Duration(rng.IntN(100)) * time.Millisecond)
		}
		pause(500)
		for _, p := range one {
			p.Delay(0)
		}
	}
	pause(300)
}

// check finds leases that overlap, and fences out of order.
func (h *history) check() {
	h.Helper()
	for i, a := range h.leases {
		for _, b := range h.leases[i+1:] {
			if a.from < b.to && b.from < a.to {
				h.Errorf("two leases at once: fence %d for %v, fence %d for %v, %v of it together",
					a.fence, a.to.Sub(a.from), b.fence, b.to.Sub(b.from), min(a.to, b.to).Sub(max(a.from, b.from)))
			}
			first, second := a, b
			if second.from < first.from {
				first, second = b, a
			}
			if first.from < second.asked && first.fence >= second.fence {
				h.Errorf("fence %d was granted before fence %d was asked for", first.fence, second.fence)
			}
		}
	}
}
