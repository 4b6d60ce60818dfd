package zklock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// session is the ZooKeeper session of an engine: one connection, to one server at a time.
//
// The library goes from server to server by itself, and from an expired session to a new one.
// A lock has to know in which session a request was carried out. Session numbers never come
// back, so a request that found the same one before it was sent and after it was answered
// was carried out in that session.
type session struct {
	conn     *zk.Conn
	limit    time.Duration // of a connection that owes an answer
	reach    func(server string) (net.Conn, error)
	expired  func(session int64)    // is called when a session is known to be over
	calls    sync.WaitGroup         // of the library, under way
	watched  func() (watches int)   // how many watches the library may have to set anew
	watching func(path string) bool // whether it may have one on that node

	seen atomic.Int64 // the last transaction in the answers to our own requests

	mu        sync.Mutex
	id        int64 // 0 while there is none
	timeout   time.Duration
	floor     time.Duration // a session that is shorter than this is of no use
	wire      *wire         // the connection in use or being made
	connected bool
	cause     error // why the last connection could not be made
	closed    bool
	changed   chan struct{} // closed and replaced when something above changes
}

// watchesGrace bounds how long requests wait for the library to set its watches anew after it
// has connected. It does so at once, if at all.
const watchesGrace = 50 * time.Millisecond

// connect begins to connect.
func (s *session) connect(servers []string, timeout time.Duration) error {
	s.changed = make(chan struct{})
	conn, _, err := zk.Connect(servers, timeout,
		zk.WithDialer(s.dial),
		zk.WithHostProvider(&hosts{session: s}),
		zk.WithEventCallback(s.event),
		zk.WithLogger(silence{}),
		zk.WithLogInfo(false),
	)
	s.conn = conn
	return err
}

// silence is the log of a library whose errors are returned anyway.
type silence struct{}

func (silence) Printf(string, ...any) {}

// update changes the state and wakes those who wait for a change.
func (s *session) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *session) dial(_, address string, _ time.Duration) (net.Conn, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	c, err := s.reach(address)
	if err != nil {
		s.failed(err)
		return nil, err
	}
	w := newWire(c, s, address)
	s.update(func() {
		if s.wire != nil {
			s.wire.Close() // of a session that is over, the library leaves it to the server
		}
		s.wire = w
		if s.closed {
			c.Close()
		}
	})
	return w, nil
}

// failed is told why a connection could not be made.
func (s *session) failed(err error) { s.update(func() { s.cause = err }) }

// greeted is told how a server answered the greeting on w: with the session, or 0 where it is
// over.
func (s *session) greeted(w *wire, id int64, timeout time.Duration) {
	s.mu.Lock()
	before := s.id
	s.mu.Unlock()
	s.update(func() { s.id, s.timeout, s.connected = id, timeout, false })
	if before != 0 && before != id {
		s.seen.Store(0) // the servers may have begun anew
		s.expired(before)
	}
}

// event is told by the library what becomes of the connection. It must not block.
func (s *session) event(ev zk.Event) {
	if ev.Type != zk.EventSession {
		return
	}
	switch ev.State {
	case zk.StateHasSession:
		s.mu.Lock()
		w := s.wire
		s.mu.Unlock()
		if s.watched() == 0 {
			s.watchesSet(w)
			return
		}
		// The library is about to set its watches anew, as of the last transaction that it has
		// seen. An answer to another request would move that forward meanwhile, and an event
		// between the two would be lost.
		time.AfterFunc(watchesGrace, func() { s.watchesSet(w) })
	case zk.StateDisconnected:
		s.update(func() { s.connected = false })
	}
}

// watchesSet opens the connection to requests, if it is still in use.
func (s *session) watchesSet(w *wire) {
	s.update(func() {
		if s.wire == w && s.id != 0 && !s.closed {
			s.connected = true
		}
	})
}

var errShorter = errors.New("the servers negotiate shorter sessions than when the engine was opened: maxSessionTimeout was lowered; open the engine anew")

// ready returns the session once there is a connection to send requests on. It waits for that
// until ctx ends, and no longer than patience.
func (s *session) ready(ctx context.Context, patience time.Duration) (int64, error) {
	var late <-chan time.Time
	for {
		s.mu.Lock()
		id, connected, closed, changed := s.id, s.connected, s.closed, s.changed
		short, cause := s.timeout < s.floor, s.cause
		s.mu.Unlock()
		switch {
		case closed:
			return 0, errClosed
		case connected && short:
			return 0, errShorter
		case connected:
			return id, nil
		}
		if late == nil {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
			return 0, notConnected(cause)
		case <-ctx.Done():
			return 0, errors.Join(notConnected(cause), ctx.Err())
		}
	}
}

var errNotConnected = errors.New("no server serves the session")

func notConnected(cause error) error {
	if cause == nil {
		return errNotConnected
	}
	return fmt.Errorf("%w; the last that did not connect: %w", errNotConnected, cause)
}

// is reports whether id is the session still.
func (s *session) is(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id == id && id != 0
}

// own returns the connection, once requests of our own may go on it: not before the library has
// sent what it sends first on a new one, the greeting, who the user is, and its watches. None
// of its other requests goes out before those, so it is given one where it has not had any.
func (s *session) own(ctx context.Context) (*wire, error) {
	if w := s.ownNow(); w != nil {
		return w, nil
	}
	_, err := do(ctx, s, func(c *zk.Conn) (bool, error) {
		exists, _, err := c.Exists("/")
		return exists, err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if w := s.ownNow(); w != nil {
		return w, nil
	}
	if err == nil || passing(err) {
		err = zk.ErrNoServer // any more
	}
	return nil, err
}

// ownNow is own where that need not wait, and nil otherwise.
func (s *session) ownNow() *wire {
	s.mu.Lock()
	w, connected := s.wire, s.connected
	s.mu.Unlock()
	if !connected || !w.open() {
		return nil
	}
	return w
}

// close ends the session, and the library's calls with it. The servers are told, where there is
// a connection.
func (s *session) close() {
	s.conn.Close()
	s.update(func() {
		s.closed, s.connected = true, false
		if s.wire != nil {
			s.wire.Close()
		}
	})
}

// result is what a call of the library came to.
type result[T any] struct {
	value T
	err   error
}

// start begins a call of the library, which knows no contexts.
func start[T any](s *session, f func(*zk.Conn) (T, error)) <-chan result[T] {
	done := make(chan result[T], 1)
	s.calls.Add(1)
	go func() {
		defer s.calls.Done()
		v, err := f(s.conn)
		done <- result[T]{v, plain(err)}
	}()
	return done
}

// do makes a call of the library and returns when it has ended, or ctx has. The request may
// then still be carried out.
func do[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) (T, error) {
	done := start(s, f)
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// hosts says which server the library tries next. Names are resolved at every try: servers
// move. After all have failed once, the library pauses for a second.
type hosts struct {
	session *session

	mu      sync.Mutex
	servers []string
	next    int
	tried   int // since the last connection
}

// Init implements zk.HostProvider.
func (h *hosts) Init(servers []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = servers
	return nil
}

// Len implements zk.HostProvider.
func (h *hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.servers)
}

// Next implements zk.HostProvider.
func (h *hosts) Next() (server string, pause bool) {
	h.session.mu.Lock()
	closed := h.session.closed
	h.session.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	server = h.servers[h.next%len(h.servers)]
	h.next++
	// Only in the pause does the library look whether it was closed.
	pause = closed || h.tried > 0 && h.tried%len(h.servers) == 0
	h.tried++
	return server, pause
}

// Connected implements zk.HostProvider.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried = 0
}
