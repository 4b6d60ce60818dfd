package zklock

// Watches counts the watches that the library keeps for the engine.
func (e *Engine) Watches() int { return e.watches.count() }

// The encoding of names.
var (
	Encode = encode
	Decode = decode
)
