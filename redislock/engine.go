package redislock

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// Engine grants locks on one Redis deployment. It is safe for concurrent use.
type Engine struct {
	cfg       Config
	client    redis.UniversalClient
	owned     bool     // Close closes the client
	quorum    bool     // it is what talks to a node of a Quorum
	opened    *options // what the URL said, nil after New
	cluster   *redis.ClusterClient
	private   bool // cluster is the engine's own, made after client
	caps      driver.Capabilities
	clock     driver.Clock
	wall      func() time.Time
	id        string // of this engine among all that use the deployment
	constants string

	only    *combiner // but in a Cluster
	nowhere *combiner // of requests that could not be sent
	single  layout    // but in a Cluster

	// In a Cluster.
	nodes   sync.Map // *redis.Client to *combiner
	layouts *[slots]atomic.Pointer[layout]
	mapped  atomic.Bool // the client has been told who has which slot
	mapping struct {    // the last time that it was asked
		sync.Mutex
		done bool
		at   driver.Instant
		err  error
	}
	remapping atomic.Bool // it is being asked in the background

	waiters waiters
	watches watches
	heard   func(message string) // deals with what a server pushes

	closed  atomic.Bool
	closing chan struct{}   // closed by Close
	life    context.Context // ends when no call of a user is left
	end     context.CancelFunc
	mu      sync.Mutex     // orders waits.Add and Close
	waits   sync.WaitGroup // calls of users that wait
	calls   sync.WaitGroup // goroutines of the engine
}

var _ interface {
	driver.Engine
	driver.Passer
	driver.Inspector
	driver.Diagnoser
	driver.Initializer
	driver.Values
	driver.Counters
} = (*Engine)(nil)

// New returns an engine on a client that the caller keeps open for as long as the engine is
// used, and closes afterwards. It shares the client's connections, credentials, TLS settings
// and hooks. The client may be one for a single server, for Sentinel or for a Cluster.
//
// New sends nothing: what is wrong with the server shows at the first call.
func New(client redis.UniversalClient, cfg Config) (*Engine, error) {
	e := &Engine{
		client: client, clock: driver.BootClock(), wall: time.Now,
		id: newID(), closing: make(chan struct{}),
	}
	var instance []string
	switch c := client.(type) {
	case *redis.Client:
		sentinel := c.Options().Addr == sentinelAddr
		e.cfg = cfg.withDefaults(!sentinel, false)
		e.only = e.newCombiner(c)
		instance = []string{c.Options().Addr}
		if sentinel {
			instance[0] = behindSentinel
		}
	case *redis.ClusterClient:
		// Where the caller says which slots are where the servers may be any: a client that
		// routes by Sentinel's word says so for one master.
		manual := c.Options().ClusterSlots != nil
		e.cfg = cfg.withDefaults(false, !manual)
		e.cluster, e.layouts = c, new([slots]atomic.Pointer[layout])
		e.private = c.Options().ReadOnly && !manual
		instance = c.Options().Addrs
	default:
		return nil, driver.Failf(driver.Unsupported,
			"a client of type %T: use one for a server, for Sentinel or for a Cluster; a Ring loses locks when a shard is down", client)
	}
	if err := e.cfg.validate(); err != nil {
		return nil, err
	}
	if e.private {
		e.cluster = mastersOnly(e.cluster)
	}
	e.life, e.end = context.WithCancel(context.Background())
	e.constants = e.cfg.constants()
	e.single = *e.newLayout("")
	e.nowhere = &combiner{engine: e}
	e.waiters.init(e)
	e.watches.init(e)
	e.heard = e.waiters.deliver
	e.caps = capabilitiesOf(e.cfg, strings.Join(instance, ","))
	return e, nil
}

// sentinelAddr is what go-redis calls the address of a client that finds its server by
// asking Sentinels.
const sentinelAddr = "FailoverClient"

// behindSentinel is the Instance of an engine whose server may change.
const behindSentinel = "sentinel"

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

func (e *Engine) newCombiner(node *redis.Client) *combiner {
	c := &combiner{
		engine: e, node: node, wake: make(chan struct{}, maxSenders), leaving: make(map[string]int),
		publish: "PUBLISH",
	}
	if e.cluster == nil {
		c.greeted.Store(true)
	}
	c.exchange = func(b *batch) { b.exchange(c) }
	c.ear.init(c)
	return c
}

func capabilitiesOf(cfg Config, instance string) driver.Capabilities {
	caps := driver.Capabilities{
		Engine: "redislock", Instance: instance, Scope: driver.Cluster,
		Shared: true, Upgradeable: true, Permits: true,
		Expires: true, FIFO: true, Push: true, Holders: true,
		MinTTL: MinTTL, MaxTTL: cfg.MaxTTL, DefaultTTL: DefaultTTL, Resolution: time.Millisecond,
		MaxPermits:  math.MaxInt32,
		Safety:      safetyText[cfg.Safety],
		FenceSource: "the larger of a counter on the server and the caller's clock in µs; order breaks when the counter is lost and clocks are wrong",
	}
	if cfg.Safety != SingleProcess {
		caps.DefaultTTL = min(FailoverTTL, cfg.MaxTTL)
	}
	caps.DefaultTTL = min(caps.DefaultTTL, cfg.MaxTTL)
	return caps
}

var safetyText = map[Safety]string{
	SingleProcess: "SingleProcess: exclusive while the server process lives and keeps its data and clock",
	CrashSafe:     "CrashSafe: also across a crash, a restart without data, and failover of a master that is dead for everybody; two masters at once break it",
	PartitionSafe: "PartitionSafe: also with an isolated master that lives on; locks stop when fewer than a majority of data nodes replicate",
}

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities { return e.caps }

// Safety returns the level that the engine runs at.
func (e *Engine) Safety() Safety { return e.cfg.Safety }

// Close implements driver.Engine. A client that was handed to New stays open.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !e.closed.Swap(true)
	if first {
		close(e.closing)
	}
	e.mu.Unlock()
	e.waits.Wait()
	if !first {
		return nil
	}
	e.end()
	e.waiters.stop()
	e.each(func(c *combiner) { c.ear.close(); c.hangUp() })
	var err error
	if e.owned {
		err = e.client.Close()
	}
	if e.private {
		err = errors.Join(err, e.cluster.Close())
	}
	e.calls.Wait()
	return err
}

// each calls f for every node that was used so far.
func (e *Engine) each(f func(*combiner)) {
	if e.only != nil {
		f(e.only)
	}
	e.nodes.Range(func(_, c any) bool { f(c.(*combiner)); return true })
}

var errClosed = driver.Fail(driver.Closed, nil)

// enter begins a call. Who was let in calls leave at its end.
func (e *Engine) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil && !e.closed.Load() {
		return driver.Fail(driver.Unavailable, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	e.waits.Add(1)
	return nil
}

func (e *Engine) leave() { e.waits.Done() }

// keyOf returns the key of a name.
func (e *Engine) keyOf(name string) (string, error) {
	key, _, err := e.sign(name, "", driver.Token{})
	return key, err
}
