package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// loss is a way to lose the next exchange that is about what marks it.
type loss struct {
	name   string
	inject func(p *testserver.TCPProxy, mark string)
	done   bool // the server has carried the request out
}

var losses = []loss{
	{"reply cut", func(p *testserver.TCPProxy, m string) { p.CutReplyTo(m) }, true},
	{"reply dropped", func(p *testserver.TCPProxy, m string) { p.DropReplyTo(m) }, true},
	{"reply cut in the middle", func(p *testserver.TCPProxy, _ string) { p.CutAfterReplyBytes(3) }, true},
	{"request cut", func(p *testserver.TCPProxy, m string) { p.CutRequest(m) }, false},
}

// eachLoss runs f with every loss, on one server, through a client that repeats commands which
// fail, as go-redis does by default.
func eachLoss(t *testing.T, f func(l *lab, p *testserver.TCPProxy, c *holdfast.Client, how loss)) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	for _, how := range losses {
		t.Run(how.name, func(t *testing.T) {
			sub := &lab{t, l.server}
			p := testserver.Proxy(t, l.server.Addr())
			c := sub.application(p.Addr())
			sub.unlock(sub.lock(c, "warm")) // and there is a connection
			f(sub, p, c, how)
		})
	}
}

// An acquire of unknown outcome leaves nothing behind, and its script went out once.
func TestFaultAcquireLost(t *testing.T) {
	eachLoss(t, func(l *lab, p *testserver.TCPProxy, c *holdfast.Client, how loss) {
		before := l.scripts()
		how.inject(p, "holdfast:acquire")
		_, err := c.Mutex("acquire").TryLock(l.patience())
		l.failed(err, holdfast.ErrUnavailable, holdfast.Unknown)
		// One acquire, if it got through, and the release behind it.
		want := before + 1
		if how.done {
			want++
		}
		l.eventually("the release behind the acquire", func() bool { return l.scripts() >= want })
		l.unlock(l.lock(l.process(), "acquire"))
		if got := l.scripts() - 2; got != want {
			l.Errorf("%d script calls, want %d", got-before, want-before)
		}
	})
}

// An extension of unknown outcome does not cost the lease.
func TestFaultRenewLost(t *testing.T) {
	eachLoss(t, func(l *lab, p *testserver.TCPProxy, c *holdfast.Client, how loss) {
		lease := l.lock(c, "renew", holdfast.WithoutRenewal())
		before, value := l.scripts(), l.key("renew")
		how.inject(p, "holdfast:renew")
		err := lease.Extend(l.patience(), labTTL)
		l.failed(err, holdfast.ErrUnavailable, holdfast.Unknown)
		if err := lease.Extend(l.patience(), labTTL); err != nil {
			l.Errorf("the next extension: %v", err)
		}
		want := 1
		if how.done {
			want++
		}
		if got := l.scripts() - before; got != want || l.key("renew") != value {
			l.Errorf("%d script calls, want %d; the key is %q, was %q", got, want, l.key("renew"), value)
		}
		l.unlock(lease)
	})
}

// A release of unknown outcome is repeated, and the repeat does not touch the next holder.
func TestFaultReleaseLost(t *testing.T) {
	eachLoss(t, func(l *lab, p *testserver.TCPProxy, c *holdfast.Client, how loss) {
		lease, other := l.lock(c, "release", holdfast.WithoutRenewal()), l.process()
		before := l.scripts()
		how.inject(p, "holdfast:release")
		l.failed(lease.Unlock(), holdfast.ErrUnavailable, holdfast.Unknown)
		next := l.lock(other, "release", holdfast.WithoutRenewal())
		if next.Fence() <= lease.Fence() {
			l.Errorf("fence %d after %d", next.Fence(), lease.Fence())
		}
		value := l.key("release")
		repeats := 2 // the release behind the release, and the lock
		if how.done {
			repeats++
		}
		l.eventually("the repeat", func() bool { return l.scripts() >= before+repeats })
		if l.key("release") != value {
			l.Errorf("the repeat changed the key from %q to %q", value, l.key("release"))
		}
		l.unlock(next)
	})
}

// Who stops waiting leaves the queue, though nobody hears it at once.
func TestFaultCancelLost(t *testing.T) {
	eachLoss(t, func(l *lab, p *testserver.TCPProxy, c *holdfast.Client, how loss) {
		lease := l.lock(l.process(), "cancel")
		w := l.waiter(c, "cancel")
		how.inject(p, "cX1") // what takes a place back; polls go on
		w.cancel()
		<-w.done
		if !errors.Is(w.err, context.Canceled) || !errors.Is(w.err, holdfast.ErrHeld) {
			l.Errorf("error is %v, want ErrHeld and the context's", w.err)
		}
		l.eventually("the queue is empty", func() bool { return l.waiting("cancel") == 0 })
		l.unlock(lease)
		l.unlock(l.lock(l.process(), "cancel"))
	})
}

// A waiter outlives lost polls, and is granted once.
func TestFaultPollLost(t *testing.T) {
	eachLoss(t, func(l *lab, p *testserver.TCPProxy, c *holdfast.Client, how loss) {
		lease := l.lock(l.process(), "poll")
		w := l.waiter(c, "poll")
		faults := p.Stats().Faults
		how.inject(p, "holdfast:poll")
		l.eventually("a lost poll", func() bool { return p.Stats().Faults > faults })
		l.unlock(lease)
		got := w.granted()
		if info, err := l.process().Inspect(l.patience(), "poll"); err != nil || len(info.Holders) != 1 || info.Waiters != 0 {
			l.Errorf("%+v, %v: want one holder and nobody waiting", info, err)
		}
		l.unlock(got)
	})
}

// The reply to the poll that was granted is lost: the next one finds the share.
func TestFaultGrantingPollLost(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c := l.client(l.engineAt(p.Addr(), "timeout=500ms"))
	l.warm()
	l.do("SET", "holdfast:name", "of another library")
	w := l.waiter(c, "name")
	p.FreezeDown()
	l.Cleanup(p.Heal)
	l.do("DEL", "holdfast:name")
	l.eventually("the grant nobody heard of", func() bool { return !l.free("name") })
	p.Cut()
	p.Heal()
	lease := w.granted()
	if info, err := l.process().Inspect(l.patience(), "name"); err != nil || info.Fence != lease.Fence() {
		l.Errorf("the lease has fence %d, the server %d (%v)", lease.Fence(), info.Fence, err)
	}
	l.unlock(lease)
}

// Requests vanish without a word: the call ends with its deadline, others are not affected.
func TestFaultRequestsVanish(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c, other := l.client(l.engineAt(p.Addr(), "timeout=500ms")), l.process()
	l.unlock(l.lock(c, "name"))
	first := l.lock(other, "name")
	w := l.waiter(l.process(), "name")
	p.Drop(testserver.Up)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Mutex("name").Lock(ctx)
	l.failed(err, holdfast.ErrUnavailable, holdfast.Unknown)
	p.Heal()
	l.unlock(first)
	l.unlock(w.granted())
	l.unlock(l.lock(c, "name"))
}

// The server is silent, and the client would wait for it for a minute: calls end with their
// contexts all the same, and a release with its own deadline.
func TestFaultContextEndsCall(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own client %v", own), func(t *testing.T) {
			l := newLab(t, testserver.RedisOptions{})
			p := testserver.Proxy(t, l.server.Addr())
			var c *holdfast.Client
			if own {
				c = l.client(l.engineAt(p.Addr(), "timeout=1m"))
			} else {
				c = l.application(p.Addr(), func(o *redis.Options) { o.ReadTimeout = time.Minute })
			}
			lease := l.lock(c, "held", holdfast.WithoutRenewal())
			p.Freeze()
			l.Cleanup(p.Heal)
			for _, call := range []struct {
				name string
				f    func(context.Context) error
			}{
				{"trylock", func(ctx context.Context) error { return second(c.Mutex("other").TryLock(ctx)) }},
				{"lock", func(ctx context.Context) error { return second(c.Mutex("other").Lock(ctx)) }},
				{"extend", func(ctx context.Context) error { return lease.Extend(ctx, labTTL) }},
				{"unlock", func(context.Context) error { return lease.Unlock() }},
			} {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				done := make(chan error, 1)
				go func() { done <- call.f(ctx) }()
				select {
				case err := <-done:
					if !errors.Is(err, holdfast.ErrUnavailable) {
						l.Errorf("%s: %v, want ErrUnavailable", call.name, err)
					}
				case <-time.After(labPatience):
					l.Fatalf("%s does not end", call.name)
				}
				cancel()
			}
			p.Heal()
			l.eventually("what was given back is free", func() bool { return l.free("held") && l.free("other") })
		})
	}
}

// A holder that is cut off stops by itself, before the server lets the lock go.
func TestFaultHolderPartitioned(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c := l.clientWith(l.engineAt(p.Addr(), "timeout=200ms"), 2*time.Second)
	lease := l.lock(c, "name")
	ended := make(chan bool, 1)
	own := fmt.Sprint(" ", lease.Fence())
	context.AfterFunc(lease.Context(), func() { ended <- strings.Contains(l.key("name"), own) })
	w := l.waiter(l.process(), "name")
	p.Partition()
	select {
	case kept := <-ended:
		if !kept || !errors.Is(context.Cause(lease.Context()), holdfast.ErrLost) {
			l.Errorf("the lease ended with %v, the lock was still kept: %v", context.Cause(lease.Context()), kept)
		}
	case <-time.After(labPatience):
		l.Fatal("the lease does not end")
	}
	next := w.granted()
	p.Heal()
	l.failed(lease.Unlock(), holdfast.ErrLost, holdfast.NotApplied)
	if next.Fence() <= lease.Fence() || next.Context().Err() != nil {
		l.Errorf("fence %d after %d, context %v", next.Fence(), lease.Fence(), next.Context().Err())
	}
	l.unlock(next)
}

// Over a link that takes longer than the TTL nothing is granted that has run out by then.
func TestFaultSlowLink(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c := l.clientWith(l.engineAt(p.Addr(), "timeout=10s"), 300*time.Millisecond)
	p.Delay(200 * time.Millisecond)
	_, err := c.Mutex("name").TryLock(l.patience())
	l.failed(err, holdfast.ErrUnavailable, holdfast.Unknown)
	p.Delay(0)
	l.unlock(l.lock(c, "name"))
}

// Renewals that were under way when the lease was lost arrive later. They bring nothing back.
func TestFaultLateRenewals(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c := l.clientWith(l.engineAt(p.Addr(), "timeout=10s"), time.Second)
	lease := l.lock(c, "name")
	p.FreezeUp()
	l.Cleanup(p.Heal)
	<-lease.Context().Done()
	l.eventually("the end of the lock", func() bool { return l.free("name") })
	before := l.scripts()
	p.Heal()
	l.eventually("the late renewal", func() bool { return l.scripts() > before })
	l.failed(lease.Unlock(), holdfast.ErrLost, holdfast.NotApplied)
	if !l.free("name") {
		l.Errorf("the key is %q again", l.key("name"))
	}

	e := l.applicationEngine(l.server.Addr())
	defer e.Close()
	req := driver.Request{Name: "gone", Mode: driver.Exclusive, Token: driver.Token{1}, TTL: redislock.MinTTL, Span: 1}
	g, err := e.Acquire(l.patience(), req)
	if err != nil {
		l.Fatal(err)
	}
	l.eventually("the end of the share", func() bool { return l.free("gone") })
	var d *driver.Error
	if err := e.Renew(l.patience(), []driver.Claim{req.Claim(g)})[0]; !errors.As(err, &d) || d.Kind != driver.Lost || !l.free("gone") {
		l.Errorf("renewal after the end: %v, the key is %q", err, l.key("gone"))
	}
}

// A reply is never taken for that of another request, whatever was cut off where.
func TestFaultCutAnywhere(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c := l.application(p.Addr(), func(o *redis.Options) { o.PoolSize = 3 })
	l.unlock(l.lock(c, "warm"))
	for n := range 60 {
		p.CutAfterReplyBytes(n)
		for range 3 {
			lease, err := c.Mutex("name").TryLock(l.patience())
			if err != nil {
				if !errors.Is(err, holdfast.ErrUnavailable) && !errors.Is(err, holdfast.ErrHeld) {
					l.Fatalf("cut after %d bytes: %v", n, err)
				}
				continue
			}
			if value := l.key("name"); value == "" {
				l.Fatalf("cut after %d bytes: a lease for a lock that is free", n)
			}
			if err := lease.Unlock(); err != nil && !errors.Is(err, holdfast.ErrUnavailable) {
				l.Fatalf("cut after %d bytes: %v", n, err)
			}
		}
	}
	l.unlock(l.lock(c, "name"))
}
