package model

import (
	"cmp"
	"slices"
	"strings"
)

// This file is group.lua and, further down, queue.lua; see scripts.go.

func (l *Lock) find(token string) *Member {
	if l.Kind == Group {
		for i := range l.Members {
			if l.Members[i].Token == token {
				return &l.Members[i]
			}
		}
	}
	return nil
}

func (l *Lock) strike(token string) {
	m := l.find(token)
	if m == nil {
		return
	}
	if m.Mode == 'u' {
		l.Up = ""
	}
	l.Held -= m.Weight
	l.Members = slices.DeleteFunc(l.Members, func(m Member) bool { return m.Token == token })
	if l.Held <= 0 {
		l.dissolve()
	}
}

// byEnd returns the members in the order of the sorted set.
func (l *Lock) byEnd() []Member {
	slices.SortFunc(l.Members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Ends, b.Ends), strings.Compare(a.Token, b.Token))
	})
	return l.Members
}

func (r *run) look(l *Lock) {
	for l.Kind == Group && len(l.Members) > 0 && l.byEnd()[0].Ends < r.ms {
		l.strike(l.Members[0].Token)
	}
}

func (l *Lock) owns(token string) bool {
	switch l.Kind {
	case Group:
		return l.find(token) != nil
	case Exclusive:
		return strings.Contains(l.Value.ID, token)
	}
	return false
}

// fits says whether there is room; inuse is the limit in use when that is the reason.
func (l *Lock) fits(mode byte, limit, weight int64) (ok bool, inuse int64) {
	switch {
	case l.Kind == Free:
		return true, 0
	case l.Kind != Group || mode == 'x':
		return false, 0
	case l.Limit != limit:
		if l.Limit > 0 && limit > 0 {
			return false, l.Limit
		}
		return false, 0
	case mode == 'u':
		return l.Up == "", 0
	}
	return mode == 's' || l.Held+weight <= limit, 0
}

// put enters a share that fits, and reports whether the server let it.
func (r *run) put(l *Lock, mode byte, limit, weight int64, id string, ttl, first, span int64) bool {
	if mode == 'x' {
		if l.Kind != Free && !r.Flaws.Has(ReassertOverwrites) || r.Full {
			return false
		}
		l.take(r.value(id, first, span), r.ms+ttl)
		return true
	}
	if l.Kind == Free {
		if r.Full {
			return false
		}
		l.Kind, l.Limit, l.Ends = Group, limit, r.ms+ttl
	}
	token := tokenOf(id)
	l.Members = append(l.Members, Member{Token: token, Mode: mode, Weight: weight, Value: r.value(id, first, span), Ends: r.ms + ttl})
	l.Held += weight
	if mode == 'u' {
		l.Up = token
	}
	l.Ends = max(l.Ends, r.ms+ttl)
	return true
}

func (r *run) again(l *Lock, id string, ttl, span int64) string {
	first, s := r.fence(span)
	switch {
	case l.Kind == Group:
		m := l.find(tokenOf(id))
		m.Value, m.Ends = r.value(id, first, s), r.ms+ttl
		l.Ends = max(l.Ends, m.Ends)
	case r.Flaws.Has(OldTTL):
		l.Value = r.value(id, first, s)
	default:
		l.take(r.value(id, first, s), r.ms+ttl)
	}
	return granted(first, s, span)
}

func (r *run) promote(l *Lock, id string, ttl, first, span int64) {
	l.take(r.value(id, first, span), r.ms+ttl)
}

func (l *Lock) alone(token string) bool { return l.Kind == Group && l.Held == 1 && l.Up == token }

// From here on: queue.lua.

func (l *Lock) leave(e Entry) bool {
	before := len(l.Queue)
	l.Queue = slices.DeleteFunc(l.Queue, e.same)
	return len(l.Queue) < before
}

func (l *Lock) forget(token string) bool {
	for _, e := range l.Queue {
		if tokenOf(e.ID) == token {
			return l.leave(e)
		}
	}
	return false
}

func (r *run) enqueue(l *Lock, e Entry) bool {
	i := slices.IndexFunc(l.Queue, e.same)
	if i < 0 {
		l.Queue = append(l.Queue, e)
		i = len(l.Queue) - 1
		if len(l.Queue) > longest {
			l.Queue = l.Queue[:i]
			return false
		}
		if e.Order == 0 {
			l.Queue[i].Seen = r.ms
		}
		slices.SortFunc(l.Queue, func(a, b Entry) int {
			if a.Order != b.Order {
				return cmp.Compare(a.Order, b.Order)
			}
			return strings.Compare(a.String(), b.String())
		})
	} else {
		l.Queue[i].Seen = r.ms
	}
	l.QueueEnds = r.ms + keepFor
	return true
}

func (r *run) heard(e Entry) bool {
	return float64(r.ms)-float64(e.Order)/1000 <= silentFor || e.Seen > 0 && r.ms-e.Seen <= silentFor
}

// offer grants to an entry of another caller and tells it. ok is false where the server
// failed, done where nobody listened.
func (r *run) offer(l *Lock, key string, e Entry) (done, ok bool) {
	listens := r.Listens != nil && r.Listens(e.Inbox)
	if !listens && e.Mode != 'g' && !r.Flaws.Has(TakeBack) {
		return false, true
	}
	first, s := r.fence(e.Span)
	ttl := e.TTL
	if e.Mode != 'g' {
		ttl = min(ttl, offerFor)
	}
	m := Message{Inbox: e.Inbox, Token: tokenOf(e.ID), Key: key, Fence: first, Span: s, TTL: ttl}
	if listens && r.Flaws.Has(PublishFirst) {
		r.Published = append(r.Published, m)
		l.leave(e)
	}
	if e.Mode == 'g' {
		r.promote(l, e.ID, ttl, first, s)
		ok = true
	} else {
		ok = r.put(l, e.Mode, e.Cap, e.Weight, e.ID, ttl, first, s)
	}
	switch {
	case !ok:
		return false, false
	case listens:
		if !r.Flaws.Has(PublishFirst) {
			r.Published = append(r.Published, m)
		}
		l.leave(e)
		return true, true
	case e.Mode == 'g':
		return true, true
	}
	r.Published = append(r.Published, m) // TakeBack: somebody may hear it elsewhere
	if e.Mode == 'x' {
		l.dissolve()
	} else {
		l.strike(m.Token)
	}
	return false, true
}

// serve grants to those who are next, and returns the answer for own if it was its turn.
func (r *run) serve(l *Lock, key string, own *Entry) (answer string) {
	skip := 0
	for range 64 {
		if skip >= len(l.Queue) {
			break
		}
		e := l.Queue[skip]
		mine := own != nil && e.same(*own)
		if !mine && !r.heard(e) {
			l.leave(e)
			continue
		}
		r.look(l)
		token, room := tokenOf(e.ID), false
		if e.Mode == 'g' {
			room = l.alone(token)
			if !room && !l.owns(token) {
				l.leave(e)
				continue
			}
		} else if l.Kind != Wrong {
			room, _ = l.fits(e.Mode, e.Cap, e.Weight)
		}
		if !room {
			break
		}
		if !mine {
			done, ok := r.offer(l, key, e)
			if !ok {
				break
			}
			if !done {
				skip++
			}
			continue
		}
		first, s := r.fence(e.Span)
		if e.Mode == 'g' {
			r.promote(l, e.ID, e.TTL, first, s)
		} else if !r.put(l, e.Mode, e.Cap, e.Weight, e.ID, e.TTL, first, s) {
			return "!"
		}
		l.leave(e)
		answer = granted(first, s, e.Span)
	}
	return answer
}
