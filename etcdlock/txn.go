package etcdlock

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// txn is a transaction. One that may have changed something without an answer gives up the
// lease that its keys hang on, so that what it did cannot last.
type txn struct {
	cmps            []clientv3.Cmp
	then, otherwise []clientv3.Op
	key             string // to be deleted, whatever it holds; then the above is empty

	name  string // what a batch has one transaction of
	lease *lease // of the keys that it writes, nil when it writes none

	done   chan struct{} // closed when answer and err are set, for one that waits in the sender
	answer answer
	err    error
}

// op is what is sent for a transaction, by itself or within another.
func (t *txn) op() clientv3.Op {
	if t.key != "" {
		return clientv3.OpDelete(t.key)
	}
	return clientv3.OpTxn(t.cmps, t.then, t.otherwise)
}

// answer is that of a transaction.
type answer struct {
	sent      driver.Instant // before it left
	revision  int64
	term      uint64
	succeeded bool
	responses []*pb.ResponseOp
	deleted   bool // the key was there
}

func newAnswer(sent driver.Instant, header *pb.ResponseHeader) answer {
	return answer{sent: sent, revision: header.Revision, term: header.RaftTerm}
}

func (a answer) ofTxn(resp *pb.TxnResponse) answer {
	a.succeeded, a.responses = resp.Succeeded, resp.Responses
	return a
}

func (a answer) ofDelete(resp *pb.DeleteRangeResponse) answer {
	a.deleted = resp.Deleted > 0
	return a
}

// found returns what the nth operation, a read, has found.
func (a *answer) found(n int) []*mvccpb.KeyValue { return a.responses[n].GetResponseRange().Kvs }

// transact sends a transaction by itself.
func (e *Engine) transact(ctx context.Context, t *txn) (answer, error) {
	bounded, cancel := e.bound(ctx)
	defer cancel()
	a, err := e.commit(bounded, t)
	return a, e.explain(t, err)
}

func (e *Engine) commit(ctx context.Context, t *txn) (answer, error) {
	sent := e.clock.Now()
	resp, err := e.client.Do(ctx, t.op())
	if err != nil {
		return answer{}, err
	}
	if d := resp.Del(); d != nil {
		return newAnswer(sent, d.Header).ofDelete((*pb.DeleteRangeResponse)(d)), nil
	}
	r := resp.Txn()
	if r.Header.Revision >= maxRevision {
		return answer{}, errExhausted
	}
	return newAnswer(sent, r.Header).ofTxn((*pb.TxnResponse)(r)), nil
}

// explain classifies the error of a transaction.
func (e *Engine) explain(t *txn, err error) error {
	if err == nil {
		return nil
	}
	d := e.failure(err)
	if t.lease != nil && d.Outcome != driver.NotApplied {
		e.giveUp(t.lease.id)
	}
	return d
}

// sender merges transactions that are sent at the same time. A lone one goes out at once, on
// the goroutine of its caller; those that come while a few are under way wait for an answer,
// and then go together, as transactions within one. That costs etcd and this process a
// fraction of what they cost one by one.
//
// All comparisons of a transaction, those of the ones within it as well, are made before any
// of its writes. So two for one name do not go together: both could find the name free. That
// also keeps apart the revisions, which fences come from, of writes for one name.
type sender struct {
	engine *Engine

	mu    sync.Mutex
	queue []*txn
	under int // how many calls are under way
}

const (
	// maxUnder is how many calls are under way when others begin to wait.
	maxUnder = 4
	// maxBatch bounds how many transactions go together.
	maxBatch = 64
)

// send sends a transaction, perhaps together with others.
func (s *sender) send(ctx context.Context, t *txn) (answer, error) {
	e := s.engine
	bounded, cancel := e.bound(ctx)
	defer cancel()
	s.mu.Lock()
	if s.under < maxUnder {
		s.under++
		s.mu.Unlock()
		a, err := e.commit(bounded, t)
		s.landed()
		return a, e.explain(t, err)
	}
	t.done = make(chan struct{})
	s.queue = append(s.queue, t)
	s.mu.Unlock()
	select {
	case <-t.done:
		return t.answer, e.explain(t, t.err)
	case <-bounded.Done():
	}
	if s.withdraw(t) {
		return answer{}, driver.Fail(driver.Unavailable, bounded.Err())
	}
	return answer{}, e.explain(t, bounded.Err())
}

// withdraw takes a transaction out of the queue and reports whether it was still there.
func (s *sender) withdraw(t *txn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, t)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

// landed ends a call, and has those that wait sent in its place.
func (s *sender) landed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 || !s.engine.background(s.work) {
		s.under-- // after Close nobody waits: their contexts have ended
	}
}

// work sends batches until nobody waits.
func (s *sender) work() {
	for {
		s.mu.Lock()
		batch := s.take()
		if len(batch) == 0 {
			s.under--
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.flush(batch)
	}
}

// take takes what may go together off the queue: one of a name, with keys on one lease.
func (s *sender) take() (batch []*txn) {
	var lease *lease
	names := map[string]bool{}
	most := min(maxBatch, s.engine.cfg.MaxTxnOps-4) // those within count towards the limit, too
	s.queue = slices.DeleteFunc(s.queue, func(t *txn) bool {
		if len(batch) == most || names[t.name] || lease != nil && t.lease != nil && t.lease != lease {
			return false
		}
		if t.lease != nil {
			lease = t.lease
		}
		names[t.name] = true
		batch = append(batch, t)
		return true
	})
	return batch
}

// flush sends a batch and hands out the answers.
func (s *sender) flush(batch []*txn) {
	a, err := s.commit(batch)
	switch {
	case len(batch) > 1 && leaseIsGone(err):
		// Those that write have that lease in common. The others are not to suffer for it.
		rest := slices.DeleteFunc(slices.Clone(batch), func(t *txn) bool { return t.lease != nil })
		for _, t := range batch {
			if t.lease != nil {
				t.err = err
				close(t.done)
			}
		}
		if len(rest) > 0 {
			s.flush(rest)
		}
	case len(batch) > 1 && refusedByContent(err):
		s.flush(batch[:len(batch)/2])
		s.flush(batch[len(batch)/2:])
	default:
		for i, t := range batch {
			if t.err = err; err == nil {
				t.answer = a[i]
			}
			close(t.done)
		}
	}
}

// commit sends a batch, one transaction as it is and several within one.
func (s *sender) commit(batch []*txn) ([]answer, error) {
	e := s.engine
	ctx, cancel := e.bound(context.Background())
	defer cancel()
	if len(batch) == 1 {
		a, err := e.commit(ctx, batch[0])
		return []answer{a}, err
	}
	all := &txn{then: make([]clientv3.Op, len(batch))}
	for i, t := range batch {
		all.then[i] = t.op()
	}
	a, err := e.commit(ctx, all)
	if err != nil {
		return nil, err
	}
	answers := make([]answer, len(batch))
	for i, t := range batch {
		answers[i] = answer{sent: a.sent, revision: a.revision, term: a.term}
		if t.key != "" {
			answers[i] = answers[i].ofDelete(a.responses[i].GetResponseDeleteRange())
		} else {
			answers[i] = answers[i].ofTxn(a.responses[i].GetResponseTxn())
		}
	}
	return answers, nil
}

// refusedByContent reports whether a call was refused because of something in it, and nothing
// was done.
func refusedByContent(err error) bool {
	return slices.ContainsFunc([]error{
		rpctypes.ErrPermissionDenied, rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge,
	}, func(known error) bool { return errors.Is(err, known) })
}

// delete deletes a key of a place, and reports whether it was there. It need not look whether
// the key is the one that was created: nobody but the request that has the place writes it, and
// the place goes to another only when the deletion was answered. One that is not answered may
// still be carried out, so its place is left with the lease that it is named after.
func (e *Engine) delete(ctx context.Context, name, key string) (bool, error) {
	a, err := e.sender.send(ctx, &txn{name: name, key: key})
	return a.deleted, err
}
