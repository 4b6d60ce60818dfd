package coordtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast"
)

// testCond passes things from producers to consumers over a shelf for one.
func testCond(x *env) {
	clients, name := x.clients(3), x.name()
	const things = 20
	full, produced, consumed := false, 0, 0 // guarded by the lock
	turn := func(c *holdfast.Client, wait, wake string, ready func() bool, act func()) error {
		m := c.Mutex(name)
		l, err := m.Lock(x.ctx)
		for err == nil && !ready() {
			l, err = m.Cond(name+wait).Wait(x.ctx, l)
		}
		if err != nil {
			return err
		}
		act()
		if err := m.Cond(name + wake).Signal(x.ctx); err != nil {
			return err
		}
		return l.Unlock()
	}
	var all sync.WaitGroup
	for i := range 4 {
		c := clients[i%3]
		all.Go(func() {
			for range things / 4 {
				x.check(turn(c, "room", "thing", func() bool { return !full }, func() { full = true; produced++ }))
			}
		})
		all.Go(func() {
			for range things / 4 {
				x.check(turn(c, "thing", "room", func() bool { return full }, func() { full = false; consumed++ }))
			}
		})
	}
	all.Wait()
	if produced != things || consumed != things {
		x.Errorf("%d things were produced, %d consumed", produced, consumed)
	}
}

func (x *env) check(err error) {
	x.Helper()
	if err != nil {
		x.Error(err)
	}
}

func testCondBroadcast(x *env) {
	clients, name := x.clients(3), x.name()
	open, waiting := false, 0 // guarded by the lock
	var through atomic.Int64
	var all sync.WaitGroup
	for i := range 6 {
		m := clients[i%3].Mutex(name)
		all.Go(func() {
			l, err := m.Lock(x.ctx)
			for first := true; err == nil && !open; first = false {
				if first {
					waiting++
				}
				before := l.Fence()
				if l, err = m.Cond(name).Wait(x.ctx, l); err == nil && l.Fence() <= before {
					x.Errorf("fence %d after the wait, %d before", l.Fence(), before)
				}
			}
			x.check(err)
			if err == nil {
				through.Add(1)
				x.check(l.Unlock())
			}
		})
	}
	x.eventually(func() bool {
		l, err := clients[0].Mutex(name).Lock(x.ctx)
		x.ok(err, "Lock")
		defer l.Unlock()
		if waiting < 6 {
			return false
		}
		open = true
		x.check(clients[0].Mutex(name).Cond(name).Broadcast(x.ctx))
		return true
	}, "everybody waits")
	all.Wait()
	if through.Load() != 6 {
		x.Errorf("%d of 6 were woken", through.Load())
	}
	x.ok(clients[1].Mutex(name).Cond(name).Signal(x.ctx), "Signal to nobody")
}

// testCondCancelled has a waiter leave in the instant in which it is pulsed, again and again.
// Either it is woken, or the pulse goes to the other one.
func testCondCancelled(x *env) {
	clients, name := x.clients(2), x.name()
	for range 20 {
		ctx, cancel := context.WithCancel(x.ctx)
		leaves, stays := x.waitFor(ctx, clients[0].Mutex(name)), x.waitFor(x.ctx, clients[1].Mutex(name))
		m := clients[1].Mutex(name)
		l, err := m.Lock(x.ctx) // both have given it back, so both are on the list
		x.ok(err, "Lock")
		go cancel()
		x.ok(m.Cond(name).Signal(x.ctx), "Signal")
		x.ok(l.Unlock(), "Unlock")
		if <-leaves == nil {
			x.ok(m.Cond(name).Signal(x.ctx), "Signal")
		}
		x.ok(<-stays, "the wait of the one who stays")
	}
}

// waitFor takes the lock and waits for a pulse in a goroutine, until ctx ends.
func (x *env) waitFor(ctx context.Context, m *holdfast.Mutex) <-chan error {
	x.Helper()
	l, err := m.Lock(x.ctx)
	x.ok(err, "Lock")
	over := make(chan error, 1)
	go func() {
		l, err := m.Cond(m.Name()).Wait(ctx, l)
		if err == nil {
			err = l.Unlock()
		}
		over <- err
	}()
	return over
}

func testElection(x *env) {
	clients, name := x.clients(3), x.name()
	var leading, terms atomic.Int64
	last := int64(0) // guarded by leadership
	each(clients, 1, func(c *holdfast.Client) {
		for range 3 {
			t, err := c.Election(name).Campaign(x.ctx, []byte("me"))
			if err != nil {
				x.Errorf("Campaign: %v", err)
				return
			}
			if leading.Add(1) != 1 {
				x.Errorf("two leaders")
			}
			if t.Fence() <= last {
				x.Errorf("term %d after %d", t.Fence(), last)
			}
			last = t.Fence()
			terms.Add(1)
			leading.Add(-1)
			x.check(t.Resign())
			x.fails(t.Announce(x.ctx, nil), holdfast.ErrNotHeld, "Announce after the term")
		}
	})
	if terms.Load() != 9 {
		x.Errorf("%d terms of 9", terms.Load())
	}
	if l, err := clients[0].Election(name).Leader(x.ctx); l.Fence != 0 || err != nil {
		x.Errorf("after all terms the leader is %+v, %v", l, err)
	}
}

func testElectionObserved(x *env) {
	clients, name := x.clients(3), x.name()
	seen := make(chan holdfast.Leader, 100)
	ctx, cancel := context.WithCancel(x.ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for l, err := range clients[2].Election(name).Observe(ctx) {
			if err == nil {
				seen <- l
			}
		}
	}()
	defer func() { cancel(); <-over }()
	sees := func(value string, fence int64) {
		x.Helper()
		for {
			select {
			case l := <-seen:
				if string(l.Value) == value && l.Fence == fence {
					return
				}
			case <-x.ctx.Done():
				x.Fatalf("nobody saw %q lead with fence %d", value, fence)
			}
		}
	}
	sees("", 0)
	one, err := clients[0].Election(name, holdfast.WithTTL(x.TTL)).Campaign(x.ctx, []byte("one"))
	x.ok(err, "Campaign")
	sees("one", one.Fence())
	x.ok(one.Announce(x.ctx, []byte("one more")), "Announce")
	sees("one more", one.Fence())
	time.Sleep(2 * x.TTL) // a leader that lives is seen for longer than its TTL
	if l, err := clients[1].Election(name).Leader(x.ctx); l.Fence != one.Fence() || err != nil {
		x.Errorf("the leader is %+v, %v: want fence %d", l, err, one.Fence())
	}
	x.ok(one.Resign(), "Resign")
	sees("", 0)
	two, err := clients[1].Election(name).Campaign(x.ctx, []byte("two"))
	x.ok(err, "Campaign")
	sees("two", two.Fence())
	x.ok(two.Resign(), "Resign")
}

// ownership is who works on what, as the work itself sees it.
type ownership struct {
	mu     sync.Mutex
	owner  map[int]string
	fences map[int]int64
	wrong  []string
}

func (o *ownership) work(member string) func(context.Context, *holdfast.Partition) error {
	return func(ctx context.Context, p *holdfast.Partition) error {
		o.mu.Lock()
		if was := o.owner[p.Number]; was != "" {
			o.wrong = append(o.wrong, fmt.Sprintf("%s and %s own partition %d", was, member, p.Number))
		}
		if p.Fence() <= o.fences[p.Number] {
			o.wrong = append(o.wrong, fmt.Sprintf("partition %d has fence %d after %d", p.Number, p.Fence(), o.fences[p.Number]))
		}
		o.owner[p.Number], o.fences[p.Number] = member, p.Fence()
		o.mu.Unlock()
		select {
		case <-p.Draining():
		case <-ctx.Done():
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.owner, p.Number)
		return nil
	}
}

// even reports whether everything is owned, by n members evenly.
func (o *ownership) even(partitions, n int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	loads := map[string]int{}
	for _, m := range o.owner {
		loads[m]++
	}
	low, high := partitions, 0
	for _, k := range loads {
		low, high = min(low, k), max(high, k)
	}
	return len(o.owner) == partitions && len(loads) == n && high-low <= 1
}

func testAssignment(x *env) {
	clients, group := x.clients(3), x.name()
	const partitions = 10
	o := &ownership{owner: map[int]string{}, fences: map[int]int64{}}
	run := func(i int) (stop func()) {
		ctx, cancel := context.WithCancel(x.ctx)
		over := make(chan error, 1)
		name := fmt.Sprint("member-", i)
		a := clients[i].Assignment(group, holdfast.AssignmentConfig{Partitions: partitions, Member: name, TTL: max(x.TTL, time.Second)})
		go func() { over <- a.Run(ctx, o.work(name)) }()
		return func() {
			x.Helper()
			cancel()
			x.fails(<-over, context.Canceled, "Run")
		}
	}
	stop0, stop1 := run(0), run(1)
	x.eventually(func() bool { return o.even(partitions, 2) }, "two members share evenly")
	stop2 := run(2)
	x.eventually(func() bool { return o.even(partitions, 3) }, "three members share evenly")
	stop0()
	x.eventually(func() bool { return o.even(partitions, 2) }, "those who are left share evenly")
	stop1()
	stop2()
	if len(o.owner) != 0 || len(o.wrong) != 0 {
		x.Errorf("owned when all have left: %v; %v", o.owner, o.wrong)
	}
}
