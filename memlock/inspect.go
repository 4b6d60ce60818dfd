package memlock

import (
	"context"
	"sort"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// Inspect implements driver.Inspector.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	s := e.store
	sh := s.lock(name)
	defer sh.mu.Unlock()
	at := sh.books.Open(name)
	defer sh.close(at)
	b := &at.Value
	return s.info(sh, b, name), nil
}

// info describes the book once everything that ran out is struck from it.
func (s *Store) info(sh *shard, b *book, name string) driver.Info {
	now := s.clock.Now()
	if b.expire(now) {
		s.settle(sh, b, now)
	}
	return b.Info(name, s.until)
}

// List implements driver.Inspector.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	s := e.store
	var infos []driver.Info
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.books.All(func(at *entry) bool {
			if strings.HasPrefix(at.Name, prefix) {
				at.Share()
				if info := s.info(sh, &at.Value, at.Name); len(info.Holders) > 0 {
					infos = append(infos, info)
				}
				sh.close(at)
			}
			return true
		})
		sh.mu.Unlock()
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos[:min(limit, len(infos))], nil
}

// Break implements driver.Inspector.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	s := e.store
	sh := s.lock(req.Name)
	defer sh.mu.Unlock()
	at := sh.books.Open(req.Name)
	defer sh.close(at)
	b := &at.Value
	info := s.info(sh, b, req.Name)
	switch {
	case len(info.Holders) == 0:
		return info, driver.Fail(driver.NotHeld, nil)
	case !b.BrokenBy(req.Fence):
		return info, driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
	}
	b.take()
	s.settle(sh, b, s.clock.Now())
	return info, nil
}
