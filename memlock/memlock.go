// Package memlock is the engine inside one process: the reference for what every other
// engine must do, and the one to write unit tests with.
//
// It excludes goroutines of one process from each other, nothing more. Several engines can
// share one [Store], as several processes share a server. Time can be a [ManualClock], and
// [Store.Inject] makes calls fail, hang or lose their replies, so that a test can show what
// a program does when its lock is lost.
//
// A million names held and released leave nothing behind.
package memlock

import (
	"context"
	"math"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Config configures a store. The zero value is ready for use.
type Config struct {
	// Clock times the shares. Optional; the default is driver.MonotonicClock: holders are
	// suspended along with this engine, so time in which the machine slept does not count.
	Clock driver.Clock

	_ struct{}
}

// The TTLs of this engine. MaxTTL keeps sums of instants far from overflow.
const (
	MinTTL     = 10 * time.Millisecond
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 10 * time.Second
)

// New returns an engine on a store of its own.
func New(cfg Config) *Engine { return NewStore(cfg).Engine() }

// Engine is one user of a [Store], as one process is of a server. It is safe for concurrent
// use.
type Engine struct {
	store *Store

	closed  atomic.Bool
	closing chan struct{}  // closed by Close
	waits   sync.WaitGroup // calls that wait
	mu      sync.Mutex     // orders waits.Add and Close
}

var _ interface {
	driver.Engine
	driver.Inspector
	driver.Values
} = (*Engine)(nil)

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities {
	caps := capabilities
	caps.Clock, caps.Instance = e.store.clock, e.store.name
	return caps
}

var capabilities = driver.Capabilities{
	Engine: "memlock", Scope: driver.Process,
	Shared: true, Upgradeable: true, Permits: true,
	Expires: true, FIFO: true, Push: true, Holders: true,
	MinTTL: MinTTL, MaxTTL: MaxTTL, DefaultTTL: DefaultTTL, Resolution: time.Nanosecond,
	MaxPermits:  math.MaxInt32,
	Safety:      "exclusive within this process",
	FenceSource: "counter that starts at the wall clock in µs; a restart keeps the order unless over a million grants a second outran the clock",
}

// Close implements driver.Engine. Shares held through e live on until their TTL, as those of
// a process that died do.
func (e *Engine) Close() error {
	e.mu.Lock()
	if !e.closed.Swap(true) {
		close(e.closing)
	}
	e.mu.Unlock()
	e.waits.Wait()
	return nil
}

// enter reports why a call must not begin.
func (e *Engine) enter(ctx context.Context) error {
	if e.closed.Load() {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return driver.Fail(driver.Unavailable, err)
	}
	return nil
}

var errClosed = driver.Fail(driver.Closed, nil)

func init() {
	driver.Register(driver.Scheme{
		Name: "mem", Example: "mem://", Open: openURL, Capabilities: capabilities,
	})
}

// named holds the stores that URLs with a name share.
var named struct {
	sync.Mutex
	stores map[string]*Store
}

// openURL opens mem:// as a store of its own and mem://name as the one of that name.
func openURL(_ context.Context, u *url.URL) (driver.Engine, error) {
	if err := driver.NewSettings(u).Err(); err != nil {
		return nil, err
	}
	if u.Opaque != "" || u.Fragment != "" || u.User != nil || u.Port() != "" || (u.Path != "" && u.Path != "/") {
		return nil, driver.Failf(driver.Invalid,
			"URL: mem:// takes a name at most, as in mem://tests, no user, port, path or fragment")
	}
	if u.Host == "" {
		return New(Config{}), nil
	}
	named.Lock()
	defer named.Unlock()
	if named.stores == nil {
		named.stores = make(map[string]*Store)
	}
	s := named.stores[u.Host]
	if s == nil {
		s = NewStore(Config{})
		s.name = u.Host
		named.stores[u.Host] = s
	}
	return s.Engine(), nil
}
