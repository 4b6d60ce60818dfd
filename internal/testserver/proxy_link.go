package testserver

import (
	"io"
	"net"
	"sync"
	"time"
)

// link is one connection through a proxy: from the client to it, and from it to the server.
type link struct {
	proxy  *TCPProxy
	client net.Conn
	done   chan struct{} // closed when the connection is over

	// Under the lock of the proxy.
	server net.Conn // nil until it is dialled
	holed  bool     // bytes of it were lost
	mute   bool     // replies are lost from now on
	aimed  matcher  // of the request that the proxy's fault is about
	marked matcher  // of the proxy's mark
}

// run forwards until both directions have ended.
func (l *link) run() {
	p := l.proxy
	defer p.change(func() {
		l.end()
		delete(p.links, l)
	})
	if !l.wait(func() bool { return !l.stopped(Up) && !p.dropping[Up] }) {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, patience)
	if err != nil {
		p.change(l.reset)
		return
	}
	p.mu.Lock()
	l.server = server
	over := closed(l.done) // ended while it was being dialled
	p.mu.Unlock()
	if over {
		server.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.forward(Up, l.client, server) })
	both.Go(func() { l.forward(Down, server, l.client) })
	both.Wait()
}

// forward copies one direction until its end, and passes the end on.
func (l *link) forward(d Direction, from, to net.Conn) {
	p := l.proxy
	buf := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(buf)
		if n > 0 && !l.deliver(d, to, buf[:n]) {
			return
		}
		if readErr == nil {
			continue
		}
		// The end is news like any other: it waits while the direction is frozen, and is lost
		// where the connection has gone silent.
		if !l.wait(func() bool { return !l.stopped(d) && !p.dropping[d] }) || d == Down && l.isMute() {
			return
		}
		if readErr == io.EOF {
			_ = to.(*net.TCPConn).CloseWrite()
		} else {
			p.change(l.reset)
		}
		return
	}
}

// deliver brings bytes to the other side as the state of the proxy wants it. False means that
// the connection is over.
func (l *link) deliver(d Direction, to net.Conn, data []byte) bool {
	p := l.proxy
	// A frozen direction that also drops does drop: what is dropped never waits.
	if !l.late() || !l.wait(func() bool { return !l.stopped(d) || p.dropping[d] }) {
		return false
	}
	p.mu.Lock()
	n, cut := p.pass(l, d, data)
	p.stats.Bytes[d] += n
	p.stats.Dropped[d] += len(data) - n
	p.mu.Unlock()
	if n > 0 {
		if _, err := to.Write(data[:n]); err != nil {
			p.change(l.reset)
			return false
		}
	}
	if cut {
		p.change(l.reset)
	}
	return !cut
}

// stopped is true while nothing goes on in a direction. The caller holds the lock of the proxy.
func (l *link) stopped(d Direction) bool {
	return l.proxy.frozen[d] || l.proxy.holding && l.marked.hit
}

func (l *link) isMute() bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	return l.mute
}

// late waits for as long as the proxy delays bytes, which may change meanwhile. False means
// that the connection is over.
func (l *link) late() bool {
	arrived := time.Now()
	for {
		l.proxy.mu.Lock()
		delay, changed := l.proxy.delay, l.proxy.changed
		l.proxy.mu.Unlock()
		left := delay - time.Since(arrived)
		if left <= 0 {
			return true
		}
		select {
		case <-l.done:
			return false
		case <-changed:
		case <-time.After(left):
		}
	}
}

// wait returns true when the condition holds, which it reads under the lock of the proxy, and
// false when the connection is over before.
func (l *link) wait(condition func() bool) bool {
	for {
		l.proxy.mu.Lock()
		ok, changed := condition(), l.proxy.changed
		l.proxy.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-l.done:
			return false
		case <-changed:
		}
	}
}

// reset ends the connection with RST on both sides. The caller holds the lock of the proxy.
func (l *link) reset() {
	for _, c := range []net.Conn{l.client, l.server} {
		if c, ok := c.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
		}
	}
	l.end()
}

// end closes both sides. The caller holds the lock of the proxy.
func (l *link) end() {
	if closed(l.done) {
		return
	}
	close(l.done)
	l.client.Close()
	if l.server != nil {
		l.server.Close()
	}
}
