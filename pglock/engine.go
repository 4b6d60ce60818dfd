package pglock

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/valuetable"
)

// Engine grants locks in one PostgreSQL database. It is safe for concurrent use.
type Engine struct {
	db     *sql.DB
	owned  bool // Close closes db
	cfg    Config
	caps   driver.Capabilities
	clock  driver.Clock
	texts  *texts
	server server

	mu        sync.Mutex
	books     map[key]*book
	shares    map[driver.Token]*share
	waiting   map[driver.Token]*ask
	lastShare int64 // its number
	pool      pool
	shut      bool
	reaper    driver.Timer
	reaps     driver.Instant // when it fires

	closing chan struct{}   // closed by Close
	kick    chan struct{}   // buffered: watch has to look again
	life    context.Context // ends when no call of a user is left
	end     context.CancelFunc
	poller  *valuetable.Poller
	sweeps  atomic.Int64   // when values are swept next, as a driver.Instant
	waits   sync.WaitGroup // calls of users
	calls   sync.WaitGroup // goroutines of the engine
}

var _ interface {
	driver.Engine
	driver.Inspector
	driver.Diagnoser
	driver.Values
} = (*Engine)(nil)

// New returns an engine on a pool of connections to PostgreSQL, made by pgx (its stdlib) or
// lib/pq, that the caller keeps open for as long as the engine is used, and closes afterwards.
// It takes up to Config.Connections out of the pool, sets them up to its needs, and has them
// closed in the end: none goes back. A pool with a limit has to leave room for others.
//
// New looks at the server, makes the sequence and the tables that it needs where they are not
// there, and refuses a server that it cannot rely on: a standby, or a pooler that moves a
// connection from one session to another. ctx bounds that only.
func New(ctx context.Context, db *sql.DB, cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if most := db.Stats().MaxOpenConnections; most > 0 && most <= cfg.Connections {
		return nil, driver.Failf(driver.Invalid, "Connections is %d, and the pool is limited to %d: "+
			"lower the one or raise the other (SetMaxOpenConns), so that something is left for others", cfg.Connections, most)
	}
	e := &Engine{
		db: db, cfg: cfg, clock: driver.BootClock(), texts: newTexts(cfg.Schema),
		books: make(map[key]*book), shares: make(map[driver.Token]*share), waiting: make(map[driver.Token]*ask),
		closing: make(chan struct{}), kick: make(chan struct{}, 1), reaps: never,
	}
	if err := e.greet(ctx); err != nil {
		return nil, err
	}
	e.caps = capabilitiesOf(cfg, &e.server)
	e.life, e.end = context.WithCancel(context.Background())
	e.poller = valuetable.NewPoller(e.lookAtValues, e.calls.Go)
	e.calls.Go(e.watch)
	return e, nil
}

func newID() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return int64(binary.BigEndian.Uint64(b[:]))
}

func capabilitiesOf(cfg Config, on *server) driver.Capabilities {
	caps := driver.Capabilities{
		Engine: "pglock", Instance: on.instance, Scope: driver.Cluster,
		Shared: true, Upgradeable: true, Permits: true,
		Expires: true, Push: cfg.Connections > 1, Holders: true,
		MinTTL: MinTTL, MaxTTL: cfg.MaxTTL, DefaultTTL: min(DefaultTTL, cfg.MaxTTL), Resolution: time.Millisecond,
		MaxPermits: MaxPermits,
		Safety: "exclusive while the holder's session lives: who ends the session, the server's end and a failover included, " +
			"frees its locks at once, and the holder is told at its next renewal",
		FenceSource: "a sequence, set to the server's clock in µs when a process begins; order breaks when the sequence is set back " +
			"and the server's clock is wrong",
	}
	if !on.idle {
		caps.Safety += "; before PostgreSQL 14 a holder that is frozen keeps its locks, as the server does not end silent sessions"
	}
	return caps
}

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities { return e.caps }

// Close implements driver.Engine. All connections that the engine took are closed, and with
// them every lock it holds is free. The pool stays open unless Open made it.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !e.shut
	if e.shut = true; first {
		close(e.closing)
		if e.reaper != nil {
			e.reaper.Stop()
		}
		for _, a := range e.waiting {
			a.cancel()
		}
	}
	e.mu.Unlock()
	e.waits.Wait()
	if !first {
		return nil
	}
	e.end()
	gone := make(chan struct{})
	go func() { e.calls.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(e.cfg.Timeout + time.Second):
		return driver.Failf(driver.Unavailable, "a connection does not end: the network may be down, and the server's lease ends its locks")
	}
	if e.owned {
		return e.db.Close()
	}
	return nil
}

var errClosed = driver.Fail(driver.Closed, nil)

// enterCall begins a call. Who was let in calls leave at its end.
func (e *Engine) enterCall(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shut {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return driver.Fail(driver.Unavailable, err)
	}
	e.waits.Add(1)
	return nil
}

func (e *Engine) leave() { e.waits.Done() }

// quoteElement quotes one element of an array.
func quoteElement(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
