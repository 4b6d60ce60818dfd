package etcdlock

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Engine grants locks on one etcd cluster. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	client *clientv3.Client
	owned  bool // Close closes the client
	caps   driver.Capabilities
	clock  driver.Clock

	mu       sync.Mutex
	sessions map[int64]*session // by TTL in seconds
	leases   []*lease           // that Close revokes
	closed   bool
	closing  chan struct{}  // closed by Close
	calls    sync.WaitGroup // of users
	work     sync.WaitGroup // goroutines of the engine

	life context.Context // ends when no call of a user is left
	end  context.CancelFunc

	exchanges exchanges
	claims    claims
	sender    sender
	watches   watches // of values
}

var _ interface {
	driver.Engine
	driver.Values
	driver.Inspector
	driver.Diagnoser
} = (*Engine)(nil)

// New returns an engine on a client that the caller keeps open for as long as the engine is
// used, and closes afterwards. It shares the client's connections, credentials, TLS settings
// and interceptors; a client whose KV, Lease and Watcher are confined to a namespace confines
// the locks too.
//
// New sends nothing: what is wrong with the cluster shows at the first call.
func New(client *clientv3.Client, cfg Config) (*Engine, error) {
	if client == nil {
		return nil, driver.Failf(driver.Invalid, "the client is nil: make one with clientv3.New, or use Open")
	}
	e := &Engine{
		cfg: cfg.withDefaults(), client: client, clock: driver.BootClock(),
		sessions: map[int64]*session{}, closing: make(chan struct{}),
	}
	if err := e.cfg.validate(); err != nil {
		return nil, err
	}
	e.caps = capabilitiesOf(instanceOf(client.Endpoints()))
	e.life, e.end = context.WithCancel(context.Background())
	e.exchanges.init(e)
	e.claims.init(e)
	e.sender.engine = e
	e.watches.init(e)
	return e, nil
}

// instanceOf names a cluster by its endpoints, without what a URL may say of users.
func instanceOf(endpoints []string) string {
	hosts := make([]string, len(endpoints))
	for i, ep := range endpoints {
		_, host, ok := strings.Cut(ep, "://")
		if !ok {
			host = ep
		}
		hosts[i] = host[strings.LastIndex(host, "@")+1:]
	}
	return strings.Join(hosts, ",")
}

func capabilitiesOf(instance string) driver.Capabilities {
	return driver.Capabilities{
		Engine: "etcdlock", Instance: instance, Scope: driver.Cluster,
		Shared: true, Upgradeable: true, Permits: true,
		Expires: true, FIFO: true, Push: true, Holders: true,
		MinTTL: MinTTL, MaxTTL: MaxTTL, DefaultTTL: DefaultTTL, Resolution: time.Second,
		MaxPermits: maxPermits,
		Safety:     "exclusive as long as a majority of the cluster keeps its data: crashes, restarts, elections and partitions included",
		FenceSource: "the revision of the cluster, times 128; order breaks when the cluster is restored from a snapshot " +
			"without --bump-revision, or replaced by another",
	}
}

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities { return e.caps }

// Close implements driver.Engine. It gives back what the process holds, as far as the cluster
// can be reached within two seconds. A client that was handed to New stays open.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	if first {
		close(e.closing)
	}
	e.mu.Unlock()
	stop := time.AfterFunc(grace, e.end)
	e.calls.Wait()
	stop.Stop()
	if !first {
		return nil
	}
	e.end()
	e.claims.stop()
	e.watches.close()
	e.work.Wait()
	e.exchanges.stop()
	e.revoke()
	if e.owned {
		return e.client.Close()
	}
	return nil
}

// revoke ends the leases, and with them whatever hangs on them.
func (e *Engine) revoke() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*grace)
	defer cancel()
	var all sync.WaitGroup
	for _, l := range e.leases {
		all.Go(func() { _, _ = e.client.Revoke(ctx, l.id) }) // the TTL ends what this does not
	}
	all.Wait()
}

// keepLease notes a lease that Close has to revoke.
func (e *Engine) keepLease(l *lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leases = append(slices.DeleteFunc(e.leases, func(old *lease) bool { return !old.alive() }), l)
}

// enter begins a call. Who was let in calls leave at its end.
func (e *Engine) enter(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return driver.Fail(driver.Unavailable, err)
	}
	e.calls.Add(1)
	return nil
}

// isClosing reports whether Close was called.
func (e *Engine) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}

func (e *Engine) leave() { e.calls.Done() }

// background runs f in a goroutine that Close waits for. It reports false, and does nothing,
// when the engine is closed: then nobody who was let in before is left to need it.
func (e *Engine) background(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.work.Go(f)
	return true
}
