package pglock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/leaver"
)

// maxBatch is how many requests travel in one statement: more would keep the server from
// answering others for too long, and gain little.
const maxBatch = 128

// session is one connection of the pool and the session of the server at its other end. What
// it has locked lives as long as both. It carries out one statement at a time, from its own
// goroutine or from that of a caller who finds it at rest, see lead; what is asked meanwhile
// travels together in the next.
type session struct {
	e   *Engine
	id  int64 // the number of an advisory lock that it holds for as long as it lives
	pid int64 // of the server's process

	lock, unlock string // the statements for one step, see newTexts

	w    *wire // used by whoever carries out what is in flight, see led
	life context.Context
	end  context.CancelFunc

	leavers *leaver.Watch // of callers who carry out a statement

	mu     sync.Mutex
	queue  []*request
	flight []*request     // in the statement under way
	led    bool           // a caller uses w: until it has resigned, nobody else does
	lives  int            // shares that live in it, and requests in flight or answered that may be one
	busy   driver.Instant // when that was sent
	ended  error          // why it is no more
	lease  time.Duration  // after which silence the server ends it; 0: never
	leased driver.Instant // when something last needed a lease as long as that
	spoke  driver.Instant // when the last statement that was answered had been sent
	told   driver.Instant // when watch last had it publish
	wake   chan struct{}  // buffered: there is something in the queue

	// Guarded by Engine.mu.
	owner   string  // what others take for the owner of shares that they cannot read of
	gone    []int64 // shares that others can read of, and that are no more
	beats   int64
	blocked *ask           // what waits in it for a lock
	since   driver.Instant // when that began
	waited  key            // what was granted in it last, if somebody was in the way
}

// request is something for a session to do: steps of the combined statement, or a statement
// of its own.
type request struct {
	steps []step
	alone func(ctx context.Context, w *wire) error
	undo  []step        // gives back what steps or alone may have taken when they fail
	lease time.Duration // that the session has to have before
	waits bool          // for a lock: its caller has the server end it
	short bool          // alone does not wait for locks: no answer within Timeout ends the session
	takes bool          // what it is granted will be a share of its own
	taken bool          // that may be: it was in flight, and session.lives counts it

	answers []answer       // one a step, when err is nil
	one     [1]answer      // room for them
	itself  [1]*request    // room for a flight
	sent    driver.Instant // before the statement left
	err     error
	over    atomic.Bool
	done    chan struct{} // closed when answers or err can be read
}

func newRequest(steps ...step) *request { return &request{steps: steps, done: make(chan struct{})} }

// finish ends the request, once.
func (r *request) finish(err error) {
	if r.over.CompareAndSwap(false, true) {
		r.err = err
		close(r.done)
	}
}

// endedError says that a session is no more. What it had locked is free, or will be as soon
// as the server has noticed.
type endedError struct{ err error }

func (e *endedError) Error() string { return "the session is over: " + e.err.Error() }
func (e *endedError) Unwrap() error { return e.err }

var errIdle = errors.New("it was not needed any more")

// submit hands r to the session, which answers it in any case.
func (s *session) submit(r *request) {
	s.mu.Lock()
	if s.ended != nil {
		err := s.ended
		s.mu.Unlock()
		r.finish(driver.Fail(driver.Unavailable, err)) // it was not sent
		return
	}
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.rouse()
}

// rouse has the session's goroutine look for something to do.
func (s *session) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyhow
	}
}

// withdraw takes r back unless it is under way.
func (s *session) withdraw(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, r)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}

// run carries out what is asked until the session has ended, and no caller uses its connection
// any more.
func (s *session) run() {
	end := s.life.Done()
	for {
		batch, over := s.take()
		switch {
		case over:
			return
		case len(batch) == 0:
			select {
			case <-s.wake:
			case <-end:
				s.finish(errIdle)
				end = nil
			}
			continue
		}
		if err := s.carryOut(batch); err != nil {
			s.finish(err)
			return
		}
	}
}

// take returns the next requests: a statement of its own, or steps for one together. There are none
// while a caller carries out something; it rouses the goroutine at its end.
func (s *session) take() (batch []*request, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.led {
		return nil, false
	}
	s.flight = nil
	if s.ended != nil || len(s.queue) == 0 {
		return nil, s.ended != nil
	}
	n := 1
	if s.queue[0].alone == nil {
		for n < len(s.queue) && n < maxBatch && s.queue[n].alone == nil {
			n++
		}
	}
	s.flight = slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	s.departs()
	return s.flight, false
}

// departs notes that what is in flight is about to be sent. s.mu is locked.
func (s *session) departs() {
	s.busy = s.e.clock.Now()
	for _, r := range s.flight {
		r.sent = s.busy
		if r.takes {
			r.taken = true
			s.lives++
		}
	}
}

// lived takes back what was counted for a share that is no more, or for a request that came to none.
func (s *session) lived() {
	s.mu.Lock()
	s.lives--
	s.mu.Unlock()
}

// carryOut sends a batch and hands out the answers. An error means that the session is over.
func (s *session) carryOut(batch []*request) error {
	w := s.w
	if err := s.adjust(w, batch); err != nil {
		return s.failed(w, batch, err)
	}
	var err error
	if alone := batch[0].alone; alone != nil {
		err = alone(w.life, w)
	} else {
		err = s.combined(w, batch)
	}
	if err != nil {
		return s.failed(w, batch, err)
	}
	s.mu.Lock()
	s.spoke, s.flight = batch[0].sent, nil
	s.mu.Unlock()
	for _, r := range batch {
		r.finish(nil)
	}
	return nil
}

// combined carries out the steps of a batch in one statement.
func (s *session) combined(w *wire, batch []*request) error {
	if r := batch[0]; len(batch) == 1 && len(r.steps) == 1 {
		if text := s.textOf(r.steps[0]); text != "" {
			var err error
			r.one[0], err = s.step(w, text, r.steps[0])
			r.answers = r.one[:]
			return err
		}
	}
	var steps []step
	for _, r := range batch {
		steps = append(steps, r.steps...)
	}
	// Those who have to wait for gates do so in one order, see newTexts.
	order := make([]int, len(steps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareGates(steps[a], steps[b]) })
	answers, err := s.steps(w, steps, order)
	if err != nil {
		return err
	}
	for _, r := range batch {
		n := len(r.steps)
		r.answers, answers = answers[:n:n], answers[n:]
	}
	return nil
}

// compareGates puts steps that wait for gates last, in the order of their gates.
func compareGates(a, b step) int {
	gated := func(s step) bool { return s.op == opShare || s.op == opUpgradeable }
	switch ga, gb := gated(a), gated(b); {
	case ga && gb && a.window != b.window:
		return map[bool]int{true: -1, false: 1}[a.window < b.window]
	case ga == gb:
		return 0
	case gb:
		return -1
	}
	return 1
}

// learn notes which process of the server it is, which its statements prove.
func (s *session) learn(pid int64) {
	number := strconv.FormatInt(pid, 10)
	s.pid = pid
	s.lock = strings.ReplaceAll(s.e.texts.lock, "PID", number)
	s.unlock = strings.ReplaceAll(s.e.texts.unlock, "PID", number)
}

// textOf returns the statement that carries out t and nothing else, "" for the combined one.
func (s *session) textOf(t step) string {
	switch {
	case t.key.pair:
		return ""
	case t.op == opLock:
		return s.lock
	case t.op == opUnlock:
		return s.unlock
	}
	return ""
}

// step carries out t by its own statement.
func (s *session) step(w *wire, text string, t step) (answer, error) {
	a, err := w.ask(w.life, text, t.key.n)
	if err == nil && a.ok && a.n == moved {
		err = errMoved
	}
	return a, err
}

// steps carries out steps in that order and returns the answers in theirs.
func (s *session) steps(w *wire, steps []step, order []int) ([]answer, error) {
	var ops, ks, windows, pairs list
	for _, i := range order {
		t := steps[i]
		ops.add(int64(t.op))
		ks.add(t.key.n)
		windows.add(t.window)
		pairs.addBool(t.key.pair)
	}
	rows, err := w.query(w.life, s.e.texts.combined, ops.String(), ks.String(), windows.String(), pairs.String(), s.pid)
	if err != nil {
		return nil, err
	}
	if len(rows) != len(steps) {
		return nil, errGarbled
	}
	answers := make([]answer, len(steps))
	for i, row := range rows {
		var a answer
		if a.n, a.ok = number(row[0]); a.ok && a.n == moved {
			return nil, errMoved
		}
		answers[order[i]] = a
	}
	return answers, nil
}

// failed deals with a batch whose statement failed. Locks that it took are not given back
// with it, so that is done now; where that cannot be, or where the session is over, the error
// says so.
func (s *session) failed(w *wire, batch []*request, err error) error {
	if isOver(err) {
		return err
	}
	var undo []step
	for _, r := range batch {
		undo = append(undo, r.undo...)
		for _, t := range r.steps {
			if t.unlocks() {
				undo = append(undo, t) // it may not have come to it
			}
		}
	}
	if len(undo) > 0 {
		order := make([]int, len(undo))
		for i := range order {
			order[i] = i
		}
		if _, again := s.steps(w, undo, order); again != nil {
			return errors.Join(err, again)
		}
	}
	s.mu.Lock()
	s.flight = nil
	s.mu.Unlock()
	for _, r := range batch {
		if r.gives() {
			r.answers = slices.Repeat([]answer{{n: 1, ok: true}}, len(r.steps))
			r.finish(nil) // that was done just now
			continue
		}
		r.finish(s.e.explain(err))
	}
	return nil
}

// gives reports whether the request only gives back what is held.
func (r *request) gives() bool {
	return len(r.steps) > 0 && !slices.ContainsFunc(r.steps, func(t step) bool { return !t.unlocks() })
}

func (t step) unlocks() bool { return t.op == opUnlock || t.op == opUnlockShared }

// adjust sees to it that the server waits for the session for as long as what the batch asks
// for has to live, and no longer than something lives once that is long over.
func (s *session) adjust(w *wire, batch []*request) error {
	now := batch[0].sent
	var need time.Duration
	for _, r := range batch {
		need = max(need, r.lease)
	}
	s.mu.Lock()
	lease, leased := s.lease, s.leased
	if need >= lease && need > 0 {
		s.leased = now
	}
	s.mu.Unlock()
	switch {
	case need > lease:
		lease = need
	case lease > 0 && now.Sub(leased) > lease:
		// Whatever a lease of that length was asked for has been entered in the books by now,
		// or is over.
		if need = max(need, s.e.longest(s)); need >= lease {
			s.mu.Lock()
			s.leased = now
			s.mu.Unlock()
			return nil
		}
		lease = need
	default:
		return nil
	}
	if s.e.server.idle { // known to servers since PostgreSQL 14
		if _, err := w.query(w.life, "SELECT set_config('idle_session_timeout', $1, false)", milliseconds(lease)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	raised := lease > s.lease
	s.lease = lease
	s.mu.Unlock()
	if raised {
		s.e.look()
	}
	return nil
}

func milliseconds(d time.Duration) string {
	return fmt.Sprint(int64((d + time.Millisecond - 1) / time.Millisecond))
}

// finish ends the session for the engine: whatever lived in it is lost, whatever was asked of
// it fails. The connection is closed by the goroutine that has it.
func (s *session) finish(err error) {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	if state := stateOf(err); state == noStatement || state == sameStatement {
		err = fmt.Errorf("%w (%w)", errMoved, err)
	}
	over := &endedError{err}
	s.ended = over
	queue, flight := s.queue, s.flight
	s.queue = nil
	s.mu.Unlock()
	s.e.lose(s, err)
	s.end()
	for _, r := range flight {
		r.finish(&driver.Error{Kind: driver.Unavailable, Err: over})
	}
	for _, r := range queue {
		r.finish(driver.Fail(driver.Unavailable, over))
	}
}

// alive reports whether the session can be asked for something.
func (s *session) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended == nil
}

// list writes an array.
type list struct{ strings.Builder }

func (l *list) separate() {
	if l.Len() == 0 {
		l.WriteByte('{')
	} else {
		l.WriteByte(',')
	}
}

func (l *list) add(n int64) {
	l.separate()
	fmt.Fprint(l, n)
}

func (l *list) addBool(b bool) {
	l.separate()
	if b {
		l.WriteByte('t')
	} else {
		l.WriteByte('f')
	}
}

func (l *list) String() string {
	if l.Len() == 0 {
		return "{}"
	}
	return l.Builder.String() + "}"
}
