package valuetable

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// polled is a table with a poller, in a bubble of fake time.
type polled struct {
	*testing.T
	*table
	poller  *Poller
	life    context.Context
	closing chan struct{}
	spawned sync.WaitGroup
	looks   atomic.Int64
}

// inBubble runs f, and then expects the poller's goroutine to end by itself.
func inBubble(t *testing.T, f func(*polled)) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(context.Background())
		defer end()
		p := &polled{T: t, table: newTable(), life: life, closing: make(chan struct{})}
		p.before = func(op string) {
			if op == "look" {
				p.looks.Add(1)
			}
		}
		p.poller = NewPoller(p.look, p.spawned.Go)
		f(p)
		p.spawned.Wait()
	})
}

type answer struct {
	v   driver.Value
	err error
}

func (p *polled) await(ctx context.Context, name string, version int64) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		v, err := p.poller.Await(ctx, p.life, p.closing, name, version, func(ctx context.Context) (driver.Value, error) {
			v, _, err := p.Read(ctx, name)
			return v, err
		})
		done <- answer{v, err}
	}()
	return done
}

func (p *polled) sees(done <-chan answer, version int64) {
	p.Helper()
	if a := <-done; a.err != nil || a.v.Version != version {
		p.Errorf("Await returned %+v, %v: want version %d", a.v, a.err, version)
	}
}

// Many wait for many names: a look is for all, looks become few, and everybody learns of a
// change.
func TestPollerLooksForAll(t *testing.T) {
	inBubble(t, func(p *polled) {
		var all []<-chan answer
		for i := range 50 {
			for range 4 {
				all = append(all, p.await(p.Context(), fmt.Sprint(i), 0))
			}
		}
		time.Sleep(time.Minute)
		p.looks.Store(0)
		time.Sleep(time.Minute)
		if n := p.looks.Load(); n == 0 || n > 5000 { // 50 names in 60 s with pauses of 0.15 s would be 20,000
			t.Errorf("%d looks in a minute, for 50 names", n)
		}
		var versions []int64
		for i := range 50 {
			versions = append(versions, put(t, p, driver.Write{Name: fmt.Sprint(i)}).Version)
		}
		began := time.Now()
		for i, done := range all {
			p.sees(done, versions[i/4])
		}
		if took := time.Since(began); took > 2*lastPause {
			t.Errorf("they learned of it after %v", took)
		}
	})
}

// More names wait than go into one look.
func TestPollerManyNames(t *testing.T) {
	inBubble(t, func(p *polled) {
		var all []<-chan answer
		for i := range 3*maxLook + 1 {
			all = append(all, p.await(p.Context(), fmt.Sprint(i), 0))
		}
		synctest.Wait()
		for i := range all {
			put(t, p, driver.Write{Name: fmt.Sprint(i)})
		}
		for _, done := range all {
			if a := <-done; a.err != nil || a.v.Version == 0 {
				t.Fatalf("Await returned %+v, %v", a.v, a.err)
			}
		}
	})
}

// What the process has written itself is told without a look, deletion included. What a
// waiter knows already does not end its wait.
func TestPollerChanged(t *testing.T) {
	inBubble(t, func(p *polled) {
		first := put(t, p, driver.Write{Name: "a"}).Version
		done := p.await(p.Context(), "a", first)
		synctest.Wait()
		p.poller.Changed("a", first)
		p.poller.Changed("b", 77)
		synctest.Wait()
		if len(done) > 0 {
			t.Fatalf("Await returned %+v", <-done)
		}
		p.fail("look", errors.New("not to be asked"))
		put(t, p, driver.Write{Name: "a", Delete: true, If: first})
		p.poller.Changed("a", 0)
		synctest.Wait()
		if len(done) == 0 {
			t.Fatal("a waiter was not told")
		}
		p.sees(done, 0)
	})
}

// Expiry is seen when it comes, not at the next look that would be due.
func TestPollerExpiry(t *testing.T) {
	inBubble(t, func(p *polled) {
		v := put(t, p, driver.Write{Name: "a", TTL: 10*time.Second + lastPause/2})
		began := time.Now()
		done := p.await(p.Context(), "a", v.Version)
		p.sees(done, 0)
		if took := time.Since(began); took > v.TTL+2*time.Millisecond {
			t.Errorf("it was seen after %v, of a TTL of %v", took, v.TTL)
		}
	})
}

// Looks that fail for a moment end no wait, looks that fail for long do.
func TestPollerRidesOut(t *testing.T) {
	inBubble(t, func(p *polled) {
		down := errors.New("down")
		done := p.await(p.Context(), "a", 0)
		time.Sleep(time.Second)
		for range 3 {
			p.fail("look", down)
			time.Sleep(rideOut - time.Second)
			p.fail("look", nil)
			time.Sleep(time.Second)
		}
		if len(done) > 0 {
			t.Fatalf("Await returned %+v", <-done)
		}
		p.fail("look", down)
		if a := <-done; a.err != down {
			t.Errorf("Await returned %+v, %v", a.v, a.err)
		}
	})
}

func TestPollerEnds(t *testing.T) {
	inBubble(t, func(p *polled) {
		ctx, cancel := context.WithCancel(p.Context())
		left, closed := p.await(ctx, "a", 0), p.await(p.Context(), "a", 0)
		synctest.Wait()
		cancel()
		var d *driver.Error
		if a := <-left; !errors.As(a.err, &d) || d.Kind != driver.Unavailable || d.Outcome != driver.NotApplied || !errors.Is(a.err, context.Canceled) {
			t.Errorf("cancelled, Await returned %+v, %v", a.v, a.err)
		}
		close(p.closing)
		if a := <-closed; !errors.As(a.err, &d) || d.Kind != driver.Closed {
			t.Errorf("closed, Await returned %+v, %v", a.v, a.err)
		}
		p.spawned.Wait()
		if len(p.poller.names) != 0 {
			t.Errorf("left behind: %v", p.poller.names)
		}
	})
}
