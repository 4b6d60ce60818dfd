package mysqllock

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// renewal is what a claim asks of its share.
type renewal struct {
	at    int // place among the claims
	share *share
	claim driver.Claim
	err   error
}

// Renew implements driver.Engine. It costs one statement for each session that has a share
// among them, and one more where its lease changes.
func (e *Engine) Renew(ctx context.Context, claims []driver.Claim) []error {
	errs := make([]error, len(claims))
	if err := e.enter(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer e.leave()
	sent := e.clock.Now()
	batches := e.sort(claims, errs)
	done := make(chan []renewal, len(batches))
	for s, batch := range batches {
		for _, r := range batch {
			errs[r.at] = ended(context.DeadlineExceeded) // until the answer comes
		}
		s.submit(&job{run: func() error { s.renew(batch, sent); return nil }, then: func(error) { done <- batch }})
	}
	for range batches {
		select {
		case batch := <-done:
			for _, r := range batch {
				errs[r.at] = r.err
			}
		case <-ctx.Done():
			return errs
		}
	}
	return errs
}

// sort finds the shares of claims, by session. Claims that hold nothing are answered.
func (e *Engine) sort(claims []driver.Claim, errs []error) map[*session][]renewal {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	batches := make(map[*session][]renewal)
	for i, c := range claims {
		var sh *share
		if n := e.names[c.Name]; n != nil {
			sh = n.find(c.Token)
		}
		if sh == nil || !sh.held(now) {
			errs[i] = errLost
			continue
		}
		batches[sh.session] = append(batches[sh.session], renewal{at: i, share: sh, claim: c})
	}
	return batches
}

// renew shows that the session lives, and with it all that it holds. A share whose time is over
// by then stays lost, though its lock may not have been released yet.
func (s *session) renew(batch []renewal, sent driver.Instant) {
	err := s.ping(batch)
	if err != nil {
		if s.survives(err) {
			err = s.e.classify(err, driver.NotApplied)
		} else {
			err = driver.Fail(driver.Lost, err)
		}
	}
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	for i := range batch {
		r := &batch[i]
		sh := r.share
		switch {
		case err != nil:
			r.err = err
		case !sh.held(now):
			r.err = errLost
		default:
			sh.ttl, sh.until = r.claim.TTL, sent.Add(r.claim.TTL)
			sh.timer.Reset(sh.until.Sub(now))
		}
	}
}

// ping gives the session the lease that its shares need, and proves that it lives.
func (s *session) ping(batch []renewal) error {
	if s.conn == nil {
		return errGone
	}
	e := s.e
	e.mu.Lock()
	longest := MinTTL
	for sh := range s.shares {
		ttl := sh.ttl
		for _, r := range batch {
			if r.share == sh {
				ttl = max(ttl, r.claim.TTL)
			}
		}
		longest = max(longest, ttl)
	}
	e.mu.Unlock()
	if lease := wholeSeconds(longest); lease != s.lease {
		if err := s.setLease(lease); err != nil {
			return err
		}
	}
	return s.check()
}
