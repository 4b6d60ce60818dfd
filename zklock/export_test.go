package zklock

import (
	"context"
	"maps"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/envelope"
)

// Watches counts the watches that the library keeps for the engine.
func (e *Engine) Watches() int { return e.watches.count() }

// Vigils counts the vigils on the connection, one for each request that waits.
func (e *Engine) Vigils() int {
	e.session.mu.Lock()
	w := e.session.wire
	e.session.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[*vigil]struct{})
	for _, those := range w.vigils {
		maps.Copy(all, those)
	}
	return len(all)
}

// ProveIn proves a node in the session that follows the engine's own by so much.
func (e *Engine) ProveIn(ctx context.Context, later int64, node string) error {
	e.session.mu.Lock()
	id := e.session.id
	e.session.mu.Unlock()
	_, err := e.prove(ctx, id+later, []string{node}, nil)
	return err
}

// Deletions counts the requests under way that delete nodes, and the nodes that wait for them.
func (e *Engine) Deletions() (under, queued int) {
	e.deletions.mu.Lock()
	defer e.deletions.mu.Unlock()
	return e.deletions.under, len(e.deletions.queue)
}

// Sweep deletes the values that had ended by then.
func (e *Engine) Sweep(ctx context.Context, then time.Time) (int, error) {
	return e.sweepOnce(ctx, then)
}

// WriteAfter is a write during which between happens after it has read.
func (e *Engine) WriteAfter(ctx context.Context, name, text string, between func()) error {
	s, err := e.readStored(ctx, e.valuePath(name), true)
	if err != nil {
		return err
	}
	between()
	next := envelope.Seal(&driver.Write{Data: []byte(text)}, s.value())
	next.Note = newGuard(0)
	_, err = e.commit(ctx, e.valuePath(name), &s, &next, false)
	return err
}

// The encoding of names.
var (
	Encode = encode
	Decode = decode
)
