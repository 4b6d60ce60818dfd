package testserver

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Direction says which way bytes go through a proxy.
type Direction int

// Up is from the client to the server, Down from the server to the client.
const (
	Up Direction = iota
	Down
)

// TCPProxy is a network between clients and one server that a test can break. Its methods may
// be called at any time from any goroutine.
type TCPProxy struct {
	t    testing.TB
	port int
	work sync.WaitGroup // every goroutine of the proxy

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something below changes
	target   string
	listener net.Listener // nil while connections are refused
	closed   bool
	links    map[*link]struct{}
	frozen   [2]bool // by direction
	mark     []byte  // what marks a connection, nil: nothing does
	holding  bool    // marked connections are frozen
	dropping [2]bool // by direction
	delay    time.Duration
	fault    fault
	stats    ProxyStats
}

// ProxyStats counts what went through a proxy.
type ProxyStats struct {
	Connections int    // that were accepted
	Bytes       [2]int // that were forwarded, by Direction
	Dropped     [2]int // that were discarded, by Direction
	Faults      int    // how often an injected fault happened: a reply or request lost
}

// Proxy starts a proxy on a free port of the loopback that forwards to target, host:port. The
// target is dialled anew for each connection: it need not be up yet. The proxy ends with the
// test.
func Proxy(t testing.TB, target string) *TCPProxy {
	t.Helper()
	port, release := reservePort(t)
	p := &TCPProxy{
		t:       t,
		port:    port,
		target:  target,
		changed: make(chan struct{}),
		links:   map[*link]struct{}{},
	}
	t.Cleanup(func() {
		p.Close()
		release()
	})
	p.Allow()
	return p
}

// Addr returns the host:port that clients dial.
func (p *TCPProxy) Addr() string { return loopback(p.port) }

// Port returns the port that clients dial.
func (p *TCPProxy) Port() int { return p.port }

// change applies f to the state and wakes everyone who waits for a change of it.
func (p *TCPProxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Freeze stops forwarding, in both directions. Connections stay open, and new ones are accepted
// but do not get through. The end of a connection does not get through either.
func (p *TCPProxy) Freeze() { p.change(func() { p.frozen = [2]bool{true, true} }) }

// FreezeUp stops forwarding what clients send.
func (p *TCPProxy) FreezeUp() { p.change(func() { p.frozen[Up] = true }) }

// FreezeDown stops forwarding what the server sends: requests are carried out, replies late.
func (p *TCPProxy) FreezeDown() { p.change(func() { p.frozen[Down] = true }) }

// Mark marks the connections on which, from now on, a request passes that contains the given
// bytes. It comes before any connection that matters.
func (p *TCPProxy) Mark(request string) {
	p.change(func() { p.mark = []byte(request) })
}

// FreezeMarked stops forwarding, in both directions, on connections that are marked or will be.
// The request that marks a connection still passes.
func (p *TCPProxy) FreezeMarked() { p.change(func() { p.holding = true }) }

// Drop discards what goes in direction d from now on, and nobody is told.
func (p *TCPProxy) Drop(d Direction) { p.change(func() { p.dropping[d] = true }) }

// Delay holds back everything, in each direction, for d: a stream of messages arrives at least
// d and at most about 2*d later. Zero ends it.
func (p *TCPProxy) Delay(d time.Duration) { p.change(func() { p.delay = d }) }

// Thaw ends every kind of Freeze, and Drop. What was frozen arrives now. Connections that lost
// something are reset: no network delivers a stream with a hole.
func (p *TCPProxy) Thaw() {
	p.change(func() {
		p.frozen, p.dropping, p.holding = [2]bool{}, [2]bool{}, false
		for l := range p.links {
			if l.holed {
				l.reset()
			}
		}
	})
}

// Cut resets all connections (RST). Bytes that are under way are lost.
func (p *TCPProxy) Cut() {
	p.change(func() {
		for l := range p.links {
			l.reset()
		}
	})
}

// HangUp closes all connections in order (FIN). Bytes that are frozen or delayed are lost.
func (p *TCPProxy) HangUp() {
	p.change(func() {
		for l := range p.links {
			l.end()
		}
	})
}

// Refuse makes the system refuse new connections. Those there are stay: see Cut.
func (p *TCPProxy) Refuse() {
	p.change(func() {
		if p.listener != nil {
			p.listener.Close()
			p.listener = nil
		}
	})
}

// Allow ends Refuse.
func (p *TCPProxy) Allow() {
	p.t.Helper()
	if err := poll(nil, p.listen); err != nil { // see errPortTaken
		p.t.Errorf("proxy on port %d: %v", p.port, err)
	}
}

func (p *TCPProxy) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.closed {
		return nil
	}
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return err
	}
	p.listener = l
	p.work.Go(func() { p.accept(l) })
	return nil
}

// Partition cuts the server off: no byte gets through in either direction, nor does the news
// of it. Heal ends it.
func (p *TCPProxy) Partition() { p.change(func() { p.dropping = [2]bool{true, true} }) }

// Heal ends everything that was done to the proxy, except faults that are yet to happen. What
// was frozen arrives, connections that lost something are reset.
func (p *TCPProxy) Heal() {
	p.t.Helper()
	p.Thaw()
	p.Delay(0)
	p.Allow()
}

// Stats returns the counters.
func (p *TCPProxy) Stats() ProxyStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Close ends the proxy and its connections and returns when its goroutines are gone.
func (p *TCPProxy) Close() {
	p.Refuse()
	p.change(func() {
		p.closed = true
		for l := range p.links {
			l.reset()
		}
	})
	p.work.Wait()
}

func (p *TCPProxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed: nothing else ends a listener on the loopback
		}
		link := &link{proxy: p, client: c, done: make(chan struct{})}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			c.Close()
			return
		}
		p.links[link] = struct{}{}
		p.stats.Connections++
		p.work.Go(link.run)
		p.mu.Unlock()
	}
}
