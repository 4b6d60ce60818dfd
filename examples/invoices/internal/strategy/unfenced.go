package strategy

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-go/holdfast"
	_ "github.com/holdfast-go/holdfast/memlock" // the scheme of a lock of one process

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// unfenced does the task of none under a lock, and leaves it at that: take the lock, read, add
// one, write, give it back.
//
// No lock with a lease is enough for that. A process that stands still between its reading and
// its writing, for longer than its lease, wakes up when the lock is somebody else's, and writes
// what it had read: a number that was given meanwhile. Nothing that looks at the lease before it
// writes can help, as the pause may come after the look.
type unfenced struct {
	*cluster
	lock *holdfast.Mutex
	task none
}

func openUnfenced(ctx context.Context, s Settings) (Strategy, error) {
	c, err := openCluster(ctx, s)
	if err != nil {
		return nil, err
	}
	return unfenced{c, c.client.Mutex(name), none{s.Store}}, nil
}

// openLocal has a lock that the other instances know nothing of: on an engine in memory.
func openLocal(ctx context.Context, s Settings) (Strategy, error) {
	s.Engine = "mem://"
	return openUnfenced(ctx, s)
}

// Issue does the task between taking the lock and giving it back, with the request's context: that
// of the lease, or Mutex.Do, would notice most of the losses, though not all.
func (u unfenced) Issue(ctx context.Context, r store.Request) (store.Invoice, error) {
	l, err := u.lock.Lock(ctx)
	if err != nil {
		return store.Invoice{}, err
	}
	from := time.Now()
	i, err := u.task.Issue(ctx, r)
	u.held(ctx, l, from)
	return i, errors.Join(err, l.Unlock())
}
