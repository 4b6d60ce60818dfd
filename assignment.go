package holdfast

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// MaxPartitions is the most partitions that an [Assignment] has.
const MaxPartitions = 4096

// AssignmentConfig configures an [Assignment]. Partitions is required, and the same for all
// members; every other field that is zero has the default that its comment names.
type AssignmentConfig struct {
	// Partitions is how many there are: numbers 0 to Partitions-1. Range: 1 to MaxPartitions.
	Partitions int

	// Member is the name that others see, and different for every member. Default: the
	// client's owner label and random characters. At most MaxOwner bytes, no control characters.
	Member string

	// Weight is this member's share beside the others'. Default: 1. Range: 1 to 1000.
	Weight int

	// Priority: only members of the highest priority that is present get partitions; the
	// others stand by. Default: 0. Range: -1000 to 1000.
	Priority int

	// TTL is after how long this member, should it die, loses its place, and its partitions go
	// to others. Default: Config.TTL. Range: the engine's.
	TTL time.Duration

	// Drain is how long work may go on after it was told to stop before its context ends.
	// Default: the TTL. Negative: the context ends at once.
	Drain time.Duration

	_ struct{}
}

func (cfg AssignmentConfig) withDefaults(c *Client) AssignmentConfig {
	if cfg.Member == "" {
		cfg.Member = c.cfg.Owner[:min(len(c.cfg.Owner), MaxOwner-10)] + "/" + rand.Text()[:8]
	}
	if cfg.Weight == 0 {
		cfg.Weight = 1
	}
	if cfg.TTL == 0 {
		cfg.TTL = c.cfg.TTL
	}
	if cfg.Drain == 0 {
		cfg.Drain = cfg.TTL
	}
	return cfg
}

func (cfg AssignmentConfig) validate(caps driver.Capabilities) error {
	var v violations
	v.add(cfg.Partitions < 1 || cfg.Partitions > MaxPartitions, "Partitions is %d: it must be 1 to %d", cfg.Partitions, MaxPartitions)
	v.check(checkOwner(cfg.Member))
	v.add(cfg.Weight < 1 || cfg.Weight > 1000, "Weight is %d: it must be 1 to 1000", cfg.Weight)
	v.add(cfg.Priority < -1000 || cfg.Priority > 1000, "Priority is %d: it must be -1000 to 1000", cfg.Priority)
	v.check(checkTTL(cfg.TTL, caps))
	return v.join()
}

// Assignment spreads partitions of some work evenly over the members of a group that are
// alive: every member has its share by weight, rounded up or down, and when one joins or
// leaves no more partitions move than that takes.
//
// Each partition has a lock, and its work runs under that lock: however often plans change, a
// new owner begins only after the old one has stopped, or has lost the lock, and what is
// said of leases holds: who was paused past the end of its lease may act once more, and only
// a check of [Partition.Fence] at the resource keeps that out.
//
// One of the members, elected among them, makes the plan. It is a handle for one member: call
// Run once at a time. Members and plan are kept in a value each, of 64 KiB, which is room for a few
// hundred members.
type Assignment struct {
	client *Client
	group  string // under which everything is kept
	cfg    AssignmentConfig
	err    error
}

// Assignment returns the handle of a member of that group. Locks of the group have names that
// begin with "assignment:" and the group's.
func (c *Client) Assignment(group string, cfg AssignmentConfig) *Assignment {
	a := &Assignment{client: c, group: "assignment:" + group, cfg: cfg.withDefaults(c)}
	err := errors.Join(checkPrefixed(group, a.lockName(MaxPartitions)), a.cfg.validate(c.caps))
	if err != nil {
		a.err = c.fail("assignment", group, ErrInvalid, err)
	}
	return a
}

func (a *Assignment) lockName(partition int) string { return fmt.Sprintf("%s:%d", a.group, partition) }

// Partition is one that this member has.
type Partition struct {
	Number int

	fence    int64
	draining chan struct{}
}

// Fence is larger than that of every earlier owner.
func (p *Partition) Fence() int64 { return p.fence }

// Draining is closed when the partition is to go to another member, or Run to end: finish
// what is under way and return. The context of the work ends AssignmentConfig.Drain later.
func (p *Partition) Draining() <-chan struct{} { return p.draining }

// Run joins the group and runs work for every partition that this member has, each in a
// goroutine of its own, until ctx ends. Then it leaves the group, and returns once all work
// has. work's context ends with the lock, with cause ErrLost when that was lost, or a while
// after the partition is Draining. Unless the lock was lost, the partition goes to nobody else
// before work has returned. Work that returns earlier is begun again after a pause of a second;
// what it returns goes to Config.Logger.
//
// Run returns an error that matches ctx's when it ended because of that, ErrClosed when the
// client was closed, and ErrInvalid or ErrUnsupported when it cannot begin. While the engine
// does not answer it goes on trying.
func (a *Assignment) Run(ctx context.Context, work func(ctx context.Context, p *Partition) error) error {
	if a.err != nil {
		return a.err
	}
	m := &member{Assignment: a, work: work, parts: make(map[int]*part), ended: make(chan int)}
	if err := m.join(ctx); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { m.heartbeat(inner) })
	all.Go(func() { m.coordinate(inner) })
	err := m.follow(inner)
	cancel()
	all.Wait()
	m.leave() // others are given the partitions now, and wait for their locks
	m.drain()
	return err
}

// part is a partition in a member's hands: waited for, owned, or draining.
type part struct {
	Partition
	stopped bool
}

// stop has the work drain. It is called by one goroutine.
func (p *part) stop() {
	if !p.stopped {
		p.stopped = true
		close(p.draining)
	}
}

// serve runs the work of a partition whenever its lock is held, until it is to stop.
func (m *member) serve(p *part) {
	wait, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-p.draining:
			cancel()
		case <-wait.Done():
		}
	}()
	lock := m.client.Mutex(m.lockName(p.Number), WithTTL(m.cfg.TTL))
	for wait.Err() == nil {
		lease, err := lock.Lock(wait)
		if err == nil {
			err = m.own(p, lease)
		}
		if wait.Err() == nil {
			m.report("partition", p.Number, err)
			sleep(wait, time.Second)
		}
	}
}

// own runs the work once. Its context ends with the lease, or Drain after the partition was
// to stop.
func (m *member) own(p *part, lease *Lease) error {
	ctx, cancel := context.WithCancel(lease.Context())
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.draining:
			sleep(ctx, m.cfg.Drain)
			cancel()
		case <-over:
		}
	})
	defer func() {
		close(over)
		cancel()
		watch.Wait()
		lease.Unlock() // where it cannot be given back it runs out
	}()
	part := p.Partition
	part.fence = lease.Fence()
	return m.work(ctx, &part)
}

// report tells the log what went wrong and is tried again.
func (m *member) report(what string, number int, err error) {
	if m.client.cfg.Logger != nil && err != nil {
		m.client.cfg.Logger.Warn("assignment", "group", m.group, what, number, "engine", m.client.caps.Engine, "cause", err)
	}
}
