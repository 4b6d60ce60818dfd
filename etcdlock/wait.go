package etcdlock

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxPoll is how often a request that waits looks by itself, at least.
const maxPoll = 5 * time.Second

// await waits until what stands in the way of a request may be gone, and writes its key once
// more to see whether it is.
//
// It watches the one key that has to go, so that a release wakes one request. A watch that
// begins at the present is served at once, while one that begins at a revision of the past
// waits for the server's next round, a tenth of a second; so it begins at the present, and the
// request looks once more when it has. Watches end: with the server, when there is no leader,
// when what they are about to tell was compacted away. And they are silent when the network
// is. So there is a poll behind each, which also keeps the lease alive.
//
// look, told whether an event of the watch has come, reports whether the obstacle has changed.
func (r *request) await(ctx context.Context, o obstacle, look func(context.Context, obstacle, bool) (bool, error)) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(r.engine.life, cancel)
	defer stop()
	events := r.watch(watching, o)
	var failing time.Time // since when no look has succeeded
	for {
		woken := false
		poll := time.NewTimer(r.pollAfter())
		select {
		case <-ctx.Done():
			poll.Stop()
			return r.gaveUp(ctx.Err())
		case <-r.engine.closing:
			poll.Stop()
			return errClosed
		case <-poll.C:
		case w, ok := <-events:
			poll.Stop()
			if !ok || w.Err() != nil {
				events = nil // until the next round, which is due with the poll
				continue
			}
			if woken = concerns(w, o); !woken && !w.Created {
				continue
			}
		}
		changed, err := look(ctx, o, woken)
		switch {
		case err == nil && changed:
			return nil
		case err == nil:
			failing = time.Time{}
			if events == nil {
				events = r.watch(watching, o)
			}
			continue
		case !passing(err):
			return err
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > r.lease.ttl:
			return err // the place in the queue is gone by now
		}
	}
}

// watch watches what the request waits for, until ctx ends. It does not wait for the server to
// take the watch, which may take as long as the network is silent. A watch that ends closes the
// channel.
func (r *request) watch(ctx context.Context, o obstacle) <-chan clientv3.WatchResponse {
	key, options := o.entry.key, []clientv3.OpOption{clientv3.WithCreatedNotify()}
	if o.any {
		key, options = r.all, append(options, clientv3.WithPrefix(), clientv3.WithFilterPut())
	}
	events := make(chan clientv3.WatchResponse)
	begun := r.engine.background(func() {
		defer close(events)
		for w := range r.engine.client.Watch(clientv3.WithRequireLeader(ctx), key, options...) {
			select {
			case events <- w:
			case <-ctx.Done():
			}
		}
	})
	if !begun {
		close(events)
	}
	return events
}

// concerns reports whether an event may mean that the obstacle is gone. The key that is waited
// for may be written again: by permits that are granted, after which there may be room for
// more, and by an upgrade that is given up.
func concerns(w clientv3.WatchResponse, o obstacle) bool {
	for _, ev := range w.Events {
		if ev.Type == mvccpb.Event_DELETE || o.entry.mode != driver.Exclusive {
			return true
		}
	}
	return false
}

// pollAfter is when to look next, in time to keep the lease alive.
func (r *request) pollAfter() time.Duration {
	d := min(maxPoll, r.lease.ttl/4)
	return d*3/4 + rand.N(d/4)
}

// look reports whether the obstacle has changed, and has then written the key again and read
// what stands before it now. Who was woken by the end of the one key that he waits for does
// not read first.
func (r *request) look(ctx context.Context, o obstacle, woken bool) (changed bool, err error) {
	if r.lease.age() > r.lease.ttl/4 || !r.lease.alive() {
		r.lease.renew()
	}
	moved := !r.session.is(r.lease) // the key has to move to another lease
	if !moved && (!woken || r.Mode == driver.Permits) {
		a, err := r.engine.transact(ctx, &txn{
			cmps: []clientv3.Cmp{stands(r.own, r.create)},
			then: []clientv3.Op{r.readBefore(r.Mode, r.create)},
		})
		if err != nil {
			return false, err
		}
		if !a.succeeded {
			return false, errKeyGone
		}
		r.before = parseAll(a.found(0))
		now := findObstacle(r.before, r.self())
		if now.entry != nil && now.entry.key == o.entry.key && now.entry.create == o.entry.create && now.any == o.any {
			return false, nil
		}
		if now.entry != nil {
			return true, nil // something else stands in the way now
		}
	}
	return true, r.touch(ctx)
}
