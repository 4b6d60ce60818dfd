package mysqllock

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/leaver"
	"github.com/holdfast-go/holdfast/internal/valuetable"
)

// Engine grants locks on one MySQL or MariaDB server. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	db     *sql.DB
	owned  bool // Close closes the DB
	caps   driver.Capabilities
	clock  driver.Clock
	prefix atomic.Pointer[string] // of keys, once the schema is known

	main    *session   // everything that is tried, and what it was granted
	waiters []*session // for requests that wait, and what they were granted
	values  *session   // the one among them that was set aside for values, nil before; guarded by mu
	poller  *valuetable.Poller
	sweeps  atomic.Int64 // when values are swept next, as a driver.Instant

	// What the engine knows of shares. Never locked during a call to the server.
	mu       sync.Mutex
	names    map[string]*name
	spent    map[string]int64 // keys of rows that are over, and their fences
	pressing bool             // some of them would be taken for rows of other shares
	tidying  bool             // the spent rows are going to be taken away
	watching bool             // somebody tells others of shares, and looks whether they were broken

	closed  atomic.Bool
	active  context.Context // ends with Close
	stop    context.CancelFunc
	closing <-chan struct{} // of active
	life    context.Context // of all statements
	end     context.CancelFunc
	doors   sync.Mutex     // orders users.Add and Close
	users   sync.WaitGroup // calls of users
	calls   sync.WaitGroup // goroutines of the engine
}

var _ interface {
	driver.Engine
	driver.Inspector
	driver.Diagnoser
	driver.Values
} = (*Engine)(nil)

// New returns an engine on a DB that the caller keeps open for as long as the engine is used,
// and closes afterwards. It takes up to Config.Connections of the DB's connections for itself,
// sets them up to its needs, and has them closed in the end: none goes back. A DB with a limit
// has to leave room for others.
//
// New looks at the server, makes the table that it needs where it is not there, and refuses a
// server that it cannot rely on. ctx bounds that only. The driver is to be
// github.com/go-sql-driver/mysql, or one that reports the numbers of errors in the same words.
func New(ctx context.Context, db *sql.DB, cfg Config) (*Engine, error) {
	if db == nil {
		return nil, driver.Failf(driver.Invalid, "db is nil: open one with sql.Open, or use Open")
	}
	most, taken := db.Stats().MaxOpenConnections, cfg.withDefaults().Connections
	if most > 0 && most <= taken {
		return nil, driver.Failf(driver.Invalid, "Connections is %d, and the DB is limited to %d: "+
			"lower the one or raise the other (SetMaxOpenConns), so that something is left for others", taken, most)
	}
	return start(ctx, db, cfg)
}

// start makes an engine and its first connection.
func start(ctx context.Context, db *sql.DB, cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, db: db, clock: driver.BootClock(), caps: capabilitiesOf(cfg),
		names: make(map[string]*name), spent: make(map[string]int64),
	}
	e.active, e.stop = context.WithCancel(context.Background())
	e.closing = e.active.Done()
	e.life, e.end = context.WithCancel(context.Background())
	e.poller = valuetable.NewPoller(e.lookAtValues, e.calls.Go)
	e.main = e.newSession()
	for range cfg.Connections - 1 {
		e.waiters = append(e.waiters, e.newSession())
	}
	if err := e.greet(ctx); err != nil {
		e.end() // so that closing takes no time
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

// greet makes the first connection, and takes away what holders that died have left.
func (e *Engine) greet(ctx context.Context) error {
	var instance string
	err := e.onMain(ctx, func(s *session) error {
		if err := s.query("SELECT CONCAT(@@hostname,':',@@port,'/',COALESCE(DATABASE(),''))", &instance); err != nil {
			return err
		}
		_, err := s.exec(sweepText(e.cfg.quoted()), 0)
		return err
	})
	if err == nil {
		e.caps.Instance = instance
	}
	return err
}

func (e *Engine) newSession() *session {
	s := &session{e: e, shares: make(map[*share]struct{}), wake: make(chan struct{}, 1), limit: limit{life: e.life}}
	s.leavers = leaver.New(e.closing, lingerFor, s.leave)
	return s
}

func capabilitiesOf(cfg Config) driver.Capabilities {
	return driver.Capabilities{
		Engine: "mysqllock", Scope: driver.Cluster, Permits: true, Expires: true, Push: true, Holders: true,
		MinTTL: MinTTL, MaxTTL: cfg.MaxTTL, DefaultTTL: min(DefaultTTL, cfg.MaxTTL), Resolution: time.Second,
		MaxPermits:  MaxPermits,
		Safety:      "exclusive while one server process lives and all clients talk to it; a restart or failover ends all locks",
		FenceSource: "UUID_SHORT, from what an InnoDB row has reserved and the server's clock in µs on; order breaks when the row is lost and the clock is wrong",
	}
}

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities { return e.caps }

// closeFor is how long Close tries to leave nothing behind in the table.
const closeFor = time.Second

// Close implements driver.Engine. It closes the connections of the engine, which frees what they
// hold. A DB that was handed to New stays open.
func (e *Engine) Close() error {
	e.doors.Lock()
	first := !e.closed.Swap(true)
	if first {
		e.stop()
	}
	e.doors.Unlock()
	e.users.Wait()
	if !first {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeFor)
	for _, s := range e.sessions() {
		_ = s.do(ctx, func() error { s.unregister(); s.forget(1); s.end(); return nil })
	}
	cancel()
	e.end() // statements that are still under way
	e.calls.Wait()
	for _, s := range e.sessions() {
		s.end()
	}
	if e.owned {
		return e.db.Close()
	}
	return nil
}

// sessions returns all of them, the main one last: it takes away rows of the others' shares.
func (e *Engine) sessions() []*session {
	return append(append([]*session(nil), e.waiters...), e.main)
}

// enter begins a call. Who was let in calls leave at its end.
func (e *Engine) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil && !e.closed.Load() {
		return driver.Fail(driver.Unavailable, err)
	}
	e.doors.Lock()
	defer e.doors.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	e.users.Add(1)
	return nil
}

func (e *Engine) leave() { e.users.Done() }

// later calls f on a goroutine of the engine after d, unless it is closed by then. When f is to
// be called, but the engine is closed before, nothing happens.
func (e *Engine) later(d time.Duration, f func()) driver.Timer {
	return e.clock.AfterFunc(d, func() {
		if e.enter(context.Background()) == nil {
			defer e.leave()
			f()
		}
	})
}

// settlePrefix learns the schema that the connections are in.
func (e *Engine) settlePrefix(schema string) error {
	if table, _, ok := cutSchema(e.cfg.Table); ok {
		schema = table
	}
	if schema == "" {
		return driver.Failf(driver.Invalid, "the connection has chosen no schema: name one in the DSN, or write schema.table in Config.Table")
	}
	prefix := e.cfg.Prefix
	if prefix == "" && !e.cfg.RawNames {
		prefix = "holdfast:" + schema + ":"
	}
	if old := e.prefix.Swap(&prefix); old != nil && *old != prefix {
		e.prefix.Store(old)
		return driver.Failf(driver.Invalid, "the DB's connections are in different schemas, %q among them: name one in Config.Table", schema)
	}
	return nil
}

// full returns the name with its prefix. The session has been opened.
func (e *Engine) full(name string) string { return *e.prefix.Load() + name }

// onMain has f done in the main session, with a connection.
func (e *Engine) onMain(ctx context.Context, f func(s *session) error) error {
	return e.main.do(ctx, func() error {
		if err := e.main.need(0); err != nil {
			return err
		}
		err := f(e.main)
		if err == nil {
			return nil
		}
		if d := new(driver.Error); errors.As(err, &d) {
			return err
		}
		e.main.survives(err)
		return e.classify(err, driver.Unknown)
	})
}
