package testserver

import (
	"bytes"
	"slices"
)

// fault is something that happens once, or a few times, when the bytes that trigger it come
// by. A proxy has at most one: setting another replaces it.
type fault struct {
	left  int    // how often it is still to happen
	mute  bool   // the connection goes silent, instead of being reset
	after int    // reply bytes that pass before it happens
	match []byte // if not nil: only on a connection on which a request with these bytes passed
	early bool   // happens to the request that matches, instead of the reply
}

// CutAfterReplyBytes lets n more bytes of replies through, over all connections, and then
// resets the connection on which the next one comes. With 0 the next request is carried out
// and the client never learns the result.
func (p *TCPProxy) CutAfterReplyBytes(n int) { p.inject(fault{left: 1, after: n}) }

// DropReplies lets the next n replies get lost. A connection that lost one stays open and
// silent towards the client, as in a network that loses packets, while its requests still
// reach the server: so each of the n is on another connection.
func (p *TCPProxy) DropReplies(n int) { p.inject(fault{left: n, mute: true}) }

// CutReplyTo resets the connection when the reply comes to the next request that contains the
// given bytes.
func (p *TCPProxy) CutReplyTo(request string) {
	p.inject(fault{left: 1, match: []byte(request)})
}

// DropReplyTo loses the reply to the next request that contains the given bytes. The
// connection stays open and silent towards the client.
func (p *TCPProxy) DropReplyTo(request string) {
	p.inject(fault{left: 1, match: []byte(request), mute: true})
}

// CutRequest resets the connection on which the next request comes that contains the given
// bytes, and does not forward it.
func (p *TCPProxy) CutRequest(request string) {
	p.inject(fault{left: 1, match: []byte(request), early: true})
}

func (p *TCPProxy) inject(f fault) {
	p.change(func() {
		p.fault = f
		for l := range p.links {
			l.aimed = matcher{}
		}
	})
}

// pass says what becomes of data that came on link l in direction d: how many bytes of it go
// on, and what then happens to the connection. The caller holds the lock.
func (p *TCPProxy) pass(l *link, d Direction, data []byte) (forward int, cut bool) {
	f := &p.fault
	if d == Up && p.mark != nil {
		l.marked.feed(p.mark, data)
	}
	switch {
	case p.dropping[d] || d == Down && l.mute:
		l.holed = true
		return 0, false
	case f.left == 0:
		return len(data), false
	case d == Up:
		if f.match == nil || l.aimed.hit || !l.aimed.feed(f.match, data) || !f.early {
			return len(data), false
		}
		f.left--
		p.stats.Faults++
		return 0, true
	case f.early || f.match != nil && !l.aimed.hit:
		return len(data), false
	case f.after >= len(data):
		f.after -= len(data)
		return len(data), false
	}
	f.left--
	p.stats.Faults++
	if f.mute {
		l.mute, l.holed = true, true
	}
	return f.after, !f.mute
}

// matcher looks for bytes in a stream that comes in pieces.
type matcher struct {
	hit  bool
	seen []byte // the end of what came, which may be the start of a match
}

// feed takes the next piece and says whether the bytes have occurred by now.
func (m *matcher) feed(want, data []byte) bool {
	if m.hit {
		return true
	}
	all := slices.Concat(m.seen, data)
	if m.hit = bytes.Contains(all, want); m.hit {
		return true
	}
	m.seen = all[max(0, len(all)-len(want)+1):]
	return false
}
