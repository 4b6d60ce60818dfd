package strategy

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// version needs no lock: it writes on the condition that nobody else has written since it read,
// and starts over where somebody has. That is the cheapest as long as it seldom happens; where
// everybody wants the same row it happens most of the time.
type version struct{ store *store.Store }

func openVersion(_ context.Context, s Settings) (Strategy, error) { return version{s.Store}, nil }

// Issue tries until it succeeds or ctx ends, with pauses that grow.
func (v version) Issue(ctx context.Context, r store.Request) (store.Invoice, error) {
	const longest = 100 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		i, done, err := v.try(ctx, r)
		if done || err != nil {
			return i, err
		}
		select {
		case <-ctx.Done():
			return store.Invoice{}, ctx.Err()
		case <-time.After(rand.N(pause)):
		}
	}
}

func (v version) try(ctx context.Context, r store.Request) (i store.Invoice, done bool, err error) {
	err = v.store.Write(ctx, func(tx *store.Tx) error {
		last, version, err := tx.Ledger(ctx)
		if err != nil {
			return err
		}
		if done, err = tx.SetLastIf(ctx, last+1, version); err != nil || !done {
			return err
		}
		i, err = tx.Insert(ctx, r, last+1, 0)
		return err
	})
	return i, done, err
}

func (version) Close() error { return nil }
