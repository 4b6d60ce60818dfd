package etcdlock

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// claim is a share that this process holds.
type claim struct {
	name     string
	token    driver.Token
	place    *place
	create   int64 // revision of the key's creation: another one is another share
	mod      int64 // and of its last write, as far as that is known
	lease    clientv3.LeaseID
	note     note
	granted  int64 // revision of the grant
	deadline driver.Instant
	marked   bool // the key may say that an upgrade waits, and none does
}

// claims are the shares that this process holds. They are here so that a renewal can tell
// whether a share is the one that was granted, and so that a claim ends that was not renewed
// for its TTL though the lease goes on for others.
type claims struct {
	engine *Engine

	mu      sync.Mutex
	byToken map[driver.Token]*claim
	byGrant map[grantID]*claim
	asking  map[driver.Token]*asking
	ending  map[driver.Token]*attempt // to give back what was not renewed for its TTL
	timer   driver.Timer
	wake    driver.Instant // when the timer fires; never when it is not set
	stopped bool
}

// grantID is what a lease of the core tells about its claim.
type grantID struct {
	name     string
	revision int64
}

const never = driver.Instant(math.MaxInt64)

func (c *claims) init(e *Engine) {
	c.engine, c.wake = e, never
	c.byToken, c.byGrant = map[driver.Token]*claim{}, map[grantID]*claim{}
	c.asking, c.ending = map[driver.Token]*asking{}, map[driver.Token]*attempt{}
}

// put enters a claim in place of what its token held before.
func (c *claims) put(cl claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.byToken[cl.token])
	c.byToken[cl.token] = &cl
	c.byGrant[grantID{cl.name, cl.granted}] = &cl
	c.arm(cl.deadline)
}

// get returns what the token holds.
func (c *claims) get(token driver.Token) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cl := c.byToken[token]; cl != nil {
		return *cl, true
	}
	return claim{}, false
}

// find returns the claim that a fence was granted with.
func (c *claims) find(name string, fence int64) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cl := c.byGrant[grantID{name, fence >> fenceBits}]; cl != nil {
		return *cl, true
	}
	return claim{}, false
}

// change applies f to what the token holds, if that is still the same grant.
func (c *claims) change(was *claim, f func(*claim)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.byToken[was.token]
	if cl == nil || cl.create != was.create || cl.granted != was.granted {
		return false
	}
	f(cl)
	c.arm(cl.deadline)
	return true
}

// remove strikes out what the token holds and returns it.
func (c *claims) remove(token driver.Token) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.byToken[token]
	if cl == nil {
		return claim{}, false
	}
	c.drop(cl)
	return *cl, true
}

// removeThis strikes out a claim, if its token still holds that.
func (c *claims) removeThis(was *claim) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.byToken[was.token]
	if cl == nil || cl.create != was.create {
		return false
	}
	c.drop(cl)
	return true
}

func (c *claims) drop(cl *claim) {
	if cl != nil {
		delete(c.byToken, cl.token)
		delete(c.byGrant, grantID{cl.name, cl.granted})
	}
}

// arm sets the timer for due, unless it fires before that. It is not moved when claims are
// renewed: it fires about once a TTL, finds nothing to do, and is set for the next one.
func (c *claims) arm(due driver.Instant) {
	if c.stopped || due >= c.wake {
		return
	}
	c.wake = due
	d := max(0, due.Sub(c.engine.clock.Now())) + time.Millisecond
	if c.timer == nil {
		c.timer = c.engine.clock.AfterFunc(d, c.tick)
	} else {
		c.timer.Reset(d)
	}
}

// tick ends the claims whose time is over. From then on a renewal finds nothing to renew.
func (c *claims) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake = never
	next := never
	now := c.engine.clock.Now()
	for _, cl := range c.byToken {
		if cl.deadline > now {
			next = min(next, cl.deadline)
			continue
		}
		c.drop(cl)
		over, a := *cl, &attempt{done: make(chan struct{})}
		if c.engine.background(func() { c.giveBack(over, a) }) {
			c.ending[cl.token] = a
		}
	}
	if next != never {
		c.arm(next)
	}
}

func (c *claims) giveBack(over claim, a *attempt) {
	_ = c.engine.giveBack(c.engine.life, over) // what fails goes with its lease
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ending, over.token)
	close(a.done)
}

// awaitEnd returns when what the token held is given back, if it was about to be.
func (c *claims) awaitEnd(ctx context.Context, token driver.Token) {
	c.mu.Lock()
	a := c.ending[token]
	c.mu.Unlock()
	if a != nil {
		_ = a.wait(ctx)
	}
}

// stop ends the timer.
func (c *claims) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if c.timer != nil {
		c.timer.Stop()
	}
}
