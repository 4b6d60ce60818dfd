package holdfast_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// crowd lets n goroutines lock m once each, one after the other, and returns when all have.
func crowd(t *testing.T, m *holdfast.Mutex, n int) {
	t.Helper()
	var group sync.WaitGroup
	var highest int64
	first := mustLock(t, m)
	for range n {
		group.Go(func() {
			l := mustLock(t, m)
			if l.Fence() <= highest {
				t.Errorf("fence %d after %d", l.Fence(), highest)
			}
			highest = l.Fence()
			time.Sleep(time.Millisecond)
			mustUnlock(t, l)
		})
	}
	synctest.Wait()
	mustUnlock(t, first)
	group.Wait()
}

// TestPassInARow: a lock goes round within a process by passes, but after seven in a row it
// goes back for all to see, and so it does after a grant that others were before.
func TestPassInARow(t *testing.T) {
	waited := func(ctx context.Context, _ driver.Request, next func() (driver.Grant, error)) (driver.Grant, error) {
		g, err := next()
		g.Waited = true
		return g, err
	}
	for _, tc := range []struct {
		name    string
		cfg     holdfast.Config
		acquire func(context.Context, driver.Request, func() (driver.Grant, error)) (driver.Grant, error)
		want    string
	}{
		{"seven", holdfast.Config{MaxLocalHandovers: 1}, nil, "a" + "ppppppp" + "a" + "ppppppp" + "a" + "pppp"},
		{"waited", holdfast.Config{MaxLocalHandovers: 5}, waited, strings.Repeat("a", 8)},
		{"off", holdfast.Config{MaxLocalHandovers: -1}, nil, strings.Repeat("a", 41)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newRelay()
				e.onAcquire(tc.acquire)
				crowd(t, clientOn(t, e, tc.cfg).Mutex("x"), 40)
				// A release and the request of who is next go out side by side.
				if got := strings.ReplaceAll(e.called(), "r", ""); got != tc.want {
					t.Errorf("the calls but releases were %s, want %s", got, tc.want)
				}
			})
		})
	}
}

// What is passed on has the settings of who gets it, and reserves numbers for those behind.
func TestPassAsksForWhoIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPassing(t, holdfast.Config{MaxLocalHandovers: 2})
		next := p.lock(t.Context(), p.client.Mutex("x", holdfast.WithTTL(time.Minute), holdfast.WithOwner("next")))
		for range 5 {
			p.lock(t.Context(), p.client.Mutex("x"))
		}
		p.begin()
		req := p.engine.asked[0]
		if req.TTL != time.Minute || req.Owner != "next" || req.Span != 3 || req.Wait || req.Token == (driver.Request{}).Token {
			t.Errorf("the pass asked for %+v", req)
		}
		if err := p.end(goOn); err != nil {
			t.Error(err)
		}
		r := <-next
		if r.err != nil || r.lease.Remaining() < 50*time.Second {
			t.Errorf("the next has %v, %v", r.lease, r.err)
		}
		p.calls("")
	})
}

// Who comes while a pass is under way stands behind who it is for, and does not ask.
func TestNobodyAsksBesideAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPassing(t, holdfast.Config{})
		next := p.lock(t.Context(), p.client.Mutex("x"))
		p.begin()
		behind := p.lock(t.Context(), p.client.Mutex("x"))
		p.calls("")
		if err := p.end(goOn); err != nil {
			t.Error(err)
		}
		p.unlockedInTurn(<-next, behind)
		p.isFree()
	})
}

// That holds when who it is for has left, too.
func TestNobodyAsksBesideAPassForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPassing(t, holdfast.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		p.lock(ctx, p.client.Mutex("x"))
		p.begin()
		cancel()
		synctest.Wait()
		for i := range 2000 { // the client has better things to remember
			mustUnlock(t, mustLock(t, p.client.Mutex(fmt.Sprint(i))))
		}
		p.engine.called()
		behind := p.lock(t.Context(), p.client.Mutex("x"))
		p.calls("")
		if err := p.end(goOn); err != nil {
			t.Error(err)
		}
		p.unlocked(<-behind)
		p.isFree()
	})
}

func (p *passing) unlockedInTurn(first result, second chan result) {
	p.t.Helper()
	synctest.Wait()
	if len(second) > 0 {
		p.t.Error("two have the lock")
	}
	p.engine.on = nil
	p.unlocked(first)
	p.unlocked(<-second)
}

// Where others come first the local goroutine stands in line like everybody.
func TestPassRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPassing(t, holdfast.Config{})
		next := p.lock(t.Context(), p.client.Mutex("x"))
		p.begin()
		var theirs *holdfast.Lease
		err := p.end(func(func() (error, driver.Grant, error)) (error, driver.Grant, error) {
			released := p.engine.Engine.Release(t.Context(), p.engine.given[0])
			theirs = mustLock(t, p.other.Mutex("x"))
			g, err := p.engine.Engine.Acquire(t.Context(), p.engine.asked[0])
			return released, g, err
		})
		if err != nil {
			t.Errorf("Unlock: %v", err)
		}
		p.calls("a")
		if len(next) > 0 {
			t.Error("two have the lock")
		}
		mustUnlock(t, theirs)
		p.unlocked(<-next)
		p.isFree()
	})
}

// Who waits may leave while the lock is passed on to it. What was granted then goes to the
// next that wants the same, or back.
func TestPassToWhoHasLeft(t *testing.T) {
	for _, tc := range []struct {
		name   string
		behind []holdfast.Option // of who stands behind
		shares bool              // with who has left
		calls  string            // after the pass
	}{
		{name: "nobody else", calls: "r"},
		{name: "the same handle", shares: true, calls: ""},
		{name: "another TTL", behind: []holdfast.Option{holdfast.WithTTL(time.Minute)}, calls: "ar"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPassing(t, holdfast.Config{})
				m := p.client.Mutex("x")
				ctx, cancel := context.WithCancel(t.Context())
				gone, behind := p.lock(ctx, m), make(chan result, 1)
				if tc.shares {
					behind = p.lock(t.Context(), m)
				} else if tc.behind != nil {
					behind = p.lock(t.Context(), p.client.Mutex("x", tc.behind...))
				}
				p.begin()
				cancel()
				want(t, (<-gone).err, holdfast.ErrHeld, context.Canceled)
				if err := p.end(goOn); err != nil {
					t.Errorf("Unlock: %v", err)
				}
				synctest.Wait()
				if got := p.engine.called(); len(got) != len(tc.calls) || strings.Trim(got, tc.calls) != "" {
					t.Errorf("the calls after the pass were %q, want %q in any order", got, tc.calls)
				}
				if tc.shares || tc.behind != nil {
					p.unlocked(<-behind)
				}
				p.isFree()
			})
		})
	}
}

// When no answer comes both may have happened: the release is made again, and so is what may
// have been granted taken back. Who waits asks for itself.
func TestPassUnknown(t *testing.T) {
	for _, tc := range []struct {
		name    string
		happens int // 0 nothing, 1 the release, 2 both
	}{{"nothing was done", 0}, {"given back", 1}, {"granted", 2}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPassing(t, holdfast.Config{})
				next := p.lock(t.Context(), p.client.Mutex("x"))
				p.begin()
				err := p.end(func(func() (error, driver.Grant, error)) (error, driver.Grant, error) {
					if tc.happens > 0 {
						p.engine.Engine.Release(t.Context(), p.engine.given[0])
					}
					if tc.happens > 1 {
						p.engine.Engine.Acquire(t.Context(), p.engine.asked[0])
					}
					return errNoReply, driver.Grant{}, errNoReply
				})
				want(t, err, holdfast.ErrUnavailable)
				began := time.Now()
				p.unlocked(<-next)
				if d := time.Since(began); d > time.Second {
					t.Errorf("the next had to wait for %v: for a TTL, and not for the clean-up", d)
				}
				p.isFree()
			})
		})
	}
}

// A pass that was not made keeps the lock where it was: the release is repeated.
func TestPassFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPassing(t, holdfast.Config{})
		next := p.lock(t.Context(), p.client.Mutex("x"))
		p.begin()
		down := driver.Fail(driver.Unavailable, nil)
		want(t, p.end(func(func() (error, driver.Grant, error)) (error, driver.Grant, error) {
			return down, driver.Grant{}, down
		}), holdfast.ErrUnavailable)
		p.unlocked(<-next)
		p.isFree()
	})
}

// A grant that comes late, or for less than was asked for, needs a proof that a pass does not
// wait for: it goes back, and who waits asks for itself.
func TestPassOfALateGrant(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*driver.Grant)
	}{
		{"late", func(*driver.Grant) { time.Sleep(6 * time.Second) }},
		{"brief", func(g *driver.Grant) { g.TTL = time.Second }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPassing(t, holdfast.Config{ReleaseTimeout: 9 * time.Second})
				next := p.lock(t.Context(), p.client.Mutex("x"))
				p.begin()
				var fence int64
				p.end(func(next func() (error, driver.Grant, error)) (error, driver.Grant, error) {
					released, g, err := next()
					fence = g.Fence
					tc.change(&g)
					return released, g, err
				})
				r := <-next
				if r.err != nil || r.lease.Fence() <= fence || r.lease.Remaining() < 9*time.Second {
					t.Fatalf("the next has %v, %v after a pass with fence %d", r.lease, r.err, fence)
				}
				p.unlocked(r)
				p.isFree()
			})
		})
	}
}

// Close while a lock is passed on: who waits is told, and what is granted after all goes back.
func TestCloseDuringAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memlock.NewStore(memlock.Config{})
		e := relayOn(openAfterClose{store.Engine()})
		begun, goOn := make(chan bool), make(chan bool)
		e.on = func(_ context.Context, _ driver.Claim, next func() (error, driver.Grant, error)) (error, driver.Grant, error) {
			begun <- true
			<-goOn
			return next()
		}
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		other := clientOn(t, store.Engine(), holdfast.Config{})
		l, done := mustLock(t, c.Mutex("x")), make(chan error)
		go func() { _, err := c.Mutex("x").Lock(t.Context()); done <- err }()
		synctest.Wait()
		go l.Unlock()
		<-begun
		closed := make(chan error, 1)
		go func() { closed <- c.Close() }()
		want(t, <-done, holdfast.ErrClosed)
		close(goOn)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		next, err := other.Mutex("x").Lock(ctx)
		if err != nil {
			t.Fatalf("nobody has the lock, and yet: %v", err)
		}
		mustUnlock(t, next)
	})
}

// A holder whose lease ran out while it did not look has nothing to pass on.
func TestNothingIsPassedOnAfterTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &sleepyClock{Clock: driver.MonotonicClock()}
		store := memlock.NewStore(memlock.Config{Clock: clock})
		e := relayOn(store.Engine())
		e.onRenew(func(_ context.Context, claims []driver.Claim, _ func() []error) []error {
			return failAll(claims, errNoReply)
		})
		c := clientOn(t, e, holdfast.Config{})
		l, next := mustLock(t, c.Mutex("x")), make(chan *holdfast.Lease)
		go func() { next <- mustLock(t, c.Mutex("x")) }()
		synctest.Wait()
		clock.suspend(time.Minute)
		l.Unlock()
		mustUnlock(t, <-next)
		if got := e.called(); strings.Contains(got, "p") {
			t.Errorf("the calls were %s", got)
		}
	})
}

// asyncRelay can give back without waiting as well.
type asyncRelay struct {
	*relay
	letters chan func(error)
}

func (r asyncRelay) ReleaseAsync(c driver.Claim, done func(error)) {
	r.note('R')
	postman{r.spy, r.letters}.ReleaseAsync(c, done)
}

// Who does not wait for its release does not pass on either: that would be waiting. A pass to
// it is as good as any, and its own release is then not waited for.
func TestPassAndAsyncUnlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := asyncRelay{newRelay(), make(chan func(error), 10)}
		c := clientOn(t, e, holdfast.Config{})
		async := holdfast.WithAsyncUnlock()
		next := make(chan *holdfast.Lease)
		wait := func(opts ...holdfast.Option) {
			go func() { next <- mustLock(t, c.Mutex("x", opts...)) }()
			synctest.Wait()
		}
		l := mustLock(t, c.Mutex("x"))
		wait(async)
		mustUnlock(t, l)
		l = <-next
		wait()
		mustUnlock(t, l)
		synctest.Wait()
		if got := e.called(); got != "apRa" && got != "apaR" {
			t.Errorf("the calls were %s, want apRa", got)
		}
		if err := l.Released(canceled()); err == nil {
			t.Error("the release is said to be over, and nobody has made it")
		}
		(<-e.letters)(nil)
		mustUnlock(t, <-next)
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// openAfterClose goes on after Close, as a server does with calls that are under way.
type openAfterClose struct{ driver.Engine }

func (openAfterClose) Close() error { return nil }

// What others hold as well, or what is being renewed, goes back by itself: readers do not tell who
// is next, and a renewal that comes late must not be taken for one by the next.
func TestNoPassOfReadersAndRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newRelay()
		c := clientOn(t, e, holdfast.Config{TTL: 3 * time.Second, MaxLocalHandovers: 1})
		m := c.RWMutex("x")
		reader, err := m.RLock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wait := func() chan *holdfast.Lease {
			got := make(chan *holdfast.Lease, 1)
			go func() {
				l, err := m.Lock(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- l
			}()
			synctest.Wait()
			return got
		}
		first, second, third := wait(), wait(), wait()
		mustUnlock(t, reader)
		l := <-first
		if got := e.called(); strings.Contains(got, "p") {
			t.Errorf("a reader's share went back by %q, want no pass", got)
		}
		mustUnlock(t, l) // within the process, up to the bound
		l = <-second
		e.called()
		held := make(chan struct{})
		e.onRenew(func(_ context.Context, _ []driver.Claim, next func() []error) []error {
			<-held
			return next()
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		go func() {
			time.Sleep(10 * time.Millisecond)
			close(held)
		}()
		mustUnlock(t, l)
		mustUnlock(t, <-third)
		if got := e.called(); strings.Contains(got, "p") {
			t.Errorf("the calls were %q, want no pass", got)
		}
	})
}
