package strategy

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// mutex numbers invoices without gaps and without duplicates. The lock keeps the instances from
// getting into each other's way; the fence keeps out one that lost it without having noticed;
// the transaction writes number and invoice together or not at all.
type mutex struct {
	*cluster
	lock *holdfast.Mutex
}

func openMutex(ctx context.Context, s Settings) (Strategy, error) {
	c, err := openCluster(ctx, s)
	if err != nil {
		return nil, err
	}
	return mutex{c, c.client.Mutex(name)}, nil
}

// Issue registers the fence before it reads. So whoever comes later waits until this
// transaction has ended, and reads what it wrote; and whoever comes with an older lease is
// refused, however late.
func (m mutex) Issue(ctx context.Context, r store.Request) (i store.Invoice, err error) {
	err = m.lock.Do(ctx, func(ctx context.Context, lease *holdfast.Lease) error {
		defer m.held(ctx, lease, time.Now())
		return m.store.Write(ctx, func(tx *store.Tx) error {
			if err := tx.Guard(ctx, lease); err != nil {
				return err
			}
			last, _, err := tx.Ledger(ctx)
			if err != nil {
				return err
			}
			if err := tx.SetLast(ctx, last+1); err != nil {
				return err
			}
			i, err = tx.Insert(ctx, r, last+1, lease.Fence())
			return err
		})
	})
	return i, err
}
