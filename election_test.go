package holdfast_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// A leader that was lost is told, cannot announce any more, and its late announcement is
// refused by what the next one has announced.
func TestElectionLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		old, err := a.Election("x").Campaign(t.Context(), []byte("old"))
		if err != nil {
			t.Fatal(err)
		}
		store.Lose("election:x")
		next, err := b.Election("x").Campaign(t.Context(), []byte("next"))
		if err != nil {
			t.Fatal(err)
		}
		e := store.Engine() // the old leader's announcement was under way
		_, err = e.WriteValue(t.Context(), driver.Write{Name: "election:x", Data: []byte("old"), If: driver.AnyVersion, Fence: old.Fence()})
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Stale {
			t.Errorf("a late announcement: %v", err)
		}
		<-old.Context().Done()
		want(t, context.Cause(old.Context()), holdfast.ErrLost)
		want(t, old.Announce(t.Context(), nil), holdfast.ErrLost)
		want(t, old.Resign(), holdfast.ErrLost)
		if l, err := a.Election("x").Leader(t.Context()); string(l.Value) != "next" || l.Fence != next.Fence() || err != nil {
			t.Errorf("the leader is %+v, %v", l, err)
		}
		if err := next.Resign(); err != nil {
			t.Error(err)
		}
		e.Close()
	})
}

// A leader that died is seen for its TTL, and no longer.
func TestElectionLeaderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, b := twoClients(t, holdfast.Config{})
		if _, err := a.Election("x", holdfast.WithTTL(time.Second)).Campaign(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var seen []bool
		for l, err := range b.Election("x").Observe(ctx) {
			if err != nil {
				continue
			}
			if seen = append(seen, l.Fence != 0); len(seen) == 2 {
				break
			}
			store.Inject(func(call memlock.Call) (f memlock.Fault) { // from now on it does nothing any more
				if call.Op == memlock.OpRenew || call.Op == memlock.OpWrite {
					f.Refuse = errors.New("dead")
				}
				return f
			})
		}
		if len(seen) != 2 || !seen[0] || seen[1] {
			t.Errorf("observed leaders: %v, want one and then none", seen)
		}
		store.Inject(nil)
	})
}

// Lead begins again after a term that was lost, and ends with work that returns within one.
func TestLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := twoClients(t, holdfast.Config{})
		terms := 0
		failure := errors.New("enough")
		err := a.Election("x").Lead(t.Context(), nil, func(ctx context.Context, term *holdfast.Term) error {
			if terms++; terms == 3 {
				return failure
			}
			store.Lose("election:x")
			<-ctx.Done()
			want(t, context.Cause(ctx), holdfast.ErrLost)
			return context.Cause(ctx)
		})
		want(t, err, failure)
		ctx, cancel := context.WithCancel(t.Context())
		err = a.Election("x").Lead(ctx, nil, func(ctx context.Context, _ *holdfast.Term) error {
			cancel()
			<-ctx.Done()
			return nil
		})
		want(t, err, context.Canceled)
		if terms != 3 {
			t.Errorf("%d terms, want 3", terms)
		}
	})
}

// A panic in the work ends the term, as it ends the lease of a Mutex.Do.
func TestLeadPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := twoClients(t, holdfast.Config{})
		func() {
			defer func() {
				if recover() != "work" {
					t.Error("the panic was swallowed")
				}
			}()
			a.Election("x").Lead(t.Context(), nil, func(context.Context, *holdfast.Term) error { panic("work") })
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		term, err := b.Election("x").Campaign(ctx, nil)
		if err != nil {
			t.Fatalf("the term goes on: %v", err)
		}
		if err := term.Resign(); err != nil {
			t.Error(err)
		}
	})
}

// The engine's failure that ends a term does not end Lead: it campaigns until the engine is back.
func TestLeadOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := twoClients(t, holdfast.Config{})
		terms := 0
		err := a.Election("x").Lead(t.Context(), nil, func(ctx context.Context, _ *holdfast.Term) error {
			if terms++; terms == 2 {
				return nil
			}
			store.Inject(func(memlock.Call) memlock.Fault { return memlock.Fault{Refuse: errors.New("down")} })
			<-ctx.Done()
			time.AfterFunc(time.Hour, func() { store.Inject(nil) })
			return context.Cause(ctx)
		})
		if err != nil || terms != 2 {
			t.Errorf("after %d terms: %v", terms, err)
		}
	})
}

// An announcement that the engine does not answer holds up neither the resignation nor who asks
// for the value.
func TestResignDuringAnAnnouncement(t *testing.T) {
	store, a, _ := twoClients(t, holdfast.Config{})
	term, err := a.Election("x").Campaign(t.Context(), []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	store.Inject(func(call memlock.Call) (f memlock.Fault) {
		if call.Op == memlock.OpWrite {
			f.Delay = time.Hour
			store.Inject(nil)
			close(asked)
		}
		return f
	})
	announced := make(chan error, 1)
	go func() { announced <- term.Announce(context.Background(), []byte("two")) }()
	<-asked
	resigned := make(chan error, 1)
	go func() {
		if v := term.Value(); string(v) != "one" {
			t.Errorf("announced is %q", v)
		}
		resigned <- term.Resign()
	}()
	for range 2 {
		select {
		case err := <-resigned:
			if err != nil {
				t.Error(err)
			}
		case err := <-announced:
			want(t, err, holdfast.ErrNotHeld)
		case <-time.After(30 * time.Second):
			t.Fatal("it hangs")
		}
	}
}

// What is announced is the last announcement, though it is repeated all the time.
func TestAnnouncedLast(t *testing.T) {
	_, a, _ := twoClients(t, holdfast.Config{})
	term, err := a.Election("x", holdfast.WithTTL(10*time.Millisecond)).Campaign(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 {
		value := strconv.Itoa(i)
		if err := term.Announce(t.Context(), []byte(value)); err != nil {
			break // such a short term may end
		}
		runtime.Gosched()
		if got := string(term.Value()); got != value {
			t.Fatalf("announced is %s, not %s", got, value)
		}
	}
	term.Resign()
}

func TestElectionBadInput(t *testing.T) {
	_, a, b := twoClients(t, holdfast.Config{})
	l := mustLock(t, b.Mutex("election:x"))
	defer mustUnlock(t, l)
	_, err := a.Election("x").Campaign(t.Context(), make([]byte, holdfast.MaxItem+1))
	want(t, err, holdfast.ErrInvalid) // at once, not once it leads
	_, err = a.Election("").Campaign(t.Context(), nil)
	want(t, err, holdfast.ErrInvalid)
}
