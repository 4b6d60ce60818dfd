package holdfast_test

import (
	"context"
	"errors"
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
