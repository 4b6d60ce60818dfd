package redislock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// claimed is a claim of the test's own on name, and the request that it is passed on to.
func claimed(l *lab, e driver.Engine, name string, token byte) (driver.Claim, driver.Request) {
	l.Helper()
	req := driver.Request{Name: name, Mode: driver.Exclusive, Weight: 1, Span: 1, TTL: time.Minute, Token: driver.Token{token}}
	g, err := e.Acquire(l.patience(), req)
	if err != nil {
		l.Fatal(err)
	}
	next := req
	next.Token[1]++
	return req.Claim(g), next
}

// engines are one whose calls leave from callers' goroutines, and one whose do not.
func engines(l *lab) map[string]*redislock.Engine {
	all := map[string]*redislock.Engine{
		"own client":         l.engineAt(l.server.Addr(), "timeout=1s"),
		"application client": l.applicationEngine(l.server.Addr()),
	}
	for _, e := range all {
		l.Cleanup(func() { e.Close() })
	}
	return all
}

// wantKind fails unless err is of that kind and outcome.
func wantKind(l *lab, what string, err error, kind driver.Kind, outcome driver.Outcome) {
	l.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != kind || d.Outcome != outcome {
		l.Errorf("%s: %v, want %v, %v", what, err, kind, outcome)
	}
}

// A pass is one script call, and the shares follow each other without a gap.
func TestPassIsOneCall(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	for name, e := range engines(l) {
		c, next := claimed(l, e, name, 1)
		if _, _, err := e.Pass(l.patience(), c, next); err != nil { // the script is there from now on
			t.Fatal(err)
		}
		c.Token = next.Token
		before := l.scripts()
		for range 10 {
			next.Token[1]++
			released, g, err := e.Pass(l.patience(), c, next)
			if released != nil || err != nil || g.Fence <= c.Fence {
				t.Fatalf("%s: %v, %v, fence %d after %d", name, released, err, g.Fence, c.Fence)
			}
			c = next.Claim(g)
		}
		if n := l.scripts() - before; n != 10 {
			t.Errorf("%s: %d script calls for ten passes", name, n)
		}
	}
}

// What others wrote to the key is not touched by a pass, and neither is a key of another type.
func TestPassOverOthersKeys(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	for name, e := range engines(l) {
		c, next := claimed(l, e, name, 1)
		l.do("SET", "holdfast:"+name, "somebody's token")
		released, _, err := e.Pass(l.patience(), c, next)
		wantKind(l, "release of what is another's", released, driver.NotHeld, driver.NotApplied)
		wantKind(l, "request for what is another's", err, driver.Held, driver.NotApplied)
		if v := l.key(name); v != "somebody's token" {
			t.Errorf("the key holds %q", v)
		}
		l.do("DEL", "holdfast:"+name)
		l.do("RPUSH", "holdfast:"+name, "x")
		released, _, err = e.Pass(l.patience(), c, next)
		if released == nil || err == nil {
			t.Errorf("a list was passed on: %v, %v", released, err)
		}
		if n := l.do("LLEN", "holdfast:"+name); n != int64(1) {
			t.Errorf("the list has %v elements", n)
		}
	}
}

// A holder that slept through its TTL has nothing to give, whoever has the lock by then.
func TestPassAfterTheTTL(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	for name, e := range engines(l) {
		c, next := claimed(l, e, name, 1)
		l.do("PEXPIRE", "holdfast:"+name, "1")
		l.eventually("the lock runs out", func() bool { return l.free(name) })
		other, _ := claimed(l, e, name, 2)
		released, _, err := e.Pass(l.patience(), c, next)
		wantKind(l, "release of what has run out", released, driver.NotHeld, driver.NotApplied)
		wantKind(l, "request for what another has by now", err, driver.Held, driver.NotApplied)
		if err := e.Release(l.patience(), other); err != nil {
			t.Errorf("release by who has it: %v", err)
		}
	}
}

// A master that has become a replica neither takes back nor grants.
func TestPassOnAReplica(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	for name, e := range engines(l) {
		c, next := claimed(l, e, name, 1)
		before := l.key(name)
		l.do("REPLICAOF", "127.0.0.1", "1")
		released, _, err := e.Pass(l.patience(), c, next)
		if v := l.key(name); v != before {
			t.Errorf("the key holds %q, and was %q", v, before)
		}
		l.do("REPLICAOF", "NO", "ONE")
		wantKind(l, "release on a replica", released, driver.Unavailable, driver.NotApplied)
		wantKind(l, "request on a replica", err, driver.Unavailable, driver.NotApplied)
		l.eventually("the lock is passed on by a master", func() bool {
			released, g, err := e.Pass(l.patience(), c, next)
			return released == nil && err == nil && g.Fence > c.Fence
		})
	}
}

// When the exchange of a pass is lost the outcome of both is unknown, and nothing is repeated.
// Two releases put it right.
func TestPassLost(t *testing.T) {
	eachLoss(t, func(l *lab, p *testserver.TCPProxy, _ *holdfast.Client, how loss) {
		e := l.applicationEngine(p.Addr())
		l.Cleanup(func() { e.Close() })
		c, next := claimed(l, e, "warm "+how.name, 1)
		if _, _, err := e.Pass(l.patience(), c, next); err != nil { // or the server would not know the script
			l.Fatal(err)
		}
		c, next = claimed(l, e, "pass", 1)
		held, before := l.key("pass"), l.scripts()
		how.inject(p, "holdfast:pass")
		released, _, err := e.Pass(l.patience(), c, next)
		wantKind(l, "release", released, driver.Unavailable, driver.Unknown)
		wantKind(l, "request", err, driver.Unavailable, driver.Unknown)
		want := 0
		if how.done {
			want = 1
			l.eventually("the pass is made", func() bool { return l.key("pass") != held })
		}
		if n := l.scripts() - before; n != want {
			l.Errorf("%d script calls, want %d", n, want)
		}
		for _, claim := range []driver.Claim{next.Claim(driver.Grant{}), c} {
			e.Release(l.patience(), claim)
		}
		if !l.free("pass") {
			l.Errorf("the key holds %q", l.key("pass"))
		}
	})
}

// What a pass was granted and nobody waited for goes back by itself.
func TestPassNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	e := l.applicationEngine(l.server.Addr())
	l.Cleanup(func() { e.Close() })
	c, next := claimed(l, e, "pass", 1)
	l.server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	released, _, err := e.Pass(ctx, c, next)
	cancel()
	l.server.Resume()
	wantKind(l, "release", released, driver.Unavailable, driver.Unknown)
	wantKind(l, "request", err, driver.Unavailable, driver.Unknown)
	l.eventually("nothing is left", func() bool { return l.free("pass") })
}

// Who got a lock from others, by a push or by asking again, says so, and who found it free does not.
func TestGrantsSayThatTheyWaited(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	l.warm()
	for name, e := range engines(l) {
		ask := func(token byte) driver.Request {
			return driver.Request{
				Name: name, Mode: driver.Exclusive, Weight: 1, Span: 1, TTL: time.Minute, Token: driver.Token{token}, Wait: true,
			}
		}
		take := func(what string, token byte, waited bool, free func()) {
			granted := make(chan driver.Claim, 1)
			go func() {
				req := ask(token)
				g, err := e.Acquire(l.patience(), req)
				if err != nil || g.Waited != waited {
					l.Errorf("%s, %s: %v; it waited: %v", name, what, err, g.Waited)
				}
				granted <- req.Claim(g)
			}()
			if waited {
				l.eventually("somebody waits", func() bool { return l.waiting(name) == 1 })
			}
			free()
			if err := e.Release(l.patience(), <-granted); err != nil {
				l.Error(err)
			}
		}
		take("free", 1, false, func() {})
		held, _ := claimed(l, e, name, 2)
		take("pushed", 3, true, func() {
			if err := e.Release(l.patience(), held); err != nil {
				l.Error(err)
			}
		})
		l.do("SET", "holdfast:"+name, "somebody's token", "PX", "60000")
		take("asked again", 4, true, func() { l.do("DEL", "holdfast:"+name) }) // nobody tells
	}
}
