// Package cluster runs several instances of an example for its tests: inside the test, on one store
// in memory and on fake time, or as processes.
package cluster

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

// Memory is a store that instances share.
type Memory struct {
	*memlock.Store
	t testing.TB
}

// InMemory returns an empty store.
func InMemory(t testing.TB) *Memory { return &Memory{memlock.NewStore(memlock.Config{}), t} }

// Instance is one that runs inside the test, with an engine of its own.
type Instance struct {
	engine *memlock.Engine
	cancel context.CancelFunc
	over   chan struct{} // closed when run has returned
	killed bool
}

// Client returns a client on an engine of its own, which is closed when the test ends.
func (m *Memory) Client() *holdfast.Client {
	m.t.Helper()
	hf, _ := m.client()
	return hf
}

func (m *Memory) client() (*holdfast.Client, *memlock.Engine) {
	m.t.Helper()
	engine := m.Engine()
	hf, err := holdfast.New(engine, holdfast.Config{})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { hf.Close() })
	return hf, engine
}

// Start begins an instance, which is stopped at the end of the test at the latest.
func (m *Memory) Start(run func(ctx context.Context, hf *holdfast.Client) error) *Instance {
	m.t.Helper()
	hf, engine := m.client()
	ctx, cancel := context.WithCancel(context.Background())
	i := &Instance{engine: engine, cancel: cancel, over: make(chan struct{})}
	go func() {
		defer close(i.over)
		if err := run(ctx, hf); !errors.Is(err, context.Canceled) && !i.killed {
			m.t.Errorf("an instance ended: %v", err)
		}
	}()
	m.t.Cleanup(i.Stop)
	return i
}

// Stop ends the instance as Ctrl-C does, and waits for it.
func (i *Instance) Stop() {
	i.cancel()
	<-i.over
}

// Kill ends the instance as kill -9 does, as far as others can tell: nothing that it does
// reaches the store any more, and what it holds runs out.
func (i *Instance) Kill() {
	i.killed = true
	i.engine.Close()
	i.Stop()
}
