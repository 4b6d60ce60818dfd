package strategy

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// counter takes numbers from a counter that ends with its day, as scripts around INCRBY and
// EXPIRE do it. That is made for counting requests. As a number of an invoice it begins at one
// again whenever the engine has lost it, and goes back by what a failover has lost.
type counter struct {
	*cluster
	count *holdfast.Counter
}

func openCounter(ctx context.Context, s Settings) (Strategy, error) {
	c, err := openCluster(ctx, s)
	if err != nil {
		return nil, err
	}
	return counter{c, c.client.Counter(name, 24*time.Hour)}, nil
}

// Issue stores the invoice under the number that the counter has reached.
func (c counter) Issue(ctx context.Context, r store.Request) (store.Invoice, error) {
	t, err := c.count.Add(ctx, 1)
	if err != nil {
		return store.Invoice{}, err
	}
	return insert(ctx, c.store, r, t.Total)
}
