// Package strategy has the ways to give invoices their numbers, one a file: those that work,
// those that work under conditions, and those that people try first.
//
//	none      reads the last number, adds one, writes it
//	local     the same under a lock of the process
//	unfenced  the same under a lock of the cluster
//	mutex     under a lock of the cluster, with its fence, in one transaction
//	version   writes if nobody else has since it read, and otherwise tries again
//	sequence  takes a number from a sequence on the engine
//	counter   takes a number from a counter on the engine, which lasts a day
package strategy

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// name is what all instances call the lock, the sequence and the counter.
const name = "invoices"

// Strategy gives invoices their numbers. It is safe for concurrent use.
type Strategy interface {
	// Issue stores an invoice under a number of its choice. It fails with store.ErrIssued where
	// there is one for the request's key, and without effect or with an unknown one otherwise:
	// the request may be repeated in any case.
	Issue(ctx context.Context, r store.Request) (store.Invoice, error)

	// Close gives back what is held.
	Close() error
}

// Settings are what strategies work with.
type Settings struct {
	Store   *store.Store
	Engine  string           // URL of where locks, sequences and counters live; not all need one
	Owner   string           // what others see of who holds a lock
	Log     *slog.Logger     // gets a line at level debug for every time a lock was held
	Metrics holdfast.Metrics // may be nil
}

// Kind is one of the strategies.
type Kind struct {
	Name        string
	NeedsEngine bool
	Unique      bool // no number is given twice, whatever fails
	Gapless     bool // and none is left out
	// GapsAre says why gaps are no fault of it, where they are none.
	GapsAre string

	open func(context.Context, Settings) (Strategy, error)
}

// All lists the strategies.
var All = []Kind{
	{Name: "none", open: openNone},
	{Name: "local", open: openLocal},
	{Name: "unfenced", NeedsEngine: true, open: openUnfenced},
	{Name: "mutex", NeedsEngine: true, Unique: true, Gapless: true, open: openMutex},
	{Name: "version", Unique: true, Gapless: true, open: openVersion},
	{Name: "sequence", NeedsEngine: true, Unique: true, open: openSequence,
		GapsAre: "numbers of requests that failed, and those it skips to be safe when the counter was lost"},
	{Name: "counter", NeedsEngine: true, open: openCounter,
		GapsAre: "numbers of requests that failed"},
}

// Named returns the strategy of that name.
func Named(name string) (Kind, error) {
	var names []string
	for _, k := range All {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, fmt.Errorf("%q is not known: it has to be one of %s", name, strings.Join(names, ", "))
}

// Open returns the strategy, ready for use. It connects to the engine where it needs one.
func (k Kind) Open(ctx context.Context, s Settings) (Strategy, error) {
	if k.NeedsEngine && s.Engine == "" {
		return nil, fmt.Errorf("the strategy %s needs the URL of an engine", k.Name)
	}
	return k.open(ctx, s)
}

// cluster is what all strategies on an engine have.
type cluster struct {
	client *holdfast.Client
	store  *store.Store
	log    *slog.Logger
}

func openCluster(ctx context.Context, s Settings) (*cluster, error) {
	client, err := holdfast.Open(ctx, s.Engine, holdfast.Config{Owner: s.Owner, Logger: s.Log, Metrics: s.Metrics})
	if err != nil {
		return nil, err
	}
	return &cluster{client, s.Store, s.Log}, nil
}

// Close gives back what is held.
func (c *cluster) Close() error { return c.client.Close() }

// held logs for how long a lock was held.
func (c *cluster) held(ctx context.Context, l *holdfast.Lease, from time.Time) {
	c.log.DebugContext(ctx, HeldMessage, "from", from, "to", time.Now(), "fence", l.Fence())
}

// HeldMessage is what is logged, at level debug, when a lock is given back: with "from", "to" and
// "fence".
const HeldMessage = "lock held"

// insert stores an invoice under a number that nobody else was given.
func insert(ctx context.Context, s *store.Store, r store.Request, number int64) (i store.Invoice, err error) {
	err = s.Write(ctx, func(tx *store.Tx) error {
		i, err = tx.Insert(ctx, r, number, 0)
		return err
	})
	return i, err
}
