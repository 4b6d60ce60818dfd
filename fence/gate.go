package fence

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-go/holdfast"
)

// gate keeps the handlers of a process apart that serve different holders of one name.
//
// A visit enters before its fence is registered or checked, and proceeds after it. So whoever is
// let in with a smaller fence was checked before ours was registered, has entered before that,
// and is waited for; whoever enters later is refused by the store. A visit waits for smaller
// fences only, so there is no circle of visits that wait for each other.
type gate struct {
	mu     sync.Mutex
	visits map[string]map[*visit]struct{} // by name, none for names without visits
}

// visit is one request on its way through the gate and the handler.
type visit struct {
	gate   *gate
	n      numbers
	cancel context.CancelCauseFunc // of the request's context
	cut    func() bool             // ends its readings from the client, if there are any left
	isCut  bool                    // guarded by the gate until it has left
	gone   chan struct{}           // closed when it has left
}

// enter begins a visit. cut is called when a larger fence proceeds, never after the visit left.
func (g *gate) enter(ctx context.Context, n numbers, cut func() bool) (*visit, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	v := &visit{gate: g, n: n, cancel: cancel, cut: cut, gone: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.visits == nil {
		g.visits = make(map[string]map[*visit]struct{})
	}
	if g.visits[n.name] == nil {
		g.visits[n.name] = make(map[*visit]struct{})
	}
	g.visits[n.name][v] = struct{}{}
	return v, ctx
}

// proceed ends what visits with smaller fences do, and waits until they have left.
func (v *visit) proceed(ctx context.Context) error {
	for _, older := range v.overtake() {
		select {
		case <-older.gone:
		case <-ctx.Done():
			return failed("fence.HTTP", v.n.name, holdfast.NotApplied,
				fmt.Errorf("a request of an earlier holder is still being handled: %w", ctx.Err()))
		}
	}
	return nil
}

func (v *visit) overtake() (older []*visit) {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	for other := range v.gate.visits[v.n.name] {
		if other.n.fence < v.n.fence {
			older = append(older, other)
			other.cancel(stale("fence.HTTP", other.n, v.n.fence))
			other.isCut = other.cut() || other.isCut // under the lock, so that it cannot hit the connection's next request
		}
	}
	return older
}

func (v *visit) leave() {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	visits := v.gate.visits[v.n.name]
	if delete(visits, v); len(visits) == 0 {
		delete(v.gate.visits, v.n.name)
	}
	close(v.gone)
	v.cancel(nil)
}
