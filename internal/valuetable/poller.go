package valuetable

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

const (
	// firstPause and lastPause are those between two looks at a name. They grow from the one
	// to the other while nothing changes.
	firstPause = 2 * time.Millisecond
	lastPause  = 150 * time.Millisecond

	// maxLook is how many names are looked at in one statement.
	maxLook = 200

	// rideOut is for how long those who wait bear with looks that fail: a connection that was
	// ended, or a server that restarts, does not end a wait.
	rideOut = 3 * time.Second
)

// Seen is what a look says of a name.
type Seen struct {
	Version int64         // 0 where nothing is stored
	TTL     time.Duration // 0 for ever
}

// Poller looks at the table for all goroutines of an engine that wait for values: one
// statement at a time, for all names whose turn it is. It has a goroutine only while somebody
// waits, and holds nothing between two looks.
type Poller struct {
	look  func(ctx context.Context, names []string) (map[string]Seen, error)
	spawn func(func())

	mu      sync.Mutex
	names   map[string]*watched
	running bool
	failing time.Time     // when looks began to fail, zero if the last one did not
	stir    chan struct{} // buffered: somebody new waits
}

// watched is a name that somebody waits for.
type watched struct {
	waiters map[*waiter]struct{}
	pause   time.Duration
	due     time.Time
}

type waiter struct {
	version int64
	told    chan error // buffered: the version is another, or looks fail
}

// NewPoller returns a poller that asks look, which leaves out names under which nothing is
// stored. spawn starts goroutines.
func NewPoller(look func(ctx context.Context, names []string) (map[string]Seen, error), spawn func(func())) *Poller {
	return &Poller{look: look, spawn: spawn, names: make(map[string]*watched), stir: make(chan struct{}, 1)}
}

// Await waits until read returns another version than the one given. It ends with ctx, or with
// driver.Closed once closing is closed. life is the context of looks; it has to live for as
// long as closing is open.
func (p *Poller) Await(ctx, life context.Context, closing <-chan struct{}, name string, version int64,
	read func(context.Context) (driver.Value, error)) (driver.Value, error) {
	for {
		v, err := read(ctx)
		if err != nil || v.Version != version {
			return v, err
		}
		// What changes from here on the looks find, which compare with the same version.
		w := p.enter(life, name, version, v.TTL)
		select {
		case err = <-w.told:
		case <-ctx.Done():
			err = driver.Fail(driver.Unavailable, ctx.Err())
		case <-closing:
			err = driver.Fail(driver.Closed, nil)
		}
		p.leave(name, w)
		if err != nil {
			return driver.Value{}, err
		}
	}
}

// Changed tells those who wait in this process of a version that it has written itself.
func (p *Poller) Changed(name string, version int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.names[name]; n != nil {
		n.tell(version)
	}
}

func (n *watched) tell(version int64) {
	for w := range n.waiters {
		if w.version != version {
			w.end(nil)
		}
	}
}

func (w *waiter) end(err error) {
	select {
	case w.told <- err:
	default: // it was told already
	}
}

func (p *Poller) enter(life context.Context, name string, version int64, ttl time.Duration) *waiter {
	w := &waiter{version: version, told: make(chan error, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.names[name]
	if n == nil {
		n = &watched{waiters: make(map[*waiter]struct{})}
		p.names[name] = n
	}
	n.waiters[w] = struct{}{}
	n.pause = firstPause
	n.schedule(time.Now(), ttl)
	if !p.running {
		p.running = true
		p.spawn(func() { p.run(life) })
	}
	select {
	case p.stir <- struct{}{}:
	default:
	}
	return w
}

func (p *Poller) leave(name string, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.names[name]
	if delete(n.waiters, w); len(n.waiters) == 0 {
		delete(p.names, name)
		if len(p.names) == 0 {
			select {
			case p.stir <- struct{}{}: // so that the goroutine ends
			default:
			}
		}
	}
}

// schedule says when the name is looked at next: after its pause, or when the value expires.
func (n *watched) schedule(now time.Time, ttl time.Duration) {
	d := n.pause*3/4 + rand.N(n.pause/2)
	if ttl > 0 {
		d = min(d, ttl+time.Millisecond)
	}
	n.due = now.Add(d)
}

// run looks for as long as somebody waits.
func (p *Poller) run(life context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		names, pause, more := p.next()
		switch {
		case !more:
			return
		case len(names) > 0:
			seen, err := p.look(life, names)
			p.tell(names, seen, err)
			continue
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-p.stir:
		case <-life.Done():
			p.mu.Lock()
			p.running = false
			p.mu.Unlock()
			return
		}
	}
}

// next returns the names whose turn it is, or how long nobody's is. It reports false, and the
// goroutine is to end, when nobody waits.
func (p *Poller) next() (names []string, pause time.Duration, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.names) == 0 {
		p.running, p.failing = false, time.Time{}
		return nil, 0, false
	}
	now := time.Now()
	first := now.Add(lastPause)
	var soon []string // may as well be looked at in the same statement
	for name, n := range p.names {
		switch {
		case !n.due.After(now) && len(names) < maxLook:
			names = append(names, name)
		case n.due.Before(now.Add(n.pause / 4)):
			soon = append(soon, name)
		}
		if n.due.Before(first) {
			first = n.due
		}
	}
	if len(names) > 0 {
		names = append(names, soon[:min(len(soon), maxLook-len(names))]...)
	}
	return names, max(first.Sub(now), 0), true
}

// tell has those go on who know another version than was seen.
func (p *Poller) tell(names []string, seen map[string]Seen, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = now
	}
	lasts := err != nil && now.Sub(p.failing) > rideOut
	for _, name := range names {
		n := p.names[name]
		if n == nil {
			continue
		}
		switch {
		case lasts:
			for w := range n.waiters {
				w.end(err)
			}
		case err == nil:
			n.tell(seen[name].Version)
		}
		n.pause = min(n.pause*3/2, lastPause)
		n.schedule(now, seen[name].TTL)
	}
}
