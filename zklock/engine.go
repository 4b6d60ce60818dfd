package zklock

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Engine is the engine on ZooKeeper. It implements driver.Engine, driver.Values,
// driver.Inspector and driver.Diagnoser. It has one session, whose death ends everything that it
// holds; values live on.
type Engine struct {
	cfg     Config
	caps    driver.Capabilities
	clock   driver.Clock
	session session
	watches watches
	done    chan struct{} // closed by Close

	deletions deletions

	mu     sync.Mutex
	closed bool
	shares map[driver.Token]*share
	work   sync.WaitGroup // calls, and what is left to do behind them

	persistent bool // the servers have no container nodes
	sweeping   bool // see beginSweeping
}

var _ interface {
	driver.Engine
	driver.Values
	driver.Inspector
	driver.Diagnoser
} = (*Engine)(nil)

func newEngine(cfg Config) *Engine {
	e := &Engine{cfg: cfg, clock: driver.BootClock(), done: make(chan struct{}), shares: make(map[driver.Token]*share)}
	e.session.limit = cfg.Timeout
	e.session.reach = cfg.reach
	e.session.expired = e.expired
	e.session.watched = e.watches.count
	e.session.watching = e.watches.has
	e.watches.session = &e.session
	e.deletions.engine = e
	return e
}

// capabilitiesOf returns what an engine says of itself whose sessions last so long.
//
// # How long a lease may last
//
// The leader ends a session when it has not heard of it for the timeout T. What it hears
// depends on whom the client talks to. A client of the leader's own is heard with every
// packet. A follower notes whose packets came, and tells the leader with the answer to its
// next ping, which comes every half tick; if the two are parted before that, the leader never
// hears. So what may be relied on is not the last packet that was answered but, at least, the
// one before that last ping. The library sends a packet every T/3 at least, and a tick is at
// most T/2 (minSessionTimeout is two ticks), so at the time of a request the leader has
// heard of the session within the last T/3 + T/4, plus what the ping was under way. A lease of
// T/3 from then on is over before the session is, with T/12 and the rounding of the leader,
// which is up, to spare.
//
// That holds for requests which the leader has carried out. A follower answers reads by
// itself, for many ticks after it was parted from the others: a read proves nothing. Neither
// does an answer of a leader that is parted from its followers. Leases are therefore counted
// from requests that a majority has written to its log: the creation of the node, and the
// checks by which a lease is renewed. Whoever leads next was elected after that, for a
// majority contains one of those who wrote it, and begins to count all sessions anew.
func capabilitiesOf(timeout time.Duration, instance string) driver.Capabilities {
	ttl := (timeout / sessionShare).Truncate(time.Millisecond)
	return driver.Capabilities{
		Engine: "zklock", Instance: instance, Scope: driver.Cluster,
		Shared: true, Permits: true, Expires: true, FIFO: true, Push: true, Holders: true,
		MinTTL: MinTTL, MaxTTL: ttl, DefaultTTL: ttl, Resolution: timeout, MaxPermits: MaxPermits,
		Safety:      "exclusive while a majority of the ensemble keeps its data; ends with the TTL, or with the session where the process is gone",
		FenceSource: "transaction that created the node, times 64; an ensemble that is restored from a backup or set up anew begins lower",
	}
}

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities { return e.caps }

// enter begins a call or a piece of work; leave ends it.
func (e *Engine) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &driver.Error{Outcome: driver.NotApplied, Err: err}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	e.work.Add(1)
	return nil
}

func (e *Engine) leave() { e.work.Done() }

func (e *Engine) isClosed() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// Close implements driver.Engine. It ends the session, and with it all shares: at once where
// a server can be told, when the session times out otherwise.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	for _, s := range e.shares {
		s.stop()
	}
	clear(e.shares)
	close(e.done)
	e.mu.Unlock()
	e.session.close()
	e.work.Wait() // and only then, for each may begin calls of the library until it ends
	e.session.calls.Wait()
	return nil
}

// path is where the nodes of a name are.
func (e *Engine) path(name string) string {
	element := encode(name)
	return e.cfg.Root + "/" + element
}

// patience is how long a call waits for a connection: a request that waits for its turn
// anyway until its session must be over and another could have begun, others until each way
// to a server has been tried.
func (e *Engine) patience(wait bool) time.Duration {
	if wait {
		return 2 * e.cfg.SessionTimeout
	}
	return min(e.cfg.SessionTimeout, 2*e.cfg.Timeout+2*time.Second)
}
