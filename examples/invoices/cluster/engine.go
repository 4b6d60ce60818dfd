package main

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// engine is where locks, sequences and counters live.
type engine struct {
	name, title string
	dependsOn   string // what has to be up, beside the database
	start       func(*testserver.Lab, *database) *backend
}

// backend is an engine that runs.
type backend struct {
	url     string
	version string // of its servers
	// breakIt does what the failover of this engine is, and says what that was. It calls struck at
	// the moment from which on the service has to do without. Within Lab.Do.
	breakIt func(struck func()) string
}

// noEngine is for strategies that need nothing but the database.
var noEngine = &engine{name: "none", title: "the database alone", start: func(*testserver.Lab, *database) *backend { return &backend{} }}

// leases is how long those live here, unless their engine says otherwise. The default is 10 s, behind
// Sentinel 30 s; shorter ones make the report shorter, and nothing else different.
const leases = "?ttl=2s"

// initTimeout bounds the first contact with an engine.
const initTimeout = 30 * time.Second

// initialize says to an engine that it is new, as an operator does with `holdfast doctor --init`, and
// takes a lock once.
func (b *backend) initialize(ctx context.Context, settings string) error {
	if b.url == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	hf, err := holdfast.Open(ctx, b.url+settings, holdfast.Config{})
	if err != nil {
		return err
	}
	if err = hf.Init(ctx); errors.Is(err, holdfast.ErrUnsupported) || errors.Is(err, holdfast.ErrInvalid) {
		err = nil // nothing waits there; whether it works shows next
	}
	if err == nil {
		err = hf.Mutex("warm-up").Do(ctx, func(context.Context, *holdfast.Lease) error { return nil })
	}
	return errors.Join(err, hf.Close())
}
