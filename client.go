package holdfast

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/namemap"
)

// Client takes locks on one engine. It is safe for concurrent use; a process needs one for
// each engine, however many locks it takes.
type Client struct {
	engine driver.Engine
	caps   driver.Capabilities
	clock  driver.Clock
	cfg    Config
	remote bool // replies of the engine take time, in which a TTL can run out

	seed    maphash.Seed
	buckets [64]bucket
	waiters sync.Pool // of *waiter

	renewer  renewer
	janitor  janitor
	counting counting
	async    driver.AsyncReleaser // nil where the engine cannot
	passer   driver.Passer        // the same

	closed   atomic.Bool
	closeOne sync.Once
	closeErr error
}

// bucket holds the local queues of the names that hash to it. Everything that this process
// knows about a name, its claims and leases included, is guarded by the bucket's mutex,
// which is never held during a call to the engine.
type bucket struct {
	mu    sync.Mutex
	names namemap.Map[queue]
	fresh []watched // claims that the renewer has not seen yet
}

// New returns a client on engine, which it owns from then on: Close closes it. It does no
// I/O. The error is an ErrInvalid that names every setting that is wrong; the engine is then
// left as it was.
func New(engine driver.Engine, cfg Config) (*Client, error) {
	if engine == nil {
		return nil, &Error{Op: "new", Kind: ErrInvalid, Outcome: NotApplied, Err: errors.New("engine is nil")}
	}
	c := &Client{engine: engine, caps: engine.Capabilities(), seed: maphash.MakeSeed()}
	c.cfg = cfg.withDefaults(c.caps)
	if err := c.cfg.validate(c.caps); err != nil {
		return nil, c.fail("new", "", ErrInvalid, err)
	}
	c.clock = c.caps.Clock
	if c.clock == nil {
		c.clock = driver.BootClock()
	}
	c.async, _ = engine.(driver.AsyncReleaser)
	c.passer, _ = engine.(driver.Passer)
	c.remote = c.caps.Expires && c.caps.Scope != driver.Process
	c.renewer.client, c.counting.client = c, c
	c.renewer.wake.Store(int64(forever))
	c.renewer.ctx, c.renewer.cancel = context.WithCancel(context.Background())
	c.janitor = newJanitor(c)
	return c, nil
}

// Capabilities says what the engine can do and what it promises.
func (c *Client) Capabilities() driver.Capabilities { return c.caps }

// Close releases everything that is still held, ends all waits with ErrClosed and closes the
// engine. It takes at most about twice the ReleaseTimeout; what could not be released by
// then is left to its TTL. Contexts of leases end with cause ErrClosed. Closing twice returns
// the first answer again.
func (c *Client) Close() error {
	c.closeOne.Do(func() {
		c.closed.Store(true)
		c.janitor.halt()
		c.dropWaiters()
		c.releaseAll(c.renewer.close())
		c.counting.close()
		c.janitor.close()
		if err := c.engine.Close(); err != nil {
			c.closeErr = c.wrap("close", "", err)
		}
	})
	return c.closeErr
}

// dropWaiters wakes everybody in the local queues with ErrClosed. Who waits on the engine is
// woken when the engine is closed.
func (c *Client) dropWaiters() {
	for i := range c.buckets {
		b := &c.buckets[i]
		b.mu.Lock()
		b.names.All(func(e *namemap.Entry[queue]) bool {
			for w := e.Value.waiters.front(); w != nil; w = e.Value.waiters.front() {
				e.Value.waiters.remove(w)
				w.closed = true
				w.wake()
			}
			return true
		})
		b.mu.Unlock()
	}
}

// releaseAll gives back the claims that were live when the client was closed.
func (c *Client) releaseAll(claims []*claim) {
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.ReleaseTimeout)
	defer cancel()
	work := make(chan *claim)
	var workers sync.WaitGroup
	for range min(len(claims), maxCleaners) {
		workers.Go(func() {
			for cl := range work {
				if c.lose(cl, c.fail("hold", cl.h.name, ErrClosed, nil)) {
					c.engine.Release(ctx, cl.driverClaim()) // the TTL is behind it
				}
			}
		})
	}
	for _, cl := range claims {
		work <- cl
	}
	close(work)
	workers.Wait()
}

// bucket returns the bucket of name.
func (c *Client) bucket(name string) *bucket {
	return &c.buckets[maphash.String(c.seed, name)%uint64(len(c.buckets))]
}

// drawToken draws a fresh token from the runtime's own generator: ChaCha8, seeded by the
// system, which forgets what it gave out. crypto/rand would take a fifth of the time of an
// uncontended lock for the same strength.
func drawToken(t *driver.Token) {
	binary.LittleEndian.PutUint64(t[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(t[8:], rand.Uint64())
}
