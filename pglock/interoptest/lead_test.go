package interoptest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/pglock"
)

// leads are the faults that meet a caller who carries out its statement itself.
func leads(b *bench) {
	for _, through := range drivers {
		for name, run := range map[string]func(*bench, string){
			"LeavesASilentServer": leavesASilentServer,
			"LeavesOthersAlone":   leavesOthersAlone,
			"Closes":              closesUnderCallers,
			"QueueBehind":         queueBehind,
			"ReplyIsLost":         replyIsLost,
		} {
			b.Run(through+"/"+name, func(t *testing.T) {
				t.Parallel()
				run(b.sub(t), through)
			})
		}
	}
	b.Run("Panics", func(t *testing.T) {
		t.Parallel()
		panics(b.sub(t))
	})
}

// inFlight waits until the session of an owner, whose replies are held up, has so many locks beside
// its own.
func (b *bench) inFlight(owner string, locks int) {
	b.Helper()
	b.eventually("the statement was carried out", func() bool {
		return b.number(`SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'holdfast ' || $1
			AND locktype = 'advisory' AND granted`, owner) == locks+1
	})
}

// behindProxy is an engine whose session is there, and holds nothing, and does nothing by itself for
// some time.
func (b *bench) behindProxy(through, owner string) (*pglock.Engine, *testserver.TCPProxy) {
	b.Helper()
	proxy := testserver.Proxy(b.T, b.server.Addr())
	e := engine(b.T, pool(b.T, through, b.server.URLVia(proxy.Addr())), pglock.Config{Heartbeat: 10 * time.Second})
	b.released(b.take(e, request(owner+" first", owner, long)))
	return e, proxy
}

// leavesASilentServer: a caller who is alone in the session returns when its context is over, though
// the server does not answer, from a request and from a release. What it was granted does not stay.
func leavesASilentServer(b *bench, through string) {
	owner := "leaves " + through
	e, proxy := b.behindProxy(through, owner)
	for _, wait := range []bool{false, true} {
		proxy.FreezeDown()
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error, 1)
		req := request(owner, owner, long)
		req.Wait = wait
		go func() { _, err := e.Acquire(ctx, req); result <- err }()
		b.inFlight(owner, 1)
		cancel()
		if err := b.returns(result); !errors.Is(err, context.Canceled) {
			b.Errorf("request without an answer, wait %v: %v", wait, err)
		}
		proxy.Thaw()
		b.released(b.wait(b.engine("pgx", pglock.Config{}), request(owner, "other", long)).granted())
		b.released(b.take(e, request(owner, owner, long)))
	}

	h := b.take(e, request(owner, owner, long))
	proxy.FreezeDown()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- e.Release(ctx, h.claim) }()
	b.inFlight(owner, 0)
	cancel()
	if err := b.returns(result); !isKind(err, driver.Unavailable) {
		b.Errorf("release without an answer: %v", err)
	}
	proxy.Thaw()
	b.released(b.wait(b.engine("pgx", pglock.Config{}), request(owner, "other", long)).granted())
	b.released(b.take(e, request(owner, owner, long)))
}

// returns is what a call under way comes to.
func (b *bench) returns(result <-chan error) error {
	b.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		b.Fatal("the call does not return")
		return nil
	}
}

// leavesOthersAlone: where something else lives in the session, a caller who leaves does not end it.
func leavesOthersAlone(b *bench, through string) {
	owner := "alone " + through
	e, proxy := b.behindProxy(through, owner)
	kept := b.take(e, request(owner+" kept", owner, long))
	proxy.FreezeDown()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { _, err := e.Acquire(ctx, request(owner, owner, long)); result <- err }()
	b.inFlight(owner, 2)
	cancel()
	if err := b.returns(result); !errors.Is(err, context.Canceled) {
		b.Errorf("request without an answer: %v", err)
	}
	proxy.Thaw()
	if err := kept.renew(); err != nil {
		b.Errorf("the other share: %v", err)
	}
	b.inFlight(owner, 1) // what was granted late went back
	b.released(kept)
}

// waitedFor is a context whose end is waited for: how often is counted.
type waitedFor struct {
	context.Context
	times atomic.Int32
}

func (c *waitedFor) Done() <-chan struct{} {
	c.times.Add(1)
	return c.Context.Done()
}

// queueBehind: what is asked while a caller is in its statement is done afterwards, though nobody
// asks for anything else.
func queueBehind(b *bench, through string) {
	owner := "behind " + through
	e, proxy := b.behindProxy(through, owner)
	proxy.FreezeDown()
	first := b.wait(e, request(owner, owner, long))
	b.inFlight(owner, 1)
	asked := int32(1) // when a request has been handed to the session, and its answer is waited for
	if through == "pgx" {
		asked++ // a caller asks before whether it may carry out its statement itself
	}
	results := make(chan error, 2)
	for i := range cap(results) {
		ctx := &waitedFor{Context: b.Context()}
		req := request(fmt.Sprint(owner, i), owner, long)
		go func() {
			g, err := e.Acquire(ctx, req)
			if err == nil {
				err = e.Release(b.Context(), req.Claim(g))
			}
			results <- err
		}()
		b.eventually("the request waits behind the first", func() bool { return ctx.times.Load() >= asked })
	}
	proxy.Thaw()
	holder := first.granted()
	for range cap(results) {
		if err := b.returns(results); err != nil {
			b.Errorf("request behind another: %v", err)
		}
	}
	b.released(holder)
}

// closesUnderCallers: Close ends callers whose contexts never do, be the server silent or the lock
// somebody else's, and returns.
func closesUnderCallers(b *bench, through string) {
	owner := "closes " + through
	holder := b.take(b.engine("pgx", pglock.Config{}), request(owner+" held", "holder", long))
	for _, silent := range []bool{true, false} {
		e, proxy := b.behindProxy(through, owner)
		req := request(owner, owner, long)
		if silent {
			proxy.FreezeDown()
		} else {
			req = request(owner+" held", owner, long)
			req.Wait = true
		}
		result := make(chan error, 1)
		go func() { _, err := e.Acquire(context.Background(), req); result <- err }()
		if silent {
			b.inFlight(owner, 1)
		} else {
			b.eventually("it waits", func() bool { return b.blocked(owner) == 1 })
		}
		closed := make(chan error, 1)
		go func() { closed <- e.Close() }()
		if err := b.returns(result); err == nil || !silent && !isKind(err, driver.Closed) {
			b.Errorf("call under Close, silent %v: %v", silent, err)
		}
		if through == "postgres" { // whose connection reads on until something comes
			proxy.Thaw()
		}
		_ = b.returns(closed)
		proxy.Thaw()
		b.eventually("its sessions are gone", func() bool {
			return b.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast ' || $1", owner) == 0
		})
	}
	b.released(holder)
}

// replyIsLost: the connection breaks after the server has locked and before the caller knows. It is
// served by the next session, and one session has the lock.
func replyIsLost(b *bench, through string) {
	owner := "lost " + through
	e, proxy := b.behindProxy(through, owner)
	for range 3 {
		proxy.FreezeDown()
		granted := make(chan error, 1)
		req := request(owner, owner, long)
		var g driver.Grant
		go func() {
			var err error
			g, err = e.Acquire(context.Background(), req)
			granted <- err
		}()
		b.inFlight(owner, 1)
		proxy.Cut()
		proxy.Thaw()
		if err := b.returns(granted); err != nil && !isKind(err, driver.Held) {
			b.Errorf("request whose reply was lost: %v", err)
		} else if err == nil {
			b.released(&held{e, req.Claim(g), g})
		}
		b.released(b.wait(b.engine("pgx", pglock.Config{}), request(owner, "other", long)).granted())
	}
}

// tracer is called by the driver, on the goroutine that carries out a statement.
type tracer struct{ armed atomic.Bool }

func (t *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if t.armed.CompareAndSwap(true, false) {
		panic("planted")
	}
	return ctx
}

func (t *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// panics: a driver that panics under a caller panics through it, and costs the session. The caller's
// name, and all others, can be locked again.
func panics(b *bench) {
	const owner = "panics"
	cfg, err := pgx.ParseConfig(b.server.URL())
	if err != nil {
		b.Fatal(err)
	}
	trace := new(tracer)
	cfg.Tracer = trace
	db := stdlib.OpenDB(*cfg)
	b.Cleanup(func() { _ = db.Close() })
	e := engine(b.T, db, pglock.Config{})
	panicked := func(f func()) {
		b.Helper()
		defer func() {
			if p := recover(); p != "planted" {
				b.Errorf("the caller recovers %v", p)
			}
		}()
		trace.armed.Store(true)
		f()
	}
	b.released(b.take(e, request(owner, owner, long)))
	for _, wait := range []bool{false, true} {
		req := request(owner, owner, long)
		req.Wait = wait
		panicked(func() { b.take(e, req) })
		b.released(b.take(e, request(owner, owner, long)))
	}
	h := b.take(e, request(owner, owner, long))
	panicked(func() { _ = h.release() })
	b.lost(h)
	b.released(b.take(e, request(owner, owner, long)))
}
