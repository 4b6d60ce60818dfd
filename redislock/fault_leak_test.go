package redislock_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// The tests of this file count goroutines, so they run alone.

// goroutines returns how many there are, once those that are about to end have ended.
func (l *lab) goroutines(most int) int {
	n := runtime.NumGoroutine()
	for deadline := time.Now().Add(labPatience); n > most && time.Now().Before(deadline); n = runtime.NumGoroutine() {
		time.Sleep(5 * time.Millisecond)
	}
	return n
}

// After Close nothing is left: no goroutine, no connection, no subscription, no key.
func TestFaultLeakAfterClose(t *testing.T) {
	l := newLab(t, testserver.RedisOptions{})
	l.do("PING")
	before := runtime.NumGoroutine()
	for _, own := range []bool{true, false} {
		var clients []*holdfast.Client
		var shared []*redis.Client
		for range 3 {
			e := l.engineAt(l.server.Addr(), "")
			if !own {
				_ = e.Close()
				r := redis.NewClient(&redis.Options{Addr: l.server.Addr()})
				shared = append(shared, r)
				var err error
				if e, err = redislock.New(r, redislock.Config{}); err != nil {
					l.Fatal(err)
				}
			}
			c, err := holdfast.New(e, holdfast.Config{TTL: labTTL})
			if err != nil {
				l.Fatal(err)
			}
			clients = append(clients, c)
		}
		held := l.lock(clients[0], "held")
		ended := make(chan error, 2)
		for _, c := range clients[1:] {
			go func() { _, err := c.Mutex("held").Lock(context.Background()); ended <- err }()
		}
		l.eventually("two wait", func() bool { return l.waiting("held") == 2 })
		for i := range clients {
			if err := clients[len(clients)-1-i].Close(); err != nil {
				l.Errorf("close: %v", err)
			}
		}
		for range cap(ended) {
			l.failed(<-ended, holdfast.ErrClosed, holdfast.NotApplied)
		}
		l.failed(held.Unlock(), holdfast.ErrClosed, holdfast.NotApplied)
		l.eventually("the subscriptions are gone", func() bool { return len(l.inboxes()) == 0 })
		for _, r := range shared { // which the engine has left open
			if err := r.Ping(l.patience()).Err(); err != nil {
				l.Error(err)
			}
			_ = r.Close()
		}
		l.eventually("the connections are gone", func() bool {
			list, _ := l.do("CLIENT", "LIST").(string)
			return strings.Count(list, "\n") <= 1
		})
		if keys := l.list("KEYS", "*"); !slices.Equal(keys, []string{"holdfast.fence"}) {
			l.Errorf("keys %q are left, want the fence counter only", keys)
		}
	}
	if after := l.goroutines(before); after > before {
		stacks := make([]byte, 1<<20)
		l.Errorf("%d goroutines, %d before:\n%s", after, before, stacks[:runtime.Stack(stacks, true)])
	}
}

// Any number of names, taken in every way, leaves nothing on the server but what all share, and
// nothing in the process.
func TestFaultLeakOfNames(t *testing.T) {
	l := newLab(t, testserver.RedisOptions{})
	c, other := l.process(), l.process()
	names := scale(20_000)
	l.unlock(l.lock(c, "warm"))
	memory := heap()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(names); i = next.Add(1) {
				if err := visit(c, other, fmt.Sprintf("name %d", i), int(i)); err != nil {
					l.Errorf("%d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	l.tidy()
	if grown := heap() - memory; grown > int64(names)*100 {
		l.Errorf("%d bytes of memory for %d names", grown, names)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// visit takes a name in one of the ways there are, and leaves it in one of the ways there are.
func visit(c, other *holdfast.Client, name string, way int) error {
	ctx, cancel := context.WithTimeout(context.Background(), labPatience)
	defer cancel()
	give := func(lease *holdfast.Lease, err error) error {
		if err != nil {
			return err
		}
		return lease.Unlock()
	}
	switch way % 20 {
	case 0:
		return give(c.RWMutex(name).RLock(ctx))
	case 1:
		return give(c.Semaphore(name, 3).Acquire(ctx, 2))
	case 2: // nobody gives it back
		_, err := c.Mutex(name, holdfast.WithTTL(2*time.Second), holdfast.WithoutRenewal()).Lock(ctx)
		return err
	case 3:
		_, err := c.RWMutex(name, holdfast.WithTTL(2*time.Second), holdfast.WithoutRenewal()).RLock(ctx)
		return err
	case 4: // somebody waits, and gets it
		lease, err := c.Mutex(name).Lock(ctx)
		if err != nil {
			return err
		}
		got := make(chan error, 1)
		go func() { got <- give(other.Mutex(name).Lock(ctx)) }()
		if err := lease.Unlock(); err != nil {
			return err
		}
		return <-got
	case 5: // somebody waits, and gives up
		lease, err := c.Mutex(name).Lock(ctx)
		if err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		if late, err := other.Mutex(name).Lock(short); err == nil {
			return fmt.Errorf("granted with fence %d beside %d", late.Fence(), lease.Fence())
		}
		return lease.Unlock()
	}
	return give(c.Mutex(name).Lock(ctx))
}

// A crowd waits on the engines for one name: what it costs is bounded, all are served, and in
// the order in which they came.
func TestFaultCrowd(t *testing.T) {
	const size = 2000
	l := newLab(t, testserver.RedisOptions{})
	holder := l.applicationEngine(l.server.Addr())
	defer holder.Close()
	var engines []*redislock.Engine
	for range 4 {
		e := l.applicationEngine(l.server.Addr(), func(o *redis.Options) { o.ReadTimeout = labPatience })
		defer e.Close()
		engines = append(engines, e)
	}
	request := func(wait bool) driver.Request {
		req := driver.Request{Name: "name", Mode: driver.Exclusive, TTL: labTTL, Span: 1, Wait: wait}
		rand.Read(req.Token[:])
		return req
	}
	first := request(false)
	g, err := holder.Acquire(l.patience(), first)
	if err != nil {
		l.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	before := runtime.NumGoroutine()
	crowd := &crowd{l: l, ctx: ctx, grants: make(chan crowdGrant, size)}
	for i := range size {
		crowd.all.Go(func() { crowd.wait(engines[i%len(engines)], request(true), i) })
		if i%50 == 49 { // who came in the same batch of 50 has no order among each other
			l.eventually("the next places", func() bool { return l.waiting("name") == i+1 })
		}
	}
	if n := l.goroutines(before+size+100) - before - size; n > 100 {
		l.Errorf("%d goroutines beside those that wait", n)
	}
	if n := len(l.inboxes()); n != len(engines) {
		l.Errorf("%d inboxes for %d engines", n, len(engines))
	}
	if err := holder.Release(l.patience(), first.Claim(g)); err != nil {
		l.Fatal(err)
	}
	crowd.all.Wait()
	close(crowd.grants)
	crowd.check(size)
	l.tidy()
}

type crowdGrant struct {
	place int
	fence int64
}

type crowd struct {
	l      *lab
	ctx    context.Context
	all    sync.WaitGroup
	inside atomic.Int32
	grants chan crowdGrant
}

// wait waits for the lock and passes it on.
func (c *crowd) wait(e *redislock.Engine, req driver.Request, place int) {
	g, err := e.Acquire(c.ctx, req)
	if err != nil {
		c.l.Errorf("place %d: %v", place, err)
		return
	}
	if n := c.inside.Add(1); n != 1 {
		c.l.Errorf("%d hold the lock", n)
	}
	c.grants <- crowdGrant{place, g.Fence}
	c.inside.Add(-1)
	if err := e.Release(c.ctx, req.Claim(g)); err != nil {
		c.l.Errorf("release of place %d: %v", place, err)
	}
}

// check looks at the order of the grants.
func (c *crowd) check(size int) {
	last, served, early := crowdGrant{}, 0, 0
	for g := range c.grants {
		served++
		if g.fence <= last.fence {
			c.l.Errorf("fence %d after %d", g.fence, last.fence)
		}
		if g.place/50 < last.place/50 {
			early++
		}
		last = g
	}
	if served != size {
		c.l.Errorf("%d of %d were served", served, size)
	}
	if early > 0 {
		c.l.Errorf("%d times somebody was served before who had come later", early)
	}
}
