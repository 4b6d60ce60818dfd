package model

import "slices"

// single is single.lua, which answers a lone request about an exclusive lock where there is no
// gate, or leaves it to the others. The counter may have been raised then, and what is given
// back may live for longer.
func (r *run) single() bool {
	q := &r.call.Requests[0]
	if len(r.call.Requests) > 1 || r.call.Constants != "" {
		return false
	}
	l, now := r.lock(q.Key), r.call.Micros
	switch q.Op[0] {
	case 'r':
		r.words[0] = r.handOver(q, l, now)
	case 'x', 'X':
		r.words[0] = r.takeOrWait(q, l, now)
	}
	return r.words[0] != ""
}

func (r *run) handOver(q *Request, l *Lock, now int64) string {
	switch {
	case l.Kind == Free || l.Kind == Exclusive && !l.owns(q.ID):
		if len(l.Queue) == 0 {
			return "-"
		}
		return ""
	case l.Kind != Exclusive:
		return ""
	case len(l.Queue) == 0:
		l.dissolve()
		return "="
	}
	e := l.Queue[0]
	age := float64(r.Micros)/1000 - float64(e.Order)/1000
	if e.Mode != 'x' || age > silentFor || now > r.limit || r.Counter+e.Span > now {
		return ""
	}
	if r.Listens == nil || !r.Listens(e.Inbox) {
		return ""
	}
	ttl := min(e.TTL, offerFor)
	r.Counter = now
	l.take(r.value(e.ID, now-e.Span+1, e.Span), r.ms+ttl)
	r.Published = append(r.Published, Message{
		Inbox: e.Inbox, Token: tokenOf(e.ID), Key: q.Key, Fence: now - e.Span + 1, Span: e.Span, TTL: ttl,
	})
	l.leave(e)
	return "="
}

func (r *run) takeOrWait(q *Request, l *Lock, now int64) string {
	span, waiting := parseInt(q.Op[1:]), len(l.Queue)
	if waiting == 0 && now <= r.limit && r.Counter+span <= now {
		r.Counter = now
		if l.Kind == Free && !r.Full {
			l.take(r.value(q.ID, now-span+1, span), r.ms+q.TTL)
			return itoa(now - span + 1)
		}
	}
	if l.Kind != Exclusive || l.owns(tokenOf(q.ID)) {
		return ""
	}
	if q.Op[0] == 'X' {
		e := Entry{Inbox: r.call.Inbox, Mode: 'x', Weight: 1, TTL: q.TTL, Span: span, ID: q.ID, Order: r.sec*1000000 + r.us}
		ends := l.QueueEnds
		if waiting >= longest || slices.ContainsFunc(l.Queue, e.same) || !r.enqueue(l, e) {
			return ""
		}
		if waiting > 0 && r.sec%8 != 0 {
			l.QueueEnds = ends
		}
	}
	word, payload := r.held(l, q.Op[0] == 'X')
	r.payload[0] = payload
	return word
}

// pass is pass.lua, which answers a release and a request for the same exclusive lock where
// there is no gate and nobody waits, or leaves them to the others. The counter may have been
// raised then.
func (r *run) pass() bool {
	requests := r.call.Requests
	if len(requests) != 2 || r.call.Constants != "" {
		return false
	}
	back, next := &requests[0], &requests[1]
	if back.Op != "r" || next.Op[0]|0x20 != 'x' || back.Key != next.Key {
		return false
	}
	l, now, span := r.lock(back.Key), r.call.Micros, parseInt(next.Op[1:])
	if l.Kind != Exclusive || !l.owns(back.ID) || len(l.Queue) > 0 || now > r.limit || r.Counter+span > now {
		return false
	}
	r.Counter = now
	if r.Full {
		return false
	}
	l.take(r.value(next.ID, now-span+1, span), r.ms+next.TTL)
	r.first = itoa(now - span + 1)
	r.words[0], r.words[1] = "=", r.first
	return true
}
