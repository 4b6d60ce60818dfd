package redislock

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
	"github.com/redis/go-redis/v9"
)

// Quorum grants locks on a majority of independent servers: RedLock, with fences. It is safe
// for concurrent use.
//
// A lock is held while a majority of the nodes say so, each for itself, so a minority of them
// may be dead, slow or cut off. A majority is asked first, and the others after 10 ms or when
// that is not enough; from then on the lease outlives the end of a minority. It is
// exclusive while the clocks of the nodes and of the holders run at rates within 1 % of each
// other, and its fences are unique and ordered whatever clocks, delays and repeated messages
// do, as long as nodes that lose their data are healed before they take part again, see
// docs/guarantees.md. There are no shared locks and no permits.
type Quorum struct {
	cfg       QuorumConfig
	size      protocol.Quorum
	nodes     []*node
	constants string // what all clients have to agree on
	caps      driver.Capabilities
	clock     driver.Clock
	wall      func() time.Time

	mu      sync.Mutex
	holds   map[driver.Token]*hold // by the tokens of requests
	sweepAt int                    // number of holds
	waiting map[driver.Token]*candidate
	heads   []protocol.NodeHead // how each node said it is
	epoch   string              // the one of a majority, '' when it is not known
	lines   lines
	looking *lookout
	healing atomic.Bool // in the background
	caring  sync.Mutex  // held by who heals or founds

	attempts atomic.Uint64 // so far

	closed  atomic.Bool
	closing chan struct{}   // closed by Close
	life    context.Context // ends when no call of a user is left
	end     context.CancelFunc
	gate    sync.Mutex     // orders waits.Add, work.Add and Close
	waits   sync.WaitGroup // calls of users
	work    sync.WaitGroup // goroutines that look after the nodes
}

var _ interface {
	driver.Engine
	driver.Inspector
	driver.Diagnoser
	driver.Healer
	driver.Initializer
} = (*Quorum)(nil)

// NewQuorum returns an engine on the masters that clients are for: 3 or more servers that know
// nothing of each other, without replicas that take over. The caller keeps the clients open
// for as long as the engine is used, and closes them afterwards. The order does not matter,
// but all processes have to give the same servers.
//
// NewQuorum sends nothing: what is wrong with the servers shows at the first call.
func NewQuorum(clients []redis.UniversalClient, cfg QuorumConfig) (*Quorum, error) {
	cfg = cfg.withDefaults()
	masters, err := checkNodes(clients)
	if err := join(err, cfg.validate()); err != nil {
		return nil, err
	}
	q := &Quorum{
		cfg: cfg, size: protocol.Quorum(len(clients)), clock: driver.BootClock(), wall: time.Now,
		holds: make(map[driver.Token]*hold), sweepAt: manyHolds, waiting: make(map[driver.Token]*candidate),
		heads: make([]protocol.NodeHead, len(clients)), closing: make(chan struct{}),
	}
	q.lines.byKey = make(map[string]map[*candidate]struct{})
	q.life, q.end = context.WithCancel(context.Background())
	addrs := make([]string, len(masters))
	for i, client := range masters {
		e, err := New(client, cfg.engine())
		if err != nil {
			return nil, err // cannot be: client and cfg were checked
		}
		e.quorum = true
		n := &node{Engine: e, index: i, addr: client.Options().Addr}
		addrs[i] = n.addr
		e.only.exchange = func(b *batch) { q.exchange(n, b) }
		e.heard = func(message string) { q.woken(n, message) }
		q.nodes = append(q.nodes, n)
	}
	q.constants = protocol.QuorumConstants{MaxTTL: cfg.MaxTTL, Nodes: q.size, Group: cfg.groupOf(addrs)}.String()
	q.caps = quorumCapabilities(cfg, strings.Join(addrs, ","))
	return q, nil
}

// join is errors.Join for errors that say Invalid, with their text on one level.
func join(errs ...error) error {
	var all []error
	for _, err := range errs {
		var d *driver.Error
		if errors.As(err, &d) {
			all = append(all, d.Err)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return driver.Fail(driver.Invalid, errors.Join(all...))
}

func quorumCapabilities(cfg QuorumConfig, instance string) driver.Capabilities {
	return driver.Capabilities{
		Engine: "redislock", Instance: instance, Scope: driver.Cluster,
		Expires: true, Push: true, Holders: true,
		MinTTL: MinTTL, MaxTTL: cfg.MaxTTL, DefaultTTL: min(DefaultTTL, cfg.MaxTTL), Resolution: time.Millisecond,
		Safety: "Quorum: exclusive while clocks run at sane rates, also with a minority of the nodes dead, cut off or restarted; " +
			"locks stop when a majority is gone",
		FenceSource: "a counter for each lock on every node, which a majority has to confirm, and the caller's clock in µs where it is ahead; " +
			"order breaks when a majority loses its data and clocks are wrong",
	}
}

// Capabilities implements driver.Engine.
func (q *Quorum) Capabilities() driver.Capabilities { return q.caps }

// Close implements driver.Engine. Clients that were handed to NewQuorum stay open.
func (q *Quorum) Close() error {
	q.gate.Lock()
	if !q.closed.Swap(true) {
		close(q.closing)
	}
	q.gate.Unlock()
	q.waits.Wait()
	q.gate.Lock()
	q.end()
	q.gate.Unlock()
	q.work.Wait()
	var all sync.WaitGroup
	errs := make([]error, len(q.nodes))
	for i, n := range q.nodes {
		all.Go(func() { errs[i] = n.Close() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// enter begins a call. Who was let in calls leave at its end.
func (q *Quorum) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil && !q.closed.Load() {
		return driver.Fail(driver.Unavailable, err)
	}
	q.gate.Lock()
	defer q.gate.Unlock()
	if q.closed.Load() {
		return errClosed
	}
	q.waits.Add(1)
	return nil
}

func (q *Quorum) leave() { q.waits.Done() }

// begin runs f in a goroutine that Close waits for, unless the engine is being closed.
func (q *Quorum) begin(f func()) bool {
	q.gate.Lock()
	defer q.gate.Unlock()
	if q.life.Err() != nil {
		return false
	}
	q.work.Go(f)
	return true
}

// keyOf returns the key of a name, the same on every node.
func (q *Quorum) keyOf(name string) (string, error) { return q.nodes[0].keyOf(name) }

// ACL returns the ACL rule that gives user what this engine needs on each node and no more. The
// rule has no password: add >password.
func (q *Quorum) ACL(user string) string { return q.nodes[0].ACL(user) }
