package memlock

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
	"github.com/holdfast-go/holdfast/internal/namemap"
)

// Store is what engines share, as processes share a server.
type Store struct {
	name  string
	clock driver.Clock

	// The wall clock follows clock from one reading on: fences then never see it stepped.
	wallStart  time.Time
	wallMicros int64 // wallStart
	clockStart driver.Instant

	inject atomic.Pointer[func(Call) Fault]

	shards [64]shard
}

// shard holds the books of the names that hash to it, and the fence counter for all of them.
type shard struct {
	mu     sync.Mutex
	books  namemap.Map[book]
	fences ledger.Fences

	values   map[string]*value
	versions ledger.Fences // numbers that grow as fences do
}

// book is a ledger together with those to wake when it changes. While it has either, it is a
// user of its own entry.
type book struct {
	ledger.Ledger
	waiters []waiter
	inUse   bool
}

type entry = namemap.Entry[book]

type waiter struct {
	token driver.Token
	wake  chan struct{} // buffered: a wake-up is never lost and never waited for
}

// NewStore returns an empty store.
func NewStore(cfg Config) *Store {
	s := &Store{clock: cfg.Clock, wallStart: time.Now()}
	if s.clock == nil {
		s.clock = driver.MonotonicClock()
	}
	s.clockStart, s.wallMicros = s.clock.Now(), s.wallStart.UnixMicro()
	for i := range s.shards {
		s.shards[i].fences.Ahead = true // holders and counter end with this process
		s.shards[i].versions.Ahead = true
	}
	return s
}

// Engine returns a new engine on s.
func (s *Store) Engine() *Engine {
	return &Engine{store: s, closing: make(chan struct{})}
}

func (s *Store) micros(at driver.Instant) int64 {
	return s.wallMicros + at.Sub(s.clockStart).Microseconds()
}

func (s *Store) wallTime(at driver.Instant) time.Time {
	return s.wallStart.Add(at.Sub(s.clockStart)).Round(0)
}

func (s *Store) until(sh *ledger.Share) time.Time { return s.wallTime(sh.Until) }

// lock locks the shard of name and returns it.
func (s *Store) lock(name string) *shard {
	sh := &s.shards[spread(name)%uint32(len(s.shards))]
	sh.mu.Lock()
	return sh
}

// spread is a hash that costs next to nothing and tells names apart that count up, as most
// names do. Where it fails, names share a mutex, nothing else.
func spread(name string) uint32 {
	h := uint32(len(name))
	for i := max(0, len(name)-4); i < len(name); i++ {
		h = h<<8 | uint32(name[i])
	}
	return h * 0x9E3779B1 >> 26 // by the golden ratio: the top bits, which depend on all others
}

// close ends a call's use of a book. The book of a name that nobody holds or waits for is
// forgotten.
func (sh *shard) close(e *entry) {
	b := &e.Value
	if inUse := len(b.Shares) > 0 || len(b.waiters) > 0; inUse != b.inUse {
		b.inUse = inUse
		if inUse {
			return // the book takes over the use of the call
		}
		sh.books.Close(e)
	}
	sh.books.Close(e)
}

// expire strikes out what has run out by now.
func (b *book) expire(now driver.Instant) bool {
	for i := range b.Shares {
		if ended(&b.Shares[i], now) {
			return b.RemoveFunc(func(s *ledger.Share) bool { return ended(s, now) })
		}
	}
	return false
}

func ended(s *ledger.Share, now driver.Instant) bool {
	return s.State != ledger.Waiting && s.Until <= now
}

// settle grants to those whose turn has come after a change, and wakes them.
func (s *Store) settle(sh *shard, b *book, now driver.Instant) {
	if len(b.waiters) == 0 {
		return
	}
	b.Settle(&sh.fences, s.micros(now), func(share *ledger.Share) {
		share.Until = now.Add(share.TTL)
		b.wake(share.Token)
	})
}

// take strikes out everything that is held and returns how many shares that were. An upgrade
// that waits holds one, and is told.
func (b *book) take() int {
	for i := range b.Shares {
		if b.Shares[i].State == ledger.Upgrading {
			b.wake(b.Shares[i].Token)
		}
	}
	return b.RemoveHeld()
}

func (b *book) wake(token driver.Token) {
	for i := range b.waiters {
		if b.waiters[i].token == token {
			poke(b.waiters[i].wake)
		}
	}
}
