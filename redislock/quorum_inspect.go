package redislock

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// sighting is what one node says of one key.
type sighting struct {
	left    int64 // ms until the holder's share ends, negative for never
	waiters int
	value   string // empty where the key is free
	odd     string // the type of a key that is no lock
}

// Inspect implements driver.Inspector. A name is held by whom a majority of the nodes says holds
// it; where nobody has a majority it is free, though a minority may still have left-overs that
// run out.
func (q *Quorum) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := q.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer q.leave()
	key, err := q.keyOf(name)
	if err != nil {
		return driver.Info{}, err
	}
	seen := make([]sighting, len(q.nodes))
	results, err := q.askAll(ctx, func(n *node) error {
		all, err := n.look(ctx, []string{key})
		if err == nil {
			seen[n.index] = all[0]
		}
		return err
	})
	if err != nil {
		return driver.Info{}, err
	}
	var some []sighting
	for i, r := range results {
		if r.Status == NodeGranted {
			some = append(some, seen[i])
		}
	}
	for _, s := range some {
		if s.odd != "" {
			return driver.Info{}, q.nodes[0].refused("WRONGTYPE it holds a " + s.odd)
		}
	}
	return q.describe(name, some), nil
}

// describe tells what sightings at a majority of the nodes come to.
func (q *Quorum) describe(name string, seen []sighting) driver.Info {
	info := driver.Info{Name: name, Holders: []driver.Holder{}}
	counts := make(map[string]int)
	var lefts []int64
	var value string
	for _, s := range seen {
		info.Waiters = max(info.Waiters, s.waiters)
		if counts[identity(s.value)]++; s.value != "" && counts[identity(s.value)] >= q.size.Majority() {
			value = s.value
		}
	}
	if value == "" {
		return info
	}
	var holder driver.Holder
	for _, s := range seen {
		if identity(s.value) != identity(value) {
			continue
		}
		lefts = append(lefts, s.left)
		if h := q.nodes[0].holder("x 1 "+s.value, -1); h != nil && (h.Fence >= holder.Fence) {
			holder = *h
		}
	}
	slices.Sort(lefts)
	// It ends when so many have run out that the rest are no majority.
	if left := lefts[len(lefts)-q.size.Majority()]; left >= 0 {
		if h := q.nodes[0].holder("x 1 "+value, left); h != nil {
			holder.Until = h.Until
		}
	}
	info.Holders, info.Fence = append(info.Holders, holder), holder.Fence
	return info
}

// identity is what the values of one holder have in common on all nodes: numbers and times of
// the grant may differ.
func identity(value string) string {
	rest, stamp := cutLast(value)
	id, numbers := cutLast(rest)
	if _, token := cutLast(id); len(token) == tokenSize && strings.Contains(stamp, ".") && numbers != "" {
		return id
	}
	return value
}

// look describes keys at the node.
func (n *node) look(ctx context.Context, keys []string) ([]sighting, error) {
	reply, err := quorumInspectScript().Run(ctx, n.only.node, keys).Slice()
	if err != nil {
		return nil, n.classify(err)
	}
	if len(reply) != len(keys) {
		return nil, n.classify(errGarbled)
	}
	all := make([]sighting, len(keys))
	for i, r := range reply {
		fields, _ := r.([]any)
		switch len(fields) {
		case 1:
			all[i].odd, _ = fields[0].(string)
		case 3:
			all[i].left, all[i].waiters = int64(number(fields[0])), number(fields[1])
			all[i].value, _ = fields[2].(string)
		}
	}
	return all, nil
}

// askAll calls f for every node at once, and returns when all have answered, or a majority has
// and the others have not for a while. The results of those that answered are NodeGranted. What
// f set of others must not be read. The error says that a majority has not answered.
func (q *Quorum) askAll(ctx context.Context, f func(*node) error) ([]NodeResult, error) {
	var mu sync.Mutex
	results := make([]NodeResult, len(q.nodes))
	answers := make(chan struct{}, len(q.nodes))
	for i, n := range q.nodes {
		results[i] = NodeResult{Addr: n.addr}
		n.calls.Go(func() {
			err := f(n)
			mu.Lock()
			if results[i].Status = NodeGranted; err != nil {
				results[i].Status, results[i].Err = NodeFailed, err
			}
			mu.Unlock()
			answers <- struct{}{}
		})
	}
	q.collect(ctx, answers)
	mu.Lock()
	defer mu.Unlock()
	copied, good := slices.Clone(results), 0
	for _, r := range copied {
		if r.Status == NodeGranted {
			good++
		}
	}
	if good >= q.size.Majority() {
		return copied, nil
	}
	e := &QuorumError{Status: QuorumMissing, Nodes: copied, need: q.size.Majority()}
	return copied, driver.Fail(driver.Unavailable, withCause(ctx, e))
}

// collect waits for the answers of all nodes, but not for long for a minority.
func (q *Quorum) collect(ctx context.Context, answers <-chan struct{}) {
	late := time.NewTimer(time.Hour)
	defer late.Stop()
	for n := 1; n <= len(q.nodes); n++ {
		select {
		case <-answers:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
		if n == q.size.Majority() {
			late.Reset(straggle)
		}
	}
}

// List implements driver.Inspector. It scans the keyspace of every node, in steps that do not
// hold up others. With raw keys it shows the locks of holdfast only: others look like data.
func (q *Quorum) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := q.enter(ctx); err != nil {
		return nil, err
	}
	defer q.leave()
	found := make([]map[string]sighting, len(q.nodes))
	results, err := q.askAll(ctx, func(n *node) (err error) {
		found[n.index], err = n.scan(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	byKey := make(map[string][]sighting)
	for i, r := range results {
		if r.Status == NodeGranted {
			for key, s := range found[i] {
				byKey[key] = append(byKey[key], s)
			}
		}
	}
	var infos []driver.Info
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		info := q.describe(strings.TrimPrefix(key, q.cfg.Prefix), byKey[key])
		if !q.nodes[0].unlisted(info) && len(infos) < limit {
			infos = append(infos, info)
		}
	}
	return infos, nil
}

// scan returns what the node has of names that start with prefix.
func (n *node) scan(ctx context.Context, prefix string) (map[string]sighting, error) {
	found := make(map[string]sighting)
	for cursor := uint64(0); ; {
		keys, next, err := n.only.node.ScanType(ctx, cursor, glob(n.cfg.Prefix+prefix)+"*", scanCount, "string").Result()
		if err != nil {
			return nil, n.classify(err)
		}
		keys = slices.DeleteFunc(keys, func(key string) bool {
			return strings.HasPrefix(key, companions) || driver.CheckName(strings.TrimPrefix(key, n.cfg.Prefix)) != nil
		})
		for some := range slices.Chunk(keys, maxBatch) {
			seen, err := n.look(ctx, some)
			if err != nil {
				return nil, err
			}
			for i, s := range seen {
				if s.value != "" {
					found[some[i]] = s
				}
			}
		}
		if cursor = next; cursor == 0 {
			return found, nil
		}
	}
}

// Break implements driver.Inspector. Every node that breaks the lock records that in its list
// "holdfast.audit".
func (q *Quorum) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	info, err := q.Inspect(ctx, req.Name)
	if err != nil {
		return driver.Info{}, err
	}
	if err := q.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer q.leave()
	if len(info.Holders) == 0 {
		return info, driver.Fail(driver.NotHeld, nil)
	}
	return info, q.breakUp(ctx, req, info)
}

// breakUp takes the name from its holder.
func (q *Quorum) breakUp(ctx context.Context, req driver.BreakRequest, info driver.Info) error {
	key, err := q.keyOf(req.Name)
	if err != nil {
		return err
	}
	r := q.newRound(errand{key: key, op: "b" + formatInt(req.Fence), id: record(req)}, never).submit()
	r.await(ctx)
	r.end(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	broken, stale, gone := 0, 0, 0
	for _, a := range r.answers {
		switch a.Kind {
		case protocol.Broken:
			broken++
		case protocol.Stale:
			stale++
		case protocol.Nothing:
			gone++
		}
	}
	switch {
	case broken > 0 && broken+gone >= q.size.Majority():
		return nil
	case stale >= q.size.Blocking():
		return driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
	case gone >= q.size.Majority():
		return driver.Fail(driver.NotHeld, nil)
	}
	e := &QuorumError{Status: QuorumMissing, Nodes: r.results(), need: q.size.Majority()}
	return &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: withCause(ctx, e)}
}
