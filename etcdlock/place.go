package etcdlock

import (
	"strconv"

	"github.com/holdfast-go/holdfast/driver"
)

// place is a key that one request of this process has to itself. It is named after the lease
// that was current when the request took it, and may hang on a later one.
//
// A place is free for the next request once its key is known to be gone. Where that is not
// known, because a write or a deletion of the key was not answered, the lease is given up, and
// no key is named after it any more. So a request that arrives late meets nobody else's key.
type place struct {
	home *lease
	name string
	slot int
	key  string
}

// slots are the places of one name.
type slots struct {
	free []int
	next int
	used int
}

// take takes a place for a request for a name.
func (l *lease) take(name string) *place {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.slots[name]
	if s == nil {
		s = &slots{}
		l.slots[name] = s
	}
	p := &place{home: l, name: name, slot: s.next}
	if n := len(s.free); n > 0 {
		p.slot, s.free = s.free[n-1], s.free[:n-1]
	} else {
		s.next++
	}
	s.used++
	p.key = l.engine.cfg.keysOf(name) + strconv.FormatInt(int64(l.id), 16)
	if p.slot > 0 {
		p.key += "-" + strconv.Itoa(p.slot)
	}
	return p
}

// leave gives a place back whose key is gone, once.
func (p *place) leave() {
	l := p.home
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.slots[p.name]
	if s.used--; s.used == 0 {
		delete(l.slots, p.name)
		return
	}
	s.free = append(s.free, p.slot)
}

// asking is a request that is under way, or whose outcome is not known.
type asking struct {
	place *place // nil before it has one
	under bool
}

// begin takes note of a request, so that a release finds its key. It returns the place that an
// earlier call with this token may have left its key at.
func (c *claims) begin(token driver.Token) (*place, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asking[token]
	switch {
	case a == nil:
		c.asking[token] = &asking{under: true}
		return nil, nil
	case a.under:
		return nil, driver.Failf(driver.Invalid, "a request with this token is under way already")
	}
	a.under = true
	if !a.place.home.alive() { // so it is gone
		a.place = nil
	}
	return a.place, nil
}

// at takes note of where a request has its key.
func (c *claims) at(token driver.Token, p *place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking[token].place = p
}

// end ends a request. One that may have left its key, settled or not, is remembered for as long
// as its lease may live.
func (c *claims) end(token driver.Token, settled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asking[token]
	a.under = false
	if settled || a.place == nil {
		delete(c.asking, token)
		return
	}
	for other, a := range c.asking {
		if !a.under && !a.place.home.alive() {
			delete(c.asking, other)
		}
	}
}

// asked returns the key that a request with this token may have, "" when there is none.
func (c *claims) asked(token driver.Token) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.asking[token]; a != nil && a.place != nil {
		return a.place.key
	}
	return ""
}

// forget forgets a request that is over, and whose key is gone.
func (c *claims) forget(token driver.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.asking[token]; a != nil && !a.under {
		delete(c.asking, token)
	}
}

// left takes note of a claim whose key could not be deleted.
func (c *claims) left(cl claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking[cl.token] = &asking{place: cl.place}
}
