package redislock

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
	"github.com/redis/go-redis/v9"
)

// Inspect implements driver.Inspector.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	key, err := e.keyOf(name)
	if err != nil {
		return driver.Info{}, err
	}
	infos, err := e.look(ctx, []string{key})
	if err != nil {
		return driver.Info{}, err
	}
	if infos[0].Waiters < 0 {
		return driver.Info{}, e.refused("WRONGTYPE it holds a " + infos[0].Name)
	}
	infos[0].Name = name
	return infos[0], nil
}

// look describes keys that are all in one slot, or on a server on its own. A key of another
// type has -1 waiters and the type as its name.
func (e *Engine) look(ctx context.Context, keys []string) ([]driver.Info, error) {
	var reply []any
	err := e.await(ctx, func() error {
		r, err := e.query(ctx, keys)
		reply = r
		return err
	})
	if err != nil {
		return nil, e.classify(err)
	}
	if len(reply) != len(keys) {
		return nil, e.classify(errGarbled)
	}
	infos := make([]driver.Info, len(keys))
	for i, r := range reply {
		fields, _ := r.([]any)
		infos[i] = e.describe(keys[i], fields)
	}
	return infos, nil
}

// query runs the script that describes keys, at the node that has them.
func (e *Engine) query(ctx context.Context, keys []string) ([]any, error) {
	slot := e.slotOf(keys[0])
	for try := 1; ; try++ {
		if e.cluster != nil && !e.mapped.Load() {
			if err := e.remap(); err != nil {
				return nil, err
			}
		}
		c, err := e.nodeOf(slot)
		if err == nil {
			err = c.greet()
		}
		if err != nil {
			e.suspect(err)
			return nil, err
		}
		tag := ""
		if c.slotted {
			tag = tags()[slot]
		}
		reply, err := inspectScript().Run(ctx, c.node, keys, tag).Slice()
		if err == nil || e.cluster == nil || try > maxMoves || ctx.Err() != nil {
			return reply, err
		}
		// While keys of the slot are under way the script may not find its companions.
		again, elsewhere := astray(err)
		if !again && !strings.Contains(err.Error(), "non local key") {
			e.suspect(err)
			return nil, err
		}
		if elsewhere {
			_ = e.remap()
		}
		time.Sleep(time.Duration(try) * 20 * time.Millisecond)
	}
}

// describe turns what lua/inspect.lua says of one key into the driver's terms.
func (e *Engine) describe(key string, fields []any) driver.Info {
	info := driver.Info{Name: strings.TrimPrefix(key, e.cfg.Prefix), Holders: []driver.Holder{}}
	if len(fields) == 1 {
		info.Name, _ = fields[0].(string)
		info.Waiters = -1
	}
	if len(fields) < 3 {
		return info
	}
	info.Waiters, info.Limit = number(fields[1]), number(fields[2])
	for i := 3; i+1 < len(fields); i += 2 {
		line, _ := fields[i].(string)
		if h := e.holder(line, int64(number(fields[i+1]))); h != nil {
			info.Holders = append(info.Holders, *h)
			info.Fence = max(info.Fence, h.Fence)
		}
	}
	return info
}

func number(v any) int {
	n, _ := v.(int64)
	return int(n)
}

// scanCount is how many keys a step of a scan looks at.
const scanCount = 1000

// List implements driver.Inspector. It scans the whole keyspace, in steps that do not hold up
// others. With raw keys it shows the locks of holdfast only: others look like data.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.leave()
	var infos []driver.Info
	err := e.masters(ctx, func(node *redis.Client) error {
		found, err := e.scan(ctx, node, prefix)
		infos = append(infos, found...)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(infos, func(a, b driver.Info) int { return strings.Compare(a.Name, b.Name) })
	infos = slices.CompactFunc(infos, func(a, b driver.Info) bool { return a.Name == b.Name })
	return infos[:min(limit, len(infos))], nil
}

// masters calls f for each master, one after the other.
func (e *Engine) masters(ctx context.Context, f func(*redis.Client) error) error {
	if e.cluster == nil {
		return f(e.only.node)
	}
	var all []*redis.Client
	err := e.await(ctx, func() error {
		var mu sync.Mutex
		return e.cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, node)
			return nil
		})
	})
	if err != nil {
		return e.classify(err)
	}
	for _, node := range all {
		if err := f(node); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) scan(ctx context.Context, node *redis.Client, prefix string) ([]driver.Info, error) {
	var infos []driver.Info
	cursor := uint64(0)
	for {
		keys, next, err := node.ScanType(ctx, cursor, glob(e.cfg.Prefix+prefix)+"*", scanCount, "string").Result()
		if err != nil {
			return nil, e.classify(err)
		}
		keys = slices.DeleteFunc(keys, func(key string) bool {
			return strings.HasPrefix(key, companions) ||
				driver.CheckName(strings.TrimPrefix(key, e.cfg.Prefix)) != nil
		})
		for _, group := range e.together(keys) {
			found, err := e.look(ctx, group)
			if err != nil {
				return nil, err
			}
			infos = append(infos, slices.DeleteFunc(found, e.unlisted)...)
		}
		if cursor = next; cursor == 0 {
			return infos, nil
		}
	}
}

// unlisted reports whether a key that was found is not to be listed.
func (e *Engine) unlisted(info driver.Info) bool {
	foreign := e.cfg.RawKeys && len(info.Holders) > 0 && info.Fence == 0
	return len(info.Holders) == 0 || foreign
}

// together splits keys into groups that one script call may name.
func (e *Engine) together(keys []string) [][]string {
	if e.cluster == nil {
		return slices.Collect(slices.Chunk(keys, maxBatch))
	}
	bySlot := make(map[int][]string)
	for _, key := range keys {
		bySlot[slotOf(key)] = append(bySlot[slotOf(key)], key)
	}
	var groups [][]string
	for _, g := range bySlot {
		groups = append(groups, g)
	}
	return groups
}

// glob escapes what has a meaning in a pattern of SCAN.
func glob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}

// Break implements driver.Inspector. What was broken is recorded in the list
// "holdfast.audit", newest first, of which the last thousand entries are kept for 90 days.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	key, err := e.keyOf(req.Name)
	if err != nil {
		return driver.Info{}, err
	}
	before, err := e.Inspect(ctx, req.Name)
	if err != nil {
		return driver.Info{}, err
	}
	r := newRequest(key, "b"+formatInt(req.Fence), record(req), 0)
	e.do(r)
	if err := r.await(ctx, 0); err != nil {
		return driver.Info{}, err
	}
	word, payload, err := r.word, r.payload, r.err
	r.free()
	if err != nil {
		return driver.Info{}, err
	}
	info := driver.Info{Name: req.Name, Limit: before.Limit, Waiters: before.Waiters, Holders: []driver.Holder{}}
	switch ans := protocol.Parse(word, 1); ans.Kind {
	case protocol.Broken, protocol.Stale:
		for line := range strings.SplitSeq(payload, "\n") {
			if h := e.holder(line, -1); h != nil {
				info.Holders = append(info.Holders, *h)
				info.Fence = max(info.Fence, h.Fence)
			}
		}
		if ans.Kind == protocol.Stale {
			return info, driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
		}
		return info, nil
	case protocol.Nothing:
		return info, driver.Fail(driver.NotHeld, nil)
	default:
		return info, e.explain(ans, payload)
	}
}

// record is the entry of the audit list, behind the server's time.
func record(req driver.BreakRequest) string {
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, s[:min(len(s), 512)])
	}
	return "name=" + clean(req.Name) + " fence=" + formatInt(req.Fence) + " by=" + clean(req.By) +
		" reason=" + clean(req.Reason) + " at=" + time.Now().UTC().Format(time.RFC3339)
}
