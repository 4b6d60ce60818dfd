package etcdlock

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Inspect implements driver.Inspector.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	entries, err := e.read(ctx, name)
	if err != nil {
		return driver.Info{}, e.refusal(ctx, err)
	}
	return e.describe(ctx, name, entries, map[clientv3.LeaseID]time.Time{}), nil
}

// read reads the keys of a name.
func (e *Engine) read(ctx context.Context, name string) ([]entry, error) {
	bounded, cancel := e.bound(ctx)
	defer cancel()
	k := keys{all: e.cfg.keysOf(name)}
	resp, err := e.client.Do(bounded, k.readAll())
	if err != nil {
		return nil, err
	}
	return parseAll(resp.Get().Kvs), nil
}

// describe says who holds a name and who waits. ends are the leases that were asked for their
// ends already.
func (e *Engine) describe(ctx context.Context, name string, entries []entry, ends map[clientv3.LeaseID]time.Time) driver.Info {
	info := driver.Info{Name: name, Holders: []driver.Holder{}}
	holding, waiting := split(entries)
	info.Waiters = len(waiting)
	for i := range holding {
		h := *holding[i].holder()
		h.Until = e.endOf(ctx, holding[i].lease, ends)
		info.Holders = append(info.Holders, h)
		info.Limit = holding[i].Limit
		info.Fence = max(info.Fence, h.Fence)
		if holding[i].Upgrading {
			info.Waiters++
		}
	}
	return info
}

// endOf is when a lease ends unless it is renewed, zero where that cannot be known.
func (e *Engine) endOf(ctx context.Context, id clientv3.LeaseID, ends map[clientv3.LeaseID]time.Time) time.Time {
	if end, ok := ends[id]; ok || id == clientv3.NoLease {
		return end
	}
	bounded, cancel := e.bound(ctx)
	defer cancel()
	var end time.Time
	if resp, err := e.client.TimeToLive(bounded, id); err == nil && resp.TTL > 0 {
		end = time.Now().Add(time.Duration(resp.TTL) * time.Second).Round(0)
	}
	ends[id] = end
	return end
}

// page is how many keys are read at once.
const page = 2000

// List implements driver.Inspector. It reads all keys of the names that it may list, page by
// page. With raw keys it shows those names only that holdfast has keys of: others may be data.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.leave()
	byName, err := e.collect(ctx, e.cfg.Prefix+nameCodec.Replace(prefix))
	if err != nil {
		return nil, e.refusal(ctx, err)
	}
	names := make([]string, 0, len(byName))
	for name, entries := range byName {
		ours := slices.ContainsFunc(entries, func(n entry) bool { return !n.foreign })
		if strings.HasPrefix(name, prefix) && (ours || !e.cfg.RawKeys) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	infos := make([]driver.Info, 0, min(len(names), limit))
	ends := map[clientv3.LeaseID]time.Time{}
	for _, name := range names[:min(len(names), limit)] {
		infos = append(infos, e.describe(ctx, name, sorted(byName[name]), ends))
	}
	return infos, nil
}

// collect reads all keys that begin with start, by name. It leaves out those of values, which
// may be large.
func (e *Engine) collect(ctx context.Context, start string) (map[string][]entry, error) {
	byName := map[string][]entry{}
	from, end := start, clientv3.GetPrefixRangeEnd(start)
	if start == "" {
		from, end = "\x00", "\x00" // all there are
	}
	values := e.cfg.Prefix + valueKeys
	if !strings.HasPrefix(values, start) {
		return byName, e.collectRange(ctx, from, end, byName)
	}
	err := e.collectRange(ctx, from, values, byName)
	if err == nil {
		err = e.collectRange(ctx, clientv3.GetPrefixRangeEnd(values), end, byName)
	}
	return byName, err
}

func (e *Engine) collectRange(ctx context.Context, from, end string, byName map[string][]entry) error {
	for {
		bounded, cancel := e.bound(ctx)
		resp, err := e.client.Get(bounded, from, clientv3.WithRange(end), clientv3.WithLimit(page))
		cancel()
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if name, ok := e.cfg.nameOf(string(kv.Key)); ok {
				byName[name] = append(byName[name], parse(kv))
			}
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
