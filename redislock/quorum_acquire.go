package redislock

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

const (
	// Who leads in a split vote asks again, as its rivals give way within a round trip: so
	// often, with pauses from the first to the last.
	leaderTries = 12
	firstPause  = 250 * time.Microsecond
	lastPause   = 8 * time.Millisecond

	// hesitation is for how long at least who does not know whether it leads waits for the node
	// that says so. The leader's pauses add up to more than twice that.
	hesitation = 25 * time.Millisecond

	// maxEpochs is how many epochs an attempt follows, one after the other.
	maxEpochs = 4
)

// candidate is one call of Acquire.
type candidate struct {
	q      *Quorum
	req    *driver.Request
	key    string
	splits int            // how often in a row the vote was split
	holder *driver.Holder // as far as is known

	// Of a call that waits.
	arrived   int64         // µs
	wakes     chan wakeup   // nil before it stands in line
	lines     []bool        // at which nodes it may stand in line
	holders   []string      // tokens of those who held the lock at each node when it last said so
	withdrawn chan struct{} // closed by a release of its token
}

// defeat is why an attempt did not get a majority.
type defeat struct {
	*driver.Error
	quorum *QuorumError
	split  bool          // nobody else has got one either, as far as can be seen
	left   time.Duration // when it is worth to try again, 0 where that is not known, negative for never
	undo   *round        // gives back what was granted by some
	hold   *hold         // what that is
}

// Acquire implements driver.Engine.
func (q *Quorum) Acquire(ctx context.Context, req driver.Request) (driver.Grant, error) {
	if err := q.enter(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer q.leave()
	if req.Mode != driver.Exclusive || req.Upgrade {
		return driver.Grant{}, driver.Failf(driver.Unsupported,
			"a quorum has exclusive locks only: docs/redislock.md says why others are not safe on one")
	}
	if req.TTL > q.cfg.MaxTTL {
		return driver.Grant{}, driver.Failf(driver.Invalid, "TTL is %v: the longest is %v, see QuorumConfig.MaxTTL", req.TTL, q.cfg.MaxTTL)
	}
	key, err := q.keyOf(req.Name)
	if err != nil {
		return driver.Grant{}, err
	}
	c := q.newCandidate(&req, key)
	if h := q.holdOf(req.Token); h != nil && !h.isDead() {
		if g, err, held := c.again(ctx, h); held {
			return g, err
		}
	}
	if req.Wait && q.enlist(c) {
		defer q.delist(c)
		return c.wait(ctx)
	}
	g, d := c.attempt(ctx, 'x')
	if d == nil {
		return g, nil
	}
	c.settle(d.undo)
	return driver.Grant{}, c.owed(d, *d.Error)
}

// owed is the failure of a call whose last attempt ended in d. Where so many nodes may have what
// they granted still that nobody else can win, its outcome is not known, and the hold is kept: a
// release of the request's token gives it back.
func (c *candidate) owed(d *defeat, failure driver.Error) *driver.Error {
	if d.undo == nil || d.hold == nil {
		return &failure
	}
	d.undo.mu.Lock()
	done, nothing := released(d.undo.answers)
	d.undo.mu.Unlock()
	if len(c.q.nodes)-done-nothing < c.q.size.Blocking() {
		return &failure
	}
	d.hold.expiry = d.hold.sent.Add(c.req.TTL) // nobody else has it yet
	if c.q.keep(c, d.hold) {
		failure.Outcome = driver.Unknown
	}
	return &failure
}

func (q *Quorum) newCandidate(req *driver.Request, key string) *candidate {
	return &candidate{q: q, req: req, key: key, holders: make([]string, len(q.nodes))}
}

// settle waits until what was granted by some has gone back: who was refused holds nothing.
func (c *candidate) settle(rounds ...*round) {
	ctx, cancel := context.WithTimeout(context.Background(), withdrawal)
	defer cancel()
	for _, r := range rounds {
		if r != nil {
			r.await(ctx)
		}
	}
}

// attempt tries once to get a majority, under a token of its own: requests that arrive late
// must not be taken for those of the next try. Op is 'x', or 'X' to stand in line for it.
func (c *candidate) attempt(ctx context.Context, op byte) (driver.Grant, *defeat) {
	q := c.q
	for epochs := 1; ; epochs++ {
		epoch, unknown := q.knownEpoch(ctx)
		if unknown != nil {
			return driver.Grant{}, unknown
		}
		q.attempts.Add(1)
		a := &attempt{c: c, errand: errand{key: c.key, id: c.sign(), ttl: millis(c.req.TTL), span: c.req.Span, epoch: epoch}}
		a.op = string(op) + formatInt(int64(c.req.Span)) + " " + formatInt(q.wall().UnixMicro())
		if op == 'X' {
			a.op += " " + formatInt(c.arrived)
		}
		h, d := a.run(ctx)
		if d == nil {
			h.expiry = h.sent.Add(c.req.TTL)
			q.completeSoon(h, c.req.TTL)
			if !q.keep(c, h) {
				return driver.Grant{}, &defeat{Error: driver.Fail(driver.NotHeld, errWithdrawn), undo: q.giveBack(h)}
			}
			return driver.Grant{Fence: h.fence - int64(h.numbers) + 1, FenceSpan: h.numbers, Sent: h.sent}, nil
		}
		if a.result != protocol.Moved || epochs == maxEpochs || ctx.Err() != nil {
			return driver.Grant{}, d
		}
	}
}

// sign is how an attempt signs: with the owner's label and a token that was never used before.
// It is not made from the request's, which comes again when the caller repeats the request:
// what is under way of the tries before would be taken for this one's, and end it.
func (c *candidate) sign() string {
	var t driver.Token
	_, _ = rand.Read(t[:]) // never fails, see crypto/rand
	if c.req.Owner == "" {
		return encodeToken(t)
	}
	return c.req.Owner + " " + encodeToken(t)
}

// attempt is one try to get a majority.
type attempt struct {
	errand
	c      *candidate
	result protocol.Result
	first  *round
	second *round // nil where one round was enough
}

// begin prepares the first round.
func (a *attempt) begin() {
	a.first = a.c.q.newRound(a.errand, func(answers []protocol.Answer) bool {
		r, _, _ := a.c.q.size.Acquired(answers)
		return r != protocol.Undecided
	})
}

// run carries the attempt out.
func (a *attempt) run(ctx context.Context) (*hold, *defeat) {
	q := a.c.q
	h := &hold{errand: a.errand}
	a.begin()
	a.first.stray = func(m *message) { h.late(q, m) }
	a.first.submitThrifty()
	h.first, h.sent = a.first, a.first.sent
	a.poll(ctx, h)
	if a.result == protocol.Split {
		a.confirm(ctx, h)
	}
	if a.result == protocol.Won && protocol.Left(h.sent, q.clock.Now(), a.c.req.TTL) > 0 {
		a.first.close()
		a.c.linesUp(a.first)
		return h, nil
	}
	d := a.lose(ctx, h)
	a.c.linesUp(a.first)
	return nil, d
}

// poll asks until the first round is decided. Who leads in a split vote goes on with those that
// refused. Who may lead waits to hear of it, for as long again as it took to be refused: were it
// to give up, and the node's answer that it leads came after that, nobody would go on.
func (a *attempt) poll(ctx context.Context, h *hold) {
	r, patience := a.first, ctx
	for tries, pause := 0, firstPause; ; {
		more := r.await(patience)
		r.mu.Lock()
		a.result, h.fence, h.numbers = a.c.q.size.Acquired(r.answers)
		if a.result == protocol.Undecided && !more {
			a.result, h.fence, h.numbers = a.c.q.size.Acquired(silenced(r.answers))
		}
		held, leads, may, beaten := a.rivals(r)
		r.mu.Unlock()
		won := a.result == protocol.Won || a.result == protocol.Split
		switch {
		case more && !won && !beaten && r.broaden(), a.result == protocol.Undecided:
			continue
		case a.result == protocol.Conflicted && may && !leads && more:
			if patience == ctx {
				var cancel context.CancelFunc
				patience, cancel = context.WithTimeout(ctx, max(hesitation, a.c.q.clock.Now().Sub(r.sent)))
				defer cancel()
			}
			continue
		case a.result != protocol.Conflicted || !leads || tries == leaderTries || !more || !nap(ctx, pause):
			return
		}
		patience = ctx
		tries++
		pause = min(2*pause, lastPause)
		r.again(held)
	}
}

// silenced is the answers with those that are missing given up.
func silenced(answers []protocol.Answer) []protocol.Answer {
	all := slices.Clone(answers)
	for i := range all {
		if all[i].Kind == protocol.Pending {
			all[i].Kind = protocol.Silent
		}
	}
	return all
}

// confirm has the nodes vouch for the largest fence that one of them granted.
func (a *attempt) confirm(ctx context.Context, h *hold) {
	q := a.c.q
	vouch := a.errand
	vouch.op, vouch.span = "v"+formatInt(h.fence)+" "+formatInt(int64(h.numbers)), 1
	a.second = q.newRound(vouch, func(answers []protocol.Answer) bool { return q.size.Vouched(answers) != protocol.Undecided })
	a.second.submit()
	h.sent = a.second.sent
	for {
		more := a.second.await(ctx)
		a.second.mu.Lock()
		a.result = q.size.Vouched(a.second.answers)
		if a.result == protocol.Undecided && !more {
			a.result = q.size.Vouched(silenced(a.second.answers))
		}
		a.second.mu.Unlock()
		if a.result != protocol.Undecided {
			a.second.close()
			return
		}
	}
}

// rivals returns the nodes that others hold, whether this attempt is the one to go on: no
// rival can have a majority, and the first node in the order that all take, among those that
// answered, is this attempt's; whether it may turn out to be, by a node before that one which has
// not answered; and whether a rival has a majority. r.mu is locked.
func (a *attempt) rivals(r *round) (held []int, leads, may, beaten bool) {
	if a.result == protocol.Won {
		return nil, false, false, false
	}
	counts, first := make(map[string]int), true
	most := 0
	for _, i := range a.c.q.size.Order(a.key) {
		switch r.answers[i].Kind {
		case protocol.Pending:
			may = may || first
		case protocol.Granted:
			leads, first = leads || first, false
		case protocol.Held:
			first = false
			held = append(held, i)
			id := identity(strings.TrimPrefix(r.details[i].payload, "x 1 "))
			counts[id]++
			most = max(most, counts[id])
		}
	}
	beaten = most >= a.c.q.size.Majority()
	return held, leads && !beaten, may && !beaten, beaten
}

// lose gives back what the attempt was granted, and says why it is lost.
func (a *attempt) lose(ctx context.Context, h *hold) *defeat {
	h.bury()
	q, r := a.c.q, a.first
	may := r.end(true)
	back := a.errand
	back.op, back.epoch = "d", "" // who tries again wakes nobody
	if !a.c.req.Wait || ctx.Err() != nil {
		back.op = "r"
	}
	d := &defeat{undo: q.newRound(back, q.undone(r.answers)).submitTo(may), hold: h}
	if a.second != nil && a.result != protocol.Won {
		r = a.second
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d.quorum = &QuorumError{Status: QuorumMissing, Nodes: r.results(), need: q.size.Majority()}
	kind := driver.Unavailable
	switch a.result {
	case protocol.Won:
		d.quorum.Status = QuorumExpired
	case protocol.Conflicted:
		d.quorum.Status, kind = QuorumConflicted, driver.Held
		d.split, a.c.holder = a.look(r, &d.left)
	case protocol.Moved, protocol.NoQuorum:
		_, _ = a.look(r, &d.left)
	}
	if fault := r.fault(); fault != nil && kind == driver.Unavailable {
		d.Error = fault
		return d
	}
	d.Error = &driver.Error{Kind: kind, Outcome: driver.NotApplied, Holder: a.c.holder, Err: d.quorum}
	if kind != driver.Held {
		d.Holder = nil
	}
	d.Err = withCause(ctx, d.Err)
	return d
}

// look tells from the refusals whether the vote was split, who holds most, and when enough
// nodes may be free.
func (a *attempt) look(r *round, left *time.Duration) (split bool, holder *driver.Holder) {
	q := a.c.q
	counts := make(map[string]int)
	a.c.holders = make([]string, len(r.answers))
	var lefts []time.Duration
	unknown, free, most := 0, 0, 0
	for i, ans := range r.answers {
		switch ans.Kind {
		case protocol.Held:
			line, in := r.details[i].payload, time.Duration(ans.N)*time.Millisecond
			if lefts = append(lefts, in); in < 0 {
				lefts[len(lefts)-1] = MaxTTL
			}
			id := identity(strings.TrimPrefix(line, "x 1 "))
			if a.c.holders[i] = id; len(id) > tokenSize {
				a.c.holders[i] = id[len(id)-tokenSize:]
			}
			if counts[id]++; counts[id] > most {
				most, holder = counts[id], q.nodes[i].holder(line, ans.N)
			}
		case protocol.Wait:
			lefts = append(lefts, time.Duration(ans.N)*time.Millisecond)
		case protocol.Granted, protocol.Done:
			free++
		default:
			unknown++
		}
	}
	slices.Sort(lefts)
	if missing := q.size.Majority() - free; missing > 0 && missing <= len(lefts) {
		*left = lefts[missing-1]
	}
	return most+unknown < q.size.Majority(), holder
}

// undone decides when what an attempt was granted has gone back: when it has where nodes said
// that they granted it, and those that say nothing are too few to stand in the way of others.
// The answers are the attempt's, which is over.
func (q *Quorum) undone(granted []protocol.Answer) func([]protocol.Answer) bool {
	return func(answers []protocol.Answer) bool {
		silent := 0
		for i, a := range answers {
			if a.Kind != protocol.Pending {
				continue
			}
			if silent++; granted[i].Kind == protocol.Granted {
				return false
			}
		}
		return silent < q.size.Blocking()
	}
}

func never([]protocol.Answer) bool { return false }

// again asks anew under the token that has won before, as the answer may have been lost: the
// hold is moved to a larger fence. What is held stays held when that is not decided. It reports
// false where the hold is gone, and the request is as good as new.
func (c *candidate) again(ctx context.Context, h *hold) (g driver.Grant, err error, held bool) {
	q := c.q
	for epochs := 1; ; epochs++ {
		epoch, unknown := q.knownEpoch(ctx) // one for all nodes, as for any round
		if unknown != nil {
			return g, unknown.Error, true
		}
		move := h.errand
		move.ttl, move.epoch = millis(c.req.TTL), epoch
		var to int64
		move.op, to = h.move()
		r := q.newRound(move, func(answers []protocol.Answer) bool { return q.size.Vouched(answers) != protocol.Undecided }).submit()
		r.await(ctx)
		r.end(true)
		r.mu.Lock()
		result, e := q.size.Vouched(r.answers), &QuorumError{Status: QuorumMissing, Nodes: r.results(), need: q.size.Majority()}
		r.mu.Unlock()
		switch {
		case result == protocol.Won && protocol.Left(r.sent, q.clock.Now(), c.req.TTL) > 0:
			h.prolong(to, r.sent, c.req.TTL)
			return driver.Grant{Fence: to, FenceSpan: 1, Sent: r.sent}, nil, true
		case result == protocol.Conflicted:
			q.giveUp(c.req.Token, h)
			return g, nil, false
		case result == protocol.Moved && epochs < maxEpochs && ctx.Err() == nil:
			continue
		}
		return g, &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: withCause(ctx, e)}, true
	}
}

// nap pauses, and reports false when ctx ended meanwhile.
func nap(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
