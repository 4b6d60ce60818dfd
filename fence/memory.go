package fence

import (
	"context"
	"sync"
)

// Memory is a [Store] in the memory of one process, for [HTTP] on one server. It is safe for
// concurrent use; the zero Memory is ready for use.
//
// It grows by one entry for each name and forgets everything at a restart: a holder that had
// opened before has to start over then, as Check refuses it.
type Memory struct {
	mu     sync.Mutex
	fences map[string]int64
}

// Open registers the fence of the lease, unless a larger one is registered for its name.
func (m *Memory) Open(ctx context.Context, l Lease) error {
	const op = "fence.Memory open"
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if stored := m.fences[n.name]; stored > n.fence {
		return stale(op, n, stored)
	}
	if m.fences == nil {
		m.fences = make(map[string]int64)
	}
	m.fences[n.name] = n.fence
	return nil
}

// Check returns nil if the fence of the lease is the registered one.
func (m *Memory) Check(ctx context.Context, l Lease) error {
	const op = "fence.Memory check"
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if stored := m.fences[n.name]; stored != n.fence {
		return stale(op, n, stored)
	}
	return nil
}
