package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// inboxes returns the channels on which somebody listens for grants.
func (l *lab) inboxes() []string { return l.list("PUBSUB", "CHANNELS", "holdfast.in:*") }

// tap listens on the inboxes that there are, and returns what is pushed from then on.
func (l *lab) tap() *testserver.Conn {
	l.Helper()
	c, err := l.server.Dial()
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	if _, err := c.Do(append([]string{"PSUBSCRIBE"}, "holdfast.in:*")...); err != nil {
		l.Fatal(err)
	}
	return c
}

// next waits for the next push: its channel and text.
func (l *lab) next(tap *testserver.Conn) (channel, text string) {
	l.Helper()
	reply, err := tap.Receive()
	if err != nil {
		l.Fatal(err)
	}
	m := reply.([]any)
	return m[2].(string), m[3].(string)
}

// entry returns the inbox and the token of the only one in the queue of name.
func (l *lab) entry(name string) (inbox, token string) {
	l.Helper()
	entries := l.list("ZRANGE", "holdfast.q:holdfast:"+name, "0", "-1")
	if len(entries) != 1 {
		l.Fatalf("queue %q, want one entry", entries)
	}
	return strings.Fields(entries[0])[1], entries[0][len(entries[0])-22:]
}

// undisturbed fails unless lease is what the server has.
func (l *lab) undisturbed(lease *holdfast.Lease) {
	l.Helper()
	if v := l.key(lease.Name()); !strings.Contains(v, fmt.Sprint(" ", lease.Fence())) || lease.Context().Err() != nil {
		l.Fatalf("the lease has fence %d, the key is %q, the context ended with %v", lease.Fence(), v, lease.Context().Err())
	}
}

// A push arrives again: while its lock is held, when it was given back, when somebody else has
// it, when its owner waits again.
func TestFaultPushRepeated(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	a, b := l.process(), l.process()
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	tap := l.tap()
	l.unlock(first)
	channel, text := l.next(tap)
	again := func() {
		l.Helper()
		for range 3 {
			if l.do("PUBLISH", channel, text) == int64(0) {
				l.Fatal("nobody listens")
			}
		}
		// What the engine makes of it is on its way to the server by now, or will never be.
		l.unlock(l.lock(b, "after"))
	}
	second := w.granted()
	again()
	l.undisturbed(second)
	l.unlock(second)
	again()
	third := l.lock(a, "name")
	again()
	l.undisturbed(third)
	w = l.waiter(b, "name")
	again()
	time.Sleep(50 * time.Millisecond)
	w.stillWaits()
	l.undisturbed(third)
	l.unlock(third)
	l.unlock(w.granted())
}

// A push from before the last poll, as of an earlier place in the queue, says nothing about who
// has the lock now.
func TestFaultPushFromBefore(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	a, b := l.process(), l.process()
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	inbox, token := l.entry("name")
	for _, fence := range []int64{first.Fence(), first.Fence() - 1, 1} {
		polls := l.scripts()
		l.do("PUBLISH", inbox, fmt.Sprintf("%s %d 1 3000 holdfast:name", token, fence))
		l.eventually("the poll that asks whether it is so", func() bool { return l.scripts() > polls })
		w.stillWaits()
		l.undisturbed(first)
	}
	for _, text := range []string{"", "x", token, token + " 9007199254740991", token + " x 1 3000 holdfast:name", "short 1 1 3000 holdfast:name", strings.Repeat("9 ", 1000)} {
		l.do("PUBLISH", inbox, text)
	}
	time.Sleep(50 * time.Millisecond)
	w.stillWaits()
	l.unlock(first)
	l.unlock(w.granted())
}

// A push for who does not wait any more goes back, at once and once.
func TestFaultPushForNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	a, b, c := l.process(), l.client(l.engineAt(p.Addr(), "timeout=10s")), l.process()
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	behind := l.waiter(c, "name")
	p.FreezeUp() // the withdrawal does not arrive before the grant
	l.Cleanup(p.Heal)
	w.cancel()
	<-w.done
	l.unlock(first)
	p.Heal()
	l.unlock(behind.granted())
	l.tidy()
}

// The push is late, or lost because the subscriber connects anew: the next poll finds the
// share, and what arrives after that changes nothing.
func TestFaultPushDelayed(t *testing.T) {
	t.Parallel()
	for _, lose := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost %v", lose), func(t *testing.T) {
			l := newLab(t, testserver.RedisOptions{})
			p := testserver.Proxy(t, l.server.Addr())
			p.Mark("subscribe")
			a, b := l.process(), l.client(l.engineAt(p.Addr(), ""))
			first := l.lock(a, "name")
			w := l.waiter(b, "name")
			l.eventually("the subscription", func() bool { return len(l.inboxes()) == 1 })
			p.FreezeMarked()
			l.unlock(first)
			if lose {
				p.Cut()
				p.Heal()
			}
			second := w.granted()
			l.undisturbed(second)
			p.Heal()
			l.unlock(l.lock(b, "after"))
			l.undisturbed(second)
			l.unlock(second)
		})
	}
}

// The push and the answers to polls are held up for longer than what was granted lives: by then
// somebody else has the lock, and the waiter does not believe what it reads.
func TestFaultPushOutlivesOffer(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	const ttl = 500 * time.Millisecond
	a, c := l.process(), l.process()
	b := l.clientWith(l.engineAt(p.Addr(), "timeout=30s"), ttl)
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	p.FreezeDown()
	l.Cleanup(p.Heal)
	l.unlock(first)
	third := l.lock(c, "name") // what was granted to b has run out
	p.Heal()
	for range 10 {
		time.Sleep(20 * time.Millisecond)
		w.stillWaits()
		l.undisturbed(third)
	}
	l.unlock(third)
	last := w.granted()
	if last.Fence() <= third.Fence() {
		l.Errorf("fence %d after %d", last.Fence(), third.Fence())
	}
	_ = last.Unlock() // it may be too late for so short a TTL
}

// Subscriptions are cut off again and again: polls take over, and pushes come back.
func TestFaultSubscriptionsKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	a, b := l.process(), l.process()
	for range 3 {
		first := l.lock(a, "name")
		w := l.waiter(b, "name")
		l.do("CLIENT", "KILL", "TYPE", "pubsub")
		l.unlock(first)
		l.unlock(w.granted())
	}
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	inbox, _ := l.entry("name")
	l.pushedAgain(inbox, first, w)
}

// pushedAgain waits for the subscription, and shows that what w waits for is pushed to it.
func (l *lab) pushedAgain(inbox string, first *holdfast.Lease, w *waiter) {
	l.Helper()
	l.eventually("the subscription is back", func() bool { return slices.Contains(l.inboxes(), inbox) })
	tap := l.tap()
	l.unlock(first)
	if channel, _ := l.next(tap); channel != inbox {
		l.Errorf("pushed to %q, want %q", channel, inbox)
	}
	l.unlock(w.granted())
}

// The subscription's connection dies without a word, as behind a firewall that forgot it. The
// engine notices by itself and subscribes anew.
func TestFaultSubscriptionHalfOpen(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	p.Mark("subscribe")
	a, b := l.process(), l.client(l.engineAt(p.Addr(), ""))
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	l.eventually("the subscription", func() bool { return len(l.inboxes()) == 1 })
	inbox, _ := l.entry("name")
	before := p.Stats().Connections
	p.FreezeMarked()
	l.Cleanup(p.Heal)
	l.eventually("a new connection", func() bool { return p.Stats().Connections > before })
	p.Cut() // whatever is frozen; a new subscription is marked as well
	p.Heal()
	l.pushedAgain(inbox, first, w)
}

// A connection for the subscription does not come about: who waits can still give up.
func TestFaultSubscriptionHangs(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	a := l.process()
	b := l.application(p.Addr(), func(o *redis.Options) { o.ReadTimeout, o.PoolSize = time.Minute, 1 })
	l.unlock(l.lock(b, "name")) // on a connection that is not affected
	p.Mark("hello")
	p.FreezeMarked()
	l.Cleanup(p.Heal)
	first := l.lock(a, "name")
	w := l.waiter(b, "name")
	others := l.waits(b, "another name")
	w.cancel()
	l.eventually("the end of the wait", w.over)
	if !errors.Is(w.err, holdfast.ErrHeld) || !errors.Is(w.err, context.Canceled) {
		l.Errorf("error is %v", w.err)
	}
	l.unlock(others.granted())
	l.unlock(first)
	p.Heal()
}
