package redislock

// Needs returns the commands that Diagnose tries by scripts.
func Needs(e *Engine) []string {
	var names []string
	for _, n := range e.needs("holdfast:x", "") {
		names = append(names, n[0])
	}
	return names
}

// Attempts returns how often the engine has tried to get a majority.
func (q *Quorum) Attempts() uint64 { return q.attempts.Load() }
