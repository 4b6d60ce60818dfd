package strategy

import (
	"context"

	"github.com/holdfast-go/holdfast"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// sequence takes numbers from a counter on the engine: no lock, one round trip, which requests
// that come together share. Numbers are unique, and some are left out: that of a request which
// failed after it was given one, and a thousand when the engine has lost the counter, as it then
// goes on from the highest number in the database and cannot know what is under way.
type sequence struct {
	*cluster
	numbers *holdfast.Sequence
}

func openSequence(ctx context.Context, s Settings) (Strategy, error) {
	c, err := openCluster(ctx, s)
	if err != nil {
		return nil, err
	}
	return sequence{c, c.client.Sequence(name, holdfast.WithSource(s.Store.Highest))}, nil
}

// Issue stores the invoice under the next number.
func (s sequence) Issue(ctx context.Context, r store.Request) (store.Invoice, error) {
	n, err := s.numbers.Next(ctx)
	if err != nil {
		return store.Invoice{}, err
	}
	return insert(ctx, s.store, r, n)
}
