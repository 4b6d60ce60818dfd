package holdfast

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/namemap"
)

// maxPasses is how often in a row a claim is given back and taken anew in one call. In
// between, the lock is free for the length of a round trip: others that do not wait for it but
// try now and then would never get it as long as it is wanted here.
const maxPasses = 7

// succession is what the goroutine that gives a claim back asks of the engine in the same
// call: the lock, for the goroutine that waits next, see driver.Passer. That one stays at the
// head of the queue, and nobody stands at the engine meanwhile. Its zero value is none.
type succession struct {
	to   *handle               // of who waits next
	at   *namemap.Entry[queue] // in use
	span int
	nth  uint8 // in a row
}

// succeed begins the succession to a claim that has to go back to the engine, and that somebody
// here waits for. There is none where others want the lock as well: they come first, and who
// waits here has to stand in line. The bucket is locked.
func (c *Client) succeed(cl *claim) (s succession) {
	q := &cl.at.Value
	w := q.waiters.front()
	if c.passer == nil || c.cfg.MaxLocalHandovers == 0 || cl.passes == maxPasses ||
		cl.mode != driver.Exclusive || cl.h.async || cl.renewing || cl.atMost > 0 {
		return s
	}
	q.asking = true
	cl.at.Share()
	return succession{w.h, cl.at, 1 + min(q.waiters.n-1, c.cfg.MaxLocalHandovers), cl.passes + 1}
}

// pass gives the share of a closed claim back and gets the lock for who waits next. It returns
// the engine's answer to the release. What was granted and is not wanted any more, or cannot
// be relied on, goes back; then, and where nothing was granted, who waits asks for itself.
func (c *Client) pass(ctx context.Context, share *driver.Claim, s *succession) (released error) {
	var req driver.Request
	s.to.describe(&req)
	req.Span = s.span
	released, g, err := c.passer.Pass(ctx, *share, req)

	b, q := s.to.bucket, &s.at.Value
	b.mu.Lock()
	defer b.mu.Unlock()
	switch w := q.waiters.front(); {
	case err != nil:
		if c.wrap("lock", req.Name, err).Outcome != NotApplied {
			c.janitor.clean(req.Claim(g), req.TTL)
		}
	case w == nil || w.h != s.to || c.closed.Load() || c.isLate(g, req.TTL) || g.Lives(req.TTL) < req.TTL:
		c.janitor.clean(req.Claim(g), req.TTL)
	default:
		q.waiters.remove(w)
		l := c.begin(w.ctx, s.at, s.to, &req, g)
		l.claim.passes = s.nth
		w.give(l, FromEngine)
		b.names.Close(s.at) // the waiter's use; the claim has its own
	}
	c.stepBack(b, s.at, true)
	return released
}
