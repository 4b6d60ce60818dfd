package redislock

// Needs returns the commands that Diagnose tries by scripts.
func Needs(e *Engine) []string {
	var names []string
	for _, n := range e.needs("holdfast:x", "") {
		names = append(names, n[0])
	}
	return names
}
