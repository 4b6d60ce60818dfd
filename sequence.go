package holdfast

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
)

// DefaultSequenceGap is how many numbers, or blocks where it has those, a [Sequence] skips when
// its counter was lost.
const DefaultSequenceGap = 1000

// Sequence hands out numbers that no other process gets, and that grow: every number is
// larger than all that were handed out before the call, to anybody, unless WithBlock is used.
// It is safe for concurrent use; goroutines that ask together share a round trip. It costs little,
// but keep one where you can: what it was given is what it knows when the counter is lost.
//
// Numbers may be left out: those of a process that died, of a call whose reply never came, of
// a block that was not used up. Where that must not be, hold a lock, read the highest number
// from the database and write the next one in the same transaction, with the lease's fence.
//
// The engine keeps a counter. When it is missing, or the engine may have forgotten what was
// counted (a restart without its data, a failover), the sequence is restored under a lock, by
// one process however many find out: from the source, from what is left of the counter, and
// from what this handle was given, whichever is the highest, and above a gap. That is as good as
// the source and the gap are, see WithGap; where two servers believe to be the master, which the
// engine's Capabilities.Safety may not rule out, both hand out numbers. The lock has the name
// "sequence:" followed by the sequence's.
type Sequence struct {
	client *Client
	name   string // of the counter and of the lock
	source func(context.Context) (int64, error)
	gap    int64
	block  int64
	err    error

	filling chan struct{} // has an element while somebody takes a block

	mu      sync.Mutex
	first   int64 // of what is left of the block
	last    int64
	highest int64 // that this handle was given
}

// SequenceOption changes a setting of a Sequence.
type SequenceOption func(*Sequence) error

// WithSource has the sequence restored from f: the highest number that was ever put to use, 0
// where none was, for example SELECT max(number). It is asked when the counter is missing or
// may have lost numbers, and by Resync, under the sequence's lock: it must not use the sequence
// itself. Its error is returned wrapped, without a kind. Without a source a counter that is
// missing starts at 1 for a handle that was given nothing, whatever others were given.
func WithSource(f func(ctx context.Context) (int64, error)) SequenceOption {
	return func(s *Sequence) error {
		s.source = f
		if f == nil {
			return errors.New("source is nil")
		}
		return nil
	}
}

// WithGap sets how many numbers are skipped when the sequence is restored after a loss, 0 to 2^52.
// Default: DefaultSequenceGap times the block of WithBlock, which is 1 without.
//
// Numbers that were handed out before the loss and not put to use yet are not in the source: single
// ones, what Reserve took, and what is left of every handle's block. Only a gap larger than all of
// these together keeps them unique. It counts from the source's word, so a second loss, before any
// number was put to use after the first, leads to the same numbers again, unless a handle finds
// out that was given some. With 0 it is the source's word alone.
//
// A sequence whose source says 0 begins at 1, without a gap; see Resync for one that is introduced
// where numbers exist already.
func WithGap(n int64) SequenceOption {
	return func(s *Sequence) error {
		s.gap = n
		if n < 0 || n > driver.MaxTotal/2 {
			return fmt.Errorf("gap is %d: it must be 0 to %d", n, int64(driver.MaxTotal/2))
		}
		return nil
	}
}

// WithBlock has the handle take n numbers from the engine at a time and hand them out from
// memory, millions a second. The price: numbers of different processes no longer grow in the
// order of the calls, and up to n numbers are left out for every handle that is dropped. Keep one
// handle: the block is its own. See WithGap for what a block means when the counter is lost.
func WithBlock(n int64) SequenceOption {
	return func(s *Sequence) error {
		s.block = n
		if n < 1 || n > MaxReserve {
			return fmt.Errorf("block is %d: it must be 1 to %d", n, int64(MaxReserve))
		}
		return nil
	}
}

// MaxReserve is the most that Reserve and WithBlock take at once.
const MaxReserve = 1 << 30

// Sequence returns the handle of the sequence of that name. Handles of one name with the
// same engine count together. A name or option that is wrong is reported by every use, as an
// ErrInvalid that lists all violations.
func (c *Client) Sequence(name string, opts ...SequenceOption) *Sequence {
	s := &Sequence{client: c, name: "sequence:" + name, gap: -1, block: 1, filling: make(chan struct{}, 1)}
	var v violations
	v.check(checkPrefixed(name, s.name))
	for _, opt := range opts {
		v.check(opt(s))
	}
	if s.gap < 0 {
		s.gap = DefaultSequenceGap * s.block
	}
	if err := v.join(); err != nil {
		s.err = c.fail("sequence", name, ErrInvalid, err)
	}
	return s
}

// checkPrefixed checks the name of something that is kept under a longer one.
func checkPrefixed(name, kept string) error {
	if err := driver.CheckName(name); err != nil {
		return err
	}
	if len(kept) > driver.MaxName {
		return fmt.Errorf("name has %d bytes: shorten it to %d", len(name), driver.MaxName-(len(kept)-len(name)))
	}
	return nil
}

// Numbers is a block of consecutive numbers, both ends included.
type Numbers struct{ First, Last int64 }

// Next returns one number, 1 or more and below 2^53. After an error with [Unknown] outcome a
// number may be left out. No number is returned twice as long as the engine keeps the counter; after
// a loss that is for the source and the gap to see to. It waits for a lock then, which after
// a failover may take as long as locks do.
func (s *Sequence) Next(ctx context.Context) (int64, error) {
	if s.block == 1 {
		n, err := s.Reserve(ctx, 1)
		return n.First, err
	}
	if s.err != nil {
		return 0, s.err
	}
	if n := s.fromBlock(); n != 0 {
		return n, nil
	}
	select {
	case s.filling <- struct{}{}:
		defer func() { <-s.filling }()
	case <-ctx.Done():
		return 0, s.client.fail("next", s.name, nil, ctx.Err())
	}
	if n := s.fromBlock(); n != 0 {
		return n, nil // somebody else took a block meanwhile
	}
	block, err := s.Reserve(ctx, s.block)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.last = block.First+1, block.Last
	return block.First, nil
}

// fromBlock takes a number from what is left of the block, 0 where nothing is.
func (s *Sequence) fromBlock() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == 0 || s.first > s.last {
		return 0
	}
	s.first++
	return s.first - 1
}

// Reserve returns n consecutive numbers, 1 to MaxReserve.
func (s *Sequence) Reserve(ctx context.Context, n int64) (Numbers, error) {
	if s.err != nil {
		return Numbers{}, s.err
	}
	if n < 1 || n > MaxReserve {
		return Numbers{}, s.client.fail("reserve", s.name, ErrInvalid, fmt.Errorf("%d numbers: reserve 1 to %d", n, int64(MaxReserve)))
	}
	for {
		known := s.known()
		got, err := s.client.count(ctx, "reserve", driver.Count{Name: s.name, Rule: driver.Total, N: n})
		if err != nil {
			return Numbers{}, err
		}
		if !got.Unproven && got.Total-n >= known {
			s.learn(got.Total)
			return Numbers{got.Total - n + 1, got.Total}, nil
		}
		// Missing, forgotten, or behind what this handle was given before the call.
		enough := known // once somebody has restored it
		if !got.Unproven {
			enough += n // which it may have reached by this call alone
		}
		if err := s.restore(ctx, true, enough); err != nil {
			return Numbers{}, err
		}
	}
}

// known is the highest number that this handle was given.
func (s *Sequence) known() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.highest
}

func (s *Sequence) learn(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.highest = max(s.highest, n)
}

// Peek returns the highest number that was handed out, 0 where none was. It is out of date
// when it arrives. It fails with ErrUnavailable when the counter was lost and nobody has
// restored it yet; one that is missing altogether is 0 to a handle that was given nothing.
func (s *Sequence) Peek(ctx context.Context) (int64, error) {
	if s.err != nil {
		return 0, s.err
	}
	got, err := s.client.count(ctx, "peek", driver.Count{Name: s.name, Rule: driver.Total})
	switch {
	case err != nil:
		return 0, err
	case got.Unproven && (got.Total > 0 || s.known() > 0):
		return 0, s.client.fail("peek", s.name, ErrUnavailable, errors.New("the counter was lost and is not restored yet: call Next or Resync"))
	}
	return got.Total, nil
}

// Resync raises the sequence to what its source says, under the lock and without a gap. It is
// for introducing a sequence where numbers exist already, and for after numbers came into the
// database by another way. It never lowers the sequence. A loss that it comes across is made
// good with the gap; a counter that is missing altogether, to a handle that was given nothing,
// is taken for one that is new. It is not needed after a loss: Next and Reserve see to that.
func (s *Sequence) Resync(ctx context.Context) error {
	switch {
	case s.err != nil:
		return s.err
	case s.source == nil:
		return s.client.fail("resync", s.name, ErrInvalid, errors.New("the sequence has no source: use WithSource"))
	}
	return s.restore(ctx, false, 0)
}

// restore raises the counter so that no number is handed out again. lost says that the caller
// saw it missing or behind: whoever gets the lock later finds enough there and does nothing.
func (s *Sequence) restore(ctx context.Context, lost bool, enough int64) error {
	return s.client.Mutex(s.name).Do(ctx, func(ctx context.Context, _ *Lease) error {
		for {
			mine := s.known()
			look, err := s.client.count(ctx, "restore", driver.Count{Name: s.name, Rule: driver.Total})
			if err != nil {
				return err
			}
			if lost && !look.Unproven && look.Total >= enough {
				return nil // somebody else restored it
			}
			used, err := s.used(ctx)
			if err != nil {
				return err
			}
			top := max(used, mine, look.Total)
			behind := look.Total < mine || look.Unproven && look.Total > 0
			if top > 0 && (lost || behind) {
				top += min(s.gap, driver.MaxTotal-top)
			}
			// One that was there is added to, which does nothing if it was lost since: numbers
			// above top may have been handed out before that. One that was lost is raised, and
			// never lowered: a holder that was paused past its lease leaves out numbers at worst,
			// unless the counter was restored and lost again in that pause.
			step := driver.Count{Name: s.name, Rule: driver.Raise, N: top}
			if !look.Unproven {
				step.Rule, step.N = driver.Total, top-look.Total
			}
			got, err := s.client.count(ctx, "restore", step)
			if err != nil || !got.Unproven {
				return err
			}
		}
	})
}

// used asks the source, where there is one.
func (s *Sequence) used(ctx context.Context) (int64, error) {
	if s.source == nil {
		return 0, nil
	}
	n, err := s.source(ctx)
	switch {
	case err != nil:
		return 0, s.client.fail("restore", s.name, nil, fmt.Errorf("the sequence's source: %w", err))
	case n < 0 || n > driver.MaxTotal/2:
		return 0, s.client.fail("restore", s.name, ErrInvalid, fmt.Errorf("the sequence's source answered %d: it must be 0 to %d", n, int64(driver.MaxTotal/2)))
	}
	return n, nil
}
