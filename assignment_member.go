package holdfast

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/placement"
)

// member is one call of Assignment.Run. Two values are kept for a group: the roster, in which
// every member says from time to time that it is alive, and the plan, which one of them
// makes from it.
type member struct {
	*Assignment
	work  func(context.Context, *Partition) error
	parts map[int]*part // by follow and drain only
	ended chan int      // a partition whose serve has returned
}

// seat is a member's line in the roster.
type seat struct {
	Weight   int   `json:"weight"`
	Priority int   `json:"priority,omitempty"`
	Seen     int64 `json:"seen"` // in ms since 1970, by the engine's clock
	TTL      int64 `json:"ttl"`  // in ms: for how long that counts
}

type roster map[string]seat

// plan says who is to have each partition: by their places in Members, -1 for nobody.
type plan struct {
	Members []string `json:"members"`
	Owners  []int    `json:"owners"`
}

func (m *member) rosterName() string { return m.group + ":members" }
func (m *member) planName() string   { return m.group + ":plan" }

// every is how often a member says that it is alive: two of them may fail.
func (m *member) every() time.Duration { return m.cfg.TTL / 3 }

// changeRoster writes the roster with this member's seat set, or without it, and without
// those of members that died.
func (m *member) changeRoster(ctx context.Context, present bool) error {
	_, err := m.client.changeValue(ctx, "join", m.rosterName(), func(v driver.Value) *driver.Write {
		all := m.alive(v)
		delete(all, m.cfg.Member)
		if present {
			all[m.cfg.Member] = seat{m.cfg.Weight, m.cfg.Priority, v.Now.UnixMilli(), max(1, m.cfg.TTL.Milliseconds())}
		}
		if len(all) == 0 {
			return &driver.Write{Delete: true}
		}
		longest := int64(0)
		for _, s := range all {
			longest = max(longest, s.TTL)
		}
		data, _ := json.Marshal(all)
		return &driver.Write{Data: data, TTL: 2 * time.Duration(longest) * time.Millisecond}
	})
	return err
}

// alive reads a roster. One that cannot be read is as good as none: it is written anew. Each
// member's seat counts for that member's TTL. One that was seen in the future, because the
// clock was set back since, was seen now: it runs out once somebody has written that down.
func (m *member) alive(v driver.Value) roster {
	all := roster{}
	if json.Unmarshal(v.Data, &all) != nil || all == nil {
		all = roster{}
	}
	now := v.Now.UnixMilli()
	for id, s := range all {
		s.Seen = min(s.Seen, now)
		if all[id] = s; now-s.Seen > s.TTL {
			delete(all, id)
		}
	}
	return all
}

// join takes a seat, as soon as the engine answers.
func (m *member) join(ctx context.Context) error {
	err := m.changeRoster(ctx, true)
	for errors.Is(err, ErrUnavailable) && sleep(ctx, time.Second) == nil {
		m.report("member", 0, err)
		err = m.changeRoster(ctx, true)
	}
	if err != nil && ctx.Err() != nil {
		err = m.client.fail("run", m.group, nil, ctx.Err())
	}
	return err
}

func (m *member) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), m.client.cfg.ReleaseTimeout)
	defer cancel()
	m.changeRoster(ctx, false) // where this fails the seat runs out
}

func (m *member) heartbeat(ctx context.Context) {
	for sleep(ctx, m.every()) == nil {
		attempt, cancel := context.WithTimeout(ctx, m.every())
		m.report("member", 0, m.changeRoster(attempt, true))
		cancel()
	}
}

// coordinate makes the plans while this member is the one who does.
func (m *member) coordinate(ctx context.Context) {
	lock := m.client.Mutex(m.group+":planner", WithTTL(m.cfg.TTL))
	for ctx.Err() == nil {
		err := lock.Do(ctx, func(ctx context.Context, l *Lease) error {
			for {
				seen, err := m.makePlan(ctx, l)
				if err != nil {
					return err
				}
				// Until somebody joins, leaves or says that they are alive, or should have.
				wait, cancel := context.WithTimeout(ctx, m.every())
				_, err = m.client.awaitValue(wait, "plan", m.rosterName(), seen)
				silent := wait.Err() != nil && ctx.Err() == nil
				cancel()
				if err != nil && !silent {
					return err
				}
			}
		})
		if ctx.Err() == nil {
			m.report("planner", 0, err)
			sleep(ctx, m.every())
		}
	}
}

// makePlan writes a new plan where the roster asks for one, and returns the version of the
// roster that it has seen. A planner that was paused past its lease writes under a fence that
// a later one's plan has raised, so its plan is refused.
func (m *member) makePlan(ctx context.Context, l *Lease) (int64, error) {
	v, err := m.client.readValue(ctx, "plan", m.rosterName())
	if err != nil {
		return 0, err
	}
	var present []placement.Member
	for id, s := range m.alive(v) {
		present = append(present, placement.Member{ID: id, Weight: s.Weight, Priority: s.Priority})
	}
	old, err := m.client.readValue(ctx, "plan", m.planName())
	if err != nil {
		return 0, err
	}
	was := readPlan(old)
	is := placement.Plan(m.cfg.Partitions, was, present)
	if slices.Equal(was, is) {
		return v.Version, nil
	}
	_, err = m.client.writeValue(ctx, "plan", driver.Write{
		Name: m.planName(), Data: writePlan(is), If: old.Version, Fence: l.Fence(),
	})
	return v.Version, err
}

// readPlan returns who is to have each partition, "" for nobody.
func readPlan(v driver.Value) []string {
	var p plan
	if json.Unmarshal(v.Data, &p) != nil {
		return nil
	}
	owners := make([]string, len(p.Owners))
	for i, k := range p.Owners {
		if k >= 0 && k < len(p.Members) {
			owners[i] = p.Members[k]
		}
	}
	return owners
}

func writePlan(owners []string) []byte {
	p := plan{Owners: make([]int, len(owners))}
	for i, id := range owners {
		k := slices.Index(p.Members, id)
		switch {
		case id == "":
			k = -1
		case k < 0:
			k = len(p.Members)
			p.Members = append(p.Members, id)
		}
		p.Owners[i] = k
	}
	data, _ := json.Marshal(p)
	return data
}

// follow begins and ends the work of partitions as the plan says, until ctx ends. A plan that
// is out of date does no harm: the locks decide.
func (m *member) follow(ctx context.Context) error {
	plans := make(chan driver.Value)
	failed := make(chan error, 1)
	go func() { failed <- m.watchPlan(ctx, plans) }()
	var mine []bool
	for {
		select {
		case v := <-plans:
			owners := readPlan(v)
			mine = make([]bool, m.cfg.Partitions)
			for p := range min(len(owners), len(mine)) {
				mine[p] = owners[p] == m.cfg.Member
			}
		case p := <-m.ended:
			delete(m.parts, p)
		case err := <-failed:
			return err
		}
		m.reconcile(mine)
	}
}

// watchPlan sends every plan, until ctx ends or the client is closed.
func (m *member) watchPlan(ctx context.Context, plans chan<- driver.Value) error {
	v, err := m.client.readValue(ctx, "follow", m.planName())
	for {
		switch {
		case ctx.Err() != nil:
			return m.client.fail("run", m.group, nil, ctx.Err())
		case errors.Is(err, ErrClosed), errors.Is(err, ErrUnsupported):
			return err
		case err != nil:
			m.report("member", 0, err)
			sleep(ctx, time.Second)
			v, err = m.client.readValue(ctx, "follow", m.planName())
			continue
		}
		select {
		case plans <- v:
		case <-ctx.Done():
			continue
		}
		v, err = m.client.awaitValue(ctx, "follow", m.planName(), v.Version)
	}
}

// reconcile begins what is mine and ends what is not. What is still ending begins again once
// it has ended.
func (m *member) reconcile(mine []bool) {
	for number, want := range mine {
		p := m.parts[number]
		switch {
		case want && p == nil:
			p = &part{Partition: Partition{Number: number, draining: make(chan struct{})}}
			m.parts[number] = p
			go func() {
				m.serve(p)
				m.ended <- number
			}()
		case !want && p != nil:
			p.stop()
		}
	}
}

// drain ends all work and waits for it.
func (m *member) drain() {
	for _, p := range m.parts {
		p.stop()
	}
	for len(m.parts) > 0 {
		delete(m.parts, <-m.ended)
	}
}
