package redislock

import (
	"context"
	"errors"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// afterFirst is how long a waiter that was woken by one node waits for the others to say that
// the lock is free there as well.
const afterFirst = 5 * time.Millisecond

// lines are the calls that wait, by the keys that they wait for. A node knows only that this
// process waits: who wakes it wakes all its calls for the key, which is one as a rule.
type lines struct {
	mu    sync.Mutex
	byKey map[string]map[*candidate]struct{}
}

func (l *lines) enter(c *candidate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey[c.key] == nil {
		l.byKey[c.key] = make(map[*candidate]struct{})
	}
	l.byKey[c.key][c] = struct{}{}
}

// leave reports whether no other call waits for the key.
func (l *lines) leave(c *candidate) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byKey[c.key], c)
	if len(l.byKey[c.key]) > 0 {
		return false
	}
	delete(l.byKey, c.key)
	return true
}

// wakeup says that a lock is free at a node.
type wakeup struct {
	node  int
	token string // that held it, '-' where that is not known
}

// woken deals with what a node pushes: 'free token key'.
func (q *Quorum) woken(n *node, message string) {
	rest, ok := strings.CutPrefix(message, "free ")
	token, key, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 {
		return // not one of ours
	}
	q.lines.mu.Lock()
	defer q.lines.mu.Unlock()
	if len(q.lines.byKey[key]) == 0 {
		q.forget(n, key, "l", "-") // who comes next must not miss it
	}
	for c := range q.lines.byKey[key] {
		select {
		case c.wakes <- wakeup{n.index, token}:
		default: // it has more than it needs
		}
	}
}

// hears reports whether a majority of the nodes tell this process of what becomes free.
func (q *Quorum) hears() bool {
	n := 0
	for _, node := range q.nodes {
		if node.only.ear.hears(0) {
			n++
		}
	}
	return n >= q.size.Majority()
}

// listen sees to it that nodes tell this process, and waits a while for that. Where it fails,
// polls have to do.
func (q *Quorum) listen(ctx context.Context) {
	for _, node := range q.nodes {
		node.only.ear.want(0)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := q.clock.Now().Add(straggle); !q.hears() && q.clock.Now() < end; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-q.closing:
			return
		}
	}
}

// wait makes attempts until one wins or ctx ends.
func (c *candidate) wait(ctx context.Context) (driver.Grant, error) {
	q := c.q
	c.arrived = q.wall().UnixMicro()
	op, placed, alive := byte('x'), false, q.clock.Now()
	if q.hears() {
		op = 'X'
	}
	for {
		if op == 'X' && c.wakes == nil {
			c.wakes, c.lines = make(chan wakeup, 4*len(q.nodes)), make([]bool, len(q.nodes))
			q.lines.enter(c)
		}
		now := q.clock.Now()
		g, d := c.attempt(ctx, op)
		if d == nil {
			c.leaveLine()
			return g, nil
		}
		pause, waits := c.pauseAfter(d)
		if waits {
			placed, alive = true, now
		}
		if c.over(ctx) || !waits && (!placed || now.Sub(alive) > rideOut) {
			return c.stop(ctx, d)
		}
		if q.listen(ctx); op == 'x' {
			if op = 'X'; d.Kind == driver.Held {
				continue // who waits has to say so first
			}
		}
		if !c.sleep(ctx, pause) {
			return c.stop(ctx, d)
		}
	}
}

// over reports whether the call has to end.
func (c *candidate) over(ctx context.Context) bool {
	select {
	case <-c.q.closing:
	case <-c.withdrawn:
	case <-ctx.Done():
	default:
		return false
	}
	return true
}

// pauseAfter is for how long to sleep before the next attempt, and whether there is something
// that is worth to wait for.
func (c *candidate) pauseAfter(d *defeat) (time.Duration, bool) {
	switch {
	case d.Kind == driver.Held && d.split:
		c.splits++
		return protocol.Pause(c.splits, time.Millisecond), true
	case d.Kind == driver.Held:
		c.splits = 0
		return pauseFor(d.left, d.left <= 0), true
	case d.left > 0:
		return pauseFor(d.left, false), true
	case d.quorum != nil && d.quorum.Status == QuorumExpired:
		return pollEvery / 5, false
	}
	return pollEvery/5 + rand.N(pollEvery/5), false
}

// sleep waits for the nodes to say that the lock is free, for so long at most. It reports
// false when the call has to end.
func (c *candidate) sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	free := uint64(0)
	for {
		select {
		case w := <-c.wakes:
			if t := c.holders[w.node]; t != "" && w.token != "-" && t != w.token {
				continue // by now somebody else has it there, as the last attempt has found
			}
			if free == 0 {
				timer.Reset(min(pause, afterFirst))
			}
			if free |= 1 << w.node; bits.OnesCount64(free) >= c.q.size.Majority() {
				return true
			}
		case <-timer.C:
			return true
		case <-c.withdrawn:
			return false
		case <-ctx.Done():
			return false
		case <-c.q.closing:
			return false
		}
	}
}

// stop ends the wait without a grant. It returns when the nodes have taken back what the call
// left there, or have not for a while.
func (c *candidate) stop(ctx context.Context, d *defeat) (driver.Grant, error) {
	left := c.leaveLine()
	c.settle(d.undo, left)
	failure := *d.Error
	switch cause := ctx.Err(); {
	case c.q.closed.Load():
		failure = driver.Error{Kind: driver.Closed, Outcome: driver.NotApplied}
	case cause != nil:
		failure.Err = cause
		if d.quorum != nil {
			failure.Err = errors.Join(cause, d.quorum)
		}
		if c.holder != nil {
			failure.Kind, failure.Holder = driver.Held, c.holder
		}
	}
	return driver.Grant{}, c.owed(d, failure)
}

// linesUp notes where the call stands in line after an attempt that is over: not where it was
// granted what it asked for, nor where it was not asked. Where the answer is late, hold.late
// leaves the line.
func (c *candidate) linesUp(r *round) {
	if c.lines == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range r.answers {
		switch {
		case a.Kind == protocol.Granted:
			c.lines[i] = false
		case a.Kind != protocol.Pending && !slices.Contains(r.rest, i):
			c.lines[i] = true
		}
	}
}

// leaveLine says that this process does not wait any more, unless another of its calls does.
// What became free meanwhile passes to who comes next.
func (c *candidate) leaveLine() *round {
	if c.wakes == nil || !c.q.lines.leave(c) {
		return nil
	}
	var at []int
	for i, stands := range c.lines {
		if stands {
			at = append(at, i)
		}
	}
	return c.q.newRound(errand{key: c.key, op: "l", id: "-"}, c.q.undone(make([]protocol.Answer, len(c.q.nodes)))).submitTo(at)
}

// enlist notes that the request waits, so that a release of its token can withdraw it. It
// reports false where a call with the same token waits already.
func (q *Quorum) enlist(c *candidate) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting[c.req.Token] != nil {
		return false
	}
	c.withdrawn = make(chan struct{})
	q.waiting[c.req.Token] = c
	return true
}

func (q *Quorum) delist(c *candidate) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting[c.req.Token] == c {
		delete(q.waiting, c.req.Token)
	}
}

var errWithdrawn = errors.New("its token was released while the request waited")

// holdOrWithdraw returns what a token holds, or ends the call that waits with it: then the call
// gives back what it wins from now on.
func (q *Quorum) holdOrWithdraw(t driver.Token) (h *hold, withdrawn bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h = q.holds[t]; h != nil {
		return h, false
	}
	c := q.waiting[t]
	if c != nil {
		close(c.withdrawn)
		delete(q.waiting, t)
	}
	return nil, c != nil
}
