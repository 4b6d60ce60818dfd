package redislock

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// line is a connection of one sender, on which it speaks the protocol of Redis itself: a fifth of
// what a lone call costs is the client library, which takes connections out of its pool and puts
// them back, looks whether they live, sets deadlines and asks for the reply's type. The library
// makes the connection, secures it and logs in. It also makes every call for which there is no
// line: the first ones, those after a failure, and all on a server that a line is not for.
//
// A line is used by its sender only. Others may close it.
type line struct {
	engine *Engine
	wire   atomic.Pointer[wire]
	state  atomic.Uint32
	calls  int // without a wire
	tried  time.Time
}

// The states of a line.
const (
	unwired = iota
	wiring  // in the background
	wired
	ended
)

const (
	// warm is how many calls a sender makes before it is given a wire: a program that
	// locks now and then has no use for another connection.
	warm = 32

	// calm is how long it does without after a failure, however many its calls.
	calm = time.Second
)

// newLine returns a line for a sender, nil where the connections are the application's, where their
// number is bounded, or where it is for the library to say which server they go to.
func (e *Engine) newLine() *line {
	if !looks || !e.owned || e.opened == nil || e.opened.kind != "" || e.opened.pool > 0 {
		return nil
	}
	return &line{engine: e}
}

// ready returns the wire, if there is one that may be used now.
func (l *line) ready() *wire {
	if l == nil {
		return nil
	}
	w := l.wire.Load()
	if w == nil {
		if l.calls++; l.calls >= warm {
			l.wish()
		}
		return nil
	}
	// In this order: past its deadline a connection cannot be looked at.
	if !w.extend(time.Now(), l.engine.cfg.Timeout) || !w.lives() {
		l.drop(w)
		return nil
	}
	return w
}

// wish has a wire made in the background: no call waits for that.
func (l *line) wish() {
	l.calls = 0
	if now := time.Now(); now.Sub(l.tried) >= calm && l.state.CompareAndSwap(unwired, wiring) {
		l.tried = now
		l.engine.calls.Go(l.connect)
	}
}

// do makes a call on the wire. After anything but an answer nobody knows what is still to come on
// it. It goes after an error of the server too, but that of a script that it does not have: some
// say that the server is not the right one any more.
func (l *line) do(w *wire, args []any) ([]string, error) {
	reply, err := w.do(args)
	if err != nil && !isNoScript(err) {
		l.drop(w)
	}
	return reply, err
}

// connect makes the wire. Where that fails the sender goes on without.
func (l *line) connect() {
	w, err := l.engine.opened.dial(l.engine.life)
	if err != nil {
		l.state.CompareAndSwap(wiring, unwired)
		return
	}
	l.wire.Store(w)
	if !l.state.CompareAndSwap(wiring, wired) { // closed meanwhile, and perhaps before it was stored
		l.drop(w)
	}
}

// drop gives up the wire.
func (l *line) drop(w *wire) {
	if l.wire.CompareAndSwap(w, nil) {
		w.close()
		l.state.CompareAndSwap(wired, unwired)
	}
}

// close ends the line. A call under way fails.
func (l *line) close() {
	if l == nil {
		return
	}
	l.state.Store(ended)
	if w := l.wire.Load(); w != nil {
		l.drop(w)
	}
}

// wire is a connection to a server, ready for commands.
type wire struct {
	net.Conn
	client   *redis.Client // made it, and closes it
	socket   socket
	in       *bufio.Reader
	out      []byte
	reply    []string
	deadline time.Time
	once     sync.Once
}

// dial makes a wire by a client for this one connection.
func (o *options) dial(ctx context.Context) (*wire, error) {
	settings := o.server()
	settings.PoolSize = 1
	// Nobody would be there to do what the server notifies of.
	settings.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	dial, w := redis.NewDialer(settings), &wire{}
	settings.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		w.Conn = conn
		return conn, err
	}
	w.client = redis.NewClient(settings)
	if err := w.client.Ping(ctx).Err(); err != nil {
		w.close()
		return nil, err
	}
	if w.Conn == nil {
		w.close()
		return nil, errors.New("no connection was made")
	}
	w.in, w.socket.raw = bufio.NewReader(w.Conn), socketOf(w.Conn)
	return w, nil
}

func (w *wire) close() { w.once.Do(func() { _ = w.client.Close() }) }

// lives reports whether the connection is as it was left: servers close those that are idle.
func (w *wire) lives() bool { return w.in.Buffered() == 0 && w.socket.silent() }

// extend moves the deadline of what is to come to timeout from now, or up to a quarter later:
// to set one costs a lock and a timer.
func (w *wire) extend(now time.Time, timeout time.Duration) bool {
	if w.deadline.Sub(now) >= timeout {
		return true
	}
	w.deadline = now.Add(timeout + timeout/4)
	return w.SetDeadline(w.deadline) == nil
}
