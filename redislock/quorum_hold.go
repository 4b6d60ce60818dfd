package redislock

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// hold is what an attempt has won.
type hold struct {
	errand         // of the attempt: its key, and how it signed
	first   *round // of the attempt
	sent    driver.Instant
	numbers int // fences that were granted, of which fence is the last

	mu     sync.Mutex
	fence  int64
	next   int64          // that it was asked to move to, 0 where it is not known to be under way
	expiry driver.Instant // when it is over unless it is renewed
	dead   bool           // not won, or given back: what a node grants now goes back
	timer  *time.Timer    // of completeSoon
}

// completeSoon asks the rest of the nodes as well, so that the hold outlives the end of a
// minority, unless it is given back before: most are.
func (q *Quorum) completeSoon(h *hold, ttl time.Duration) {
	if !h.first.thrifty() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(min(thrift, ttl/10), func() {
		q.begin(func() {
			// Where it is over in this moment, either what is given back waits for the
			// request, or the request is not sent any more: see giveBack.
			if !h.isDead() && protocol.Left(h.sent, q.clock.Now(), ttl) > 0 {
				h.first.broaden()
			}
		})
	})
}

// late deals with an answer to the first round that nobody waited for.
func (h *hold) late(q *Quorum, m *message) {
	dead := h.isDead()
	switch kind := protocol.Parse(m.word, 1).Kind; {
	case (kind == protocol.Granted || kind == protocol.HalfDone) && dead:
		q.forget(m.node, h.key, "r", h.id)
	case kind == protocol.Held && m.op[0] == 'X': // it stands in line there
		q.forget(m.node, h.key, "l", "-")
	}
}

func (h *hold) bury() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
	if h.timer != nil {
		h.timer.Stop()
	}
}

func (h *hold) isDead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead
}

// move is the op that moves the hold to another fence, the next one: on a majority of the nodes
// nothing was given out since the one that it has. As long as it is not known whether the nodes
// have done so it is the same again.
func (h *hold) move() (op string, next int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == 0 {
		h.next = h.fence + 1
	}
	return "m" + formatInt(h.fence) + " " + formatInt(h.next), h.next
}

// vouch is the op that renews the hold, and the fence that it confirms. Nodes that have moved
// refuse a vouch for the fence from before, so while a move is undecided it is that.
func (h *hold) vouch() (op string, fence int64) {
	h.mu.Lock()
	moving, fence := h.next != 0, h.fence
	h.mu.Unlock()
	if moving {
		return h.move()
	}
	return "v" + formatInt(fence) + " 1", fence
}

// prolong notes that a majority has vouched for the fence in a round that began at sent.
func (h *hold) prolong(fence int64, sent driver.Instant, ttl time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if fence == h.next {
		h.next = 0
	}
	h.fence, h.expiry = max(h.fence, fence), sent.Add(ttl)
}

// manyHolds is how many holds are kept before those are looked for that nobody gave back.
const manyHolds = 1024

// keep takes down what a call has won, and reports false where its token was released meanwhile.
// Holds that have run out without being given back are dropped now and
// then: nothing on the nodes is theirs any more.
func (q *Quorum) keep(c *candidate, h *hold) bool {
	now := q.clock.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-c.withdrawn: // it is closed under q.mu
		return false
	default:
	}
	if len(q.holds) >= q.sweepAt {
		for t, h := range q.holds {
			h.mu.Lock()
			if now.Sub(h.expiry) > q.cfg.MaxTTL {
				delete(q.holds, t)
			}
			h.mu.Unlock()
		}
		q.sweepAt = max(manyHolds, 2*len(q.holds))
	}
	q.holds[c.req.Token] = h
	return true
}

func (q *Quorum) holdOf(t driver.Token) *hold {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.holds[t]
}

// drop forgets a hold.
func (q *Quorum) drop(t driver.Token, h *hold) {
	h.bury()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holds[t] == h {
		delete(q.holds, t)
	}
}

// Renew implements driver.Engine. The claims travel in as few calls to each node as their
// number needs. A claim is renewed when a majority has vouched that nothing larger than its
// fence was given out; that its token is still there would not do.
func (q *Quorum) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	if err := q.enter(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer q.leave()
	epoch, unknown := q.knownEpoch(ctx)
	rounds, holds, fences := make([]*round, len(claims)), make([]*hold, len(claims)), make([]int64, len(claims))
	for i, c := range claims {
		switch holds[i] = q.holdOf(c.Token); {
		case holds[i] == nil:
			errs[i] = driver.Fail(driver.Lost, nil)
		case unknown != nil:
			errs[i] = unknown.Error
		default:
			rounds[i], fences[i] = q.renewal(holds[i], epoch, c.TTL)
		}
	}
	for k, n := range q.nodes { // all for one node at once, so that they fill calls
		all := make([]*request, 0, len(claims))
		for _, r := range rounds {
			if r != nil {
				all = append(all, &r.messages[k].request)
			}
		}
		n.only.submit(all...)
	}
	for i, r := range rounds {
		if r == nil {
			continue
		}
		errs[i] = q.renewed(ctx, r, holds[i], fences[i])
		if isLost(errs[i]) {
			q.giveUp(claims[i].Token, holds[i])
		}
	}
	return errs
}

// renewal prepares the round that renews a hold, and returns the fence that it is about.
func (q *Quorum) renewal(h *hold, epoch string, ttl time.Duration) (*round, int64) {
	e := h.errand
	op, fence := h.vouch()
	e.op, e.ttl, e.epoch, e.span = op, millis(ttl), epoch, 1
	return q.newRound(e, func(answers []protocol.Answer) bool { return q.size.Renewal(answers) != protocol.Unsure }), fence
}

// renewed reads the answers to a renewal. What has not left by then is not sent any more.
func (q *Quorum) renewed(ctx context.Context, r *round, h *hold, fence int64) error {
	r.await(ctx)
	r.end(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &QuorumError{Status: QuorumMissing, Nodes: r.results(), need: q.size.Majority()}
	verdict := q.size.Renewal(r.answers)
	if op, _ := h.vouch(); verdict == protocol.Lost && op != r.op {
		verdict = protocol.Unsure // the request was repeated meanwhile: nodes may have moved before
	}
	switch verdict {
	case protocol.Renewed:
		h.prolong(fence, r.sent, time.Duration(r.ttl)*time.Millisecond)
		return nil
	case protocol.Lost:
		e.Status = QuorumConflicted
		return &driver.Error{Kind: driver.Lost, Outcome: driver.NotApplied, Err: e}
	}
	return &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: withCause(ctx, e)}
}

// withCause adds the end of ctx to an error.
func withCause(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

func isLost(err error) bool {
	var d *driver.Error
	return errors.As(err, &d) && d.Kind == driver.Lost
}

// giveUp gives back what is left of a hold that was lost: a minority may have it still.
func (q *Quorum) giveUp(t driver.Token, h *hold) *round {
	q.drop(t, h)
	return q.giveBack(h)
}

// giveBack tells all nodes that may have the hold that it is over. What they have not been
// asked yet they never are.
func (q *Quorum) giveBack(h *hold) *round {
	h.bury()
	back := h.errand
	back.op, back.epoch = "r", ""
	var to []int
	h.first.mu.Lock()
	for i := range h.first.messages {
		if h.first.answers[i].Kind != protocol.Pending || !h.first.messages[i].drop() {
			to = append(to, i)
		}
	}
	h.first.mu.Unlock()
	return q.newRound(back, func(answers []protocol.Answer) bool {
		done, nothing := released(answers)
		return done >= q.size.Majority() || nothing >= q.size.Blocking()
	}).submitTo(to)
}

// released counts the nodes that have given the lock back, and those that had nothing to give.
func released(answers []protocol.Answer) (done, nothing int) {
	for _, a := range answers {
		switch a.Kind {
		case protocol.Done:
			done++
		case protocol.Nothing:
			nothing++
		}
	}
	return done, nothing
}

// Release implements driver.Engine. It returns when a majority has answered; the others are
// told as well, which nobody waits for.
func (q *Quorum) Release(ctx context.Context, claim driver.Claim) error {
	if err := q.enter(context.Background()); err != nil {
		return err
	}
	defer q.leave()
	h, withdrawn := q.holdOrWithdraw(claim.Token)
	switch {
	case withdrawn:
		return nil
	case h == nil:
		return driver.Fail(driver.NotHeld, nil)
	}
	r := q.giveBack(h)
	r.await(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	done, nothing := released(r.answers)
	switch {
	case done >= q.size.Majority():
	case nothing >= q.size.Blocking():
		q.drop(claim.Token, h)
		return driver.Fail(driver.NotHeld, nil)
	case done+nothing < q.size.Majority(): // kept, for who repeats the release
		e := &QuorumError{Status: QuorumMissing, Nodes: r.results(), need: q.size.Majority()}
		return &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: withCause(ctx, e)}
	}
	q.drop(claim.Token, h)
	return nil
}
