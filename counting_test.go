package holdfast_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// slowly has the engine answer calls for a counter after so long.
func slowly(store *memlock.Store, names map[string]time.Duration) {
	store.Inject(func(call memlock.Call) memlock.Fault { return memlock.Fault{Delay: names[call.Name]} })
}

// add counts in a goroutine, and answers how that ended.
func add(ctx context.Context, c *holdfast.Client, name string) <-chan error {
	over := make(chan error, 1)
	go func() {
		_, err := c.Counter(name, time.Hour).Add(ctx, 1)
		over <- err
	}()
	synctest.Wait()
	return over
}

// A call that the engine never answers does not hold up the others for ever, though its caller
// would wait.
func TestCountingBesideOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c, _ := twoClients(t, holdfast.Config{})
		slowly(store, map[string]time.Duration{"counter:hangs": 24 * time.Hour})
		hangs := add(t.Context(), c, "hangs")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := <-add(ctx, c, "other"); err != nil {
			t.Error(err)
		}
		want(t, <-hangs, holdfast.ErrUnavailable)
	})
}

// The end of a call that several share is not taken for that of a caller's context.
func TestCountingTogetherEnds(t *testing.T) {
	for what, ending := range map[string]struct {
		act  func(*holdfast.Client)
		want error
	}{
		"timeout": {func(*holdfast.Client) { time.Sleep(time.Minute) }, holdfast.ErrUnavailable},
		"close":   {func(c *holdfast.Client) { c.Close() }, holdfast.ErrClosed},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, c, _ := twoClients(t, holdfast.Config{})
				slowly(store, map[string]time.Duration{"counter:first": time.Second, "counter:hangs": 24 * time.Hour})
				first, one, two := add(t.Context(), c, "first"), add(t.Context(), c, "hangs"), add(t.Context(), c, "hangs")
				if err := <-first; err != nil {
					t.Error(err)
				}
				synctest.Wait()
				ending.act(c)
				for _, over := range []<-chan error{one, two} {
					err := <-over
					if !errors.Is(err, ending.want) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("error is %v, want %v", err, ending.want)
					}
				}
			})
		})
	}
}

// Nobody waits for a limit to let them pass when the client is closed.
func TestLimiterWaitEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, holdfast.Config{})
		l := c.Limiter("x", holdfast.FixedWindow(1, time.Hour))
		if err := l.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		over, began := make(chan error), time.Now()
		go func() { over <- l.Wait(t.Context(), 1) }()
		synctest.Wait()
		c.Close()
		want(t, <-over, holdfast.ErrClosed)
		if took := time.Since(began); took >= time.Hour {
			t.Errorf("it ended after %v", took)
		}
	})
}

// slowCounters counts at one moment, and holds each call until the test lets it go.
type slowCounters struct {
	*memlock.Engine
	gate  chan struct{}
	lost  error // answered instead of what was counted
	calls [][]driver.Count
	data  map[string][]byte
}

func newSlowCounters() *slowCounters {
	return &slowCounters{Engine: memlock.New(memlock.Config{}), gate: make(chan struct{}), data: map[string][]byte{}}
}

func (s *slowCounters) Count(_ context.Context, steps []driver.Count) []driver.Counted {
	<-s.gate
	s.calls = append(s.calls, slices.Clone(steps))
	answers := make([]driver.Counted, len(steps))
	for i, step := range steps {
		answers[i] = s.apply(step)
		if s.lost != nil {
			answers[i] = driver.Counted{Err: s.lost}
		}
	}
	return answers
}

// apply carries out one step. Every total is known from the beginning.
func (s *slowCounters) apply(step driver.Count) (answer driver.Counted) {
	data := s.data[step.Name]
	if step.Rule == driver.Total && data == nil {
		data = []byte("t 0")
	}
	s.data[step.Name], _, answer = step.Apply(data, time.Unix(0, 0))
	return answer
}

// hold begins a call, so that those who come now share the next one.
func (s *slowCounters) hold(t *testing.T, c *holdfast.Client) (release func()) {
	over := add(t.Context(), c, "held")
	return func() {
		close(s.gate)
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

// TestCountingTogether: callers who share a call are answered as if each had been alone, in the
// order in which they came; those that left before it count nothing.
func TestCountingTogether(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		synctest.Test(t, func(t *testing.T) { countTogether(t, random) })
	}
}

func countTogether(t *testing.T, random *rand.Rand) {
	engine, alone := newSlowCounters(), newSlowCounters()
	c := clientOn(t, engine, holdfast.Config{})
	release := engine.hold(t, c)
	limiters := []*holdfast.Limiter{
		c.Limiter("fixed", holdfast.FixedWindow(30, time.Hour)), c.Limiter("fixed", holdfast.FixedWindow(20, time.Hour)),
		c.Limiter("sliding", holdfast.SlidingWindow(30, time.Hour)), c.Limiter("pace", holdfast.Pace(60, time.Hour, 30)),
	}
	sequence := c.Sequence("x")
	var all sync.WaitGroup
	for range 100 {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		left := random.IntN(8) == 0
		l, n := limiters[random.IntN(len(limiters))], random.Int64N(8)/5+1 // mostly 1
		step := driver.Count{Name: "sequence:x", Rule: driver.Total, N: 1}
		ask := func() (any, error) { return sequence.Next(ctx) }
		want := func(a driver.Counted) any { return a.Total }
		switch random.IntN(12) {
		case 0, 1, 2:
		case 3:
			step = driver.Count{Name: holdfast.StepForTest(l).Name, Rule: driver.Forget}
			ask = func() (any, error) { return nil, l.Reset(ctx) }
			want = func(driver.Counted) any { return nil }
		default:
			step = holdfast.StepForTest(l)
			step.N = n
			ask = func() (any, error) { return l.Allow(ctx, n) }
			want = func(a driver.Counted) any {
				return holdfast.Decision{Allowed: a.Allowed, Remaining: a.Remaining, RetryAfter: a.RetryAfter, ResetAfter: a.ResetAfter}
			}
		}
		var expected any
		if !left {
			expected = want(alone.apply(step))
		}
		all.Go(func() {
			got, err := ask()
			if left && !errors.Is(err, context.Canceled) {
				t.Errorf("a caller that left: %v", err)
			} else if !left && (err != nil || got != expected) {
				t.Errorf("%+v: %+v, %v: want %+v", step, got, err, expected)
			}
		})
		synctest.Wait()
		if left {
			leave()
			synctest.Wait()
		}
	}
	release()
	all.Wait()
	if len(engine.calls) != 2 {
		t.Errorf("100 callers took %d calls: want 1", len(engine.calls)-1)
	}
}

// TestCountingAlike: callers who ask the same are one step of the call.
func TestCountingAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := newSlowCounters()
		c := clientOn(t, engine, holdfast.Config{})
		release := engine.hold(t, c)
		s, l := c.Sequence("x"), c.Limiter("x", holdfast.FixedWindow(20, time.Hour))
		var all sync.WaitGroup
		var passed atomic.Int64
		for range 30 {
			all.Go(func() {
				if _, err := s.Next(t.Context()); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				d, err := l.Allow(t.Context(), 1)
				if err != nil {
					t.Error(err)
				}
				if d.Allowed {
					passed.Add(1)
				}
			})
		}
		synctest.Wait()
		release()
		all.Wait()
		if passed.Load() != 20 {
			t.Errorf("%d passed: want 20", passed.Load())
		}
		steps := engine.calls[len(engine.calls)-1]
		if len(engine.calls) != 2 || len(steps) != 2 || steps[0].Times != 30 || steps[1].Times != 30 {
			t.Errorf("the steps are %+v: want one for each name, 30 times", steps)
		}
	})
}

// TestCountingLost: when the answer to a call that many share is lost, all are told that they
// may have counted, and nobody is given what they may have got.
func TestCountingLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := newSlowCounters()
		c := clientOn(t, engine, holdfast.Config{})
		engine.lost = &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown}
		over := []<-chan error{add(t.Context(), c, "held")}
		s := c.Sequence("x")
		for range 10 {
			failed := make(chan error, 1)
			over = append(over, failed)
			go func() { _, err := s.Next(t.Context()); failed <- err }()
		}
		synctest.Wait()
		close(engine.gate)
		for _, failed := range over {
			var e *holdfast.Error
			if err := <-failed; !errors.As(err, &e) || e.Outcome != holdfast.Unknown {
				t.Errorf("error is %v: want one of unknown outcome", err)
			}
		}
		engine.lost = nil
		if n := next(t, s); n != 11 {
			t.Errorf("the next number is %d: want 11", n)
		}
	})
}
