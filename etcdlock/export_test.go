package etcdlock

// Waiting counts the calls of AwaitValue for a name, and Watched says whether the server tells
// the engine of its changes.
func (e *Engine) Waiting(name string) int {
	n, _ := e.watchOf(name)
	return n
}

func (e *Engine) Watched(name string) bool {
	_, watched := e.watchOf(name)
	return watched
}

func (e *Engine) watchOf(name string) (users int, watched bool) {
	e.watches.mu.Lock()
	defer e.watches.mu.Unlock()
	w := e.watches.byKey[e.cfg.valueKey(name)]
	if w == nil {
		return 0, false
	}
	return w.users, w.watched
}
