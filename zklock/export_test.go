package zklock

import "context"

// Watches counts the watches that the library keeps for the engine.
func (e *Engine) Watches() int { return e.watches.count() }

// ProveIn proves a node in the session that follows the engine's own by so much.
func (e *Engine) ProveIn(ctx context.Context, later int64, node string) error {
	e.session.mu.Lock()
	id := e.session.id
	e.session.mu.Unlock()
	_, err := e.prove(ctx, id+later, []string{node}, nil)
	return err
}

// The encoding of names.
var (
	Encode = encode
	Decode = decode
)
