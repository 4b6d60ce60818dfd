package strategy

import (
	"context"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// none does the task as if it were alone.
type none struct{ store *store.Store }

func openNone(_ context.Context, s Settings) (Strategy, error) { return none{s.Store}, nil }

// Issue reads the last number, adds one, and writes that. Between the two others read the same
// number. It is of no use that the writes are a transaction: the second one waits for the first,
// and then writes the same.
func (n none) Issue(ctx context.Context, r store.Request) (i store.Invoice, err error) {
	last, err := n.store.Last(ctx)
	if err != nil {
		return store.Invoice{}, err
	}
	err = n.store.Write(ctx, func(tx *store.Tx) error {
		if err := tx.SetLast(ctx, last+1); err != nil {
			return err
		}
		i, err = tx.Insert(ctx, r, last+1, 0)
		return err
	})
	return i, err
}

func (none) Close() error { return nil }
