package coordtest

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast"
)

func testOnce(x *env) {
	clients, name := x.clients(3), x.name()
	var made, built atomic.Int64
	failure := errors.New("the first one fails")
	var ones []*holdfast.Once[int64]
	for _, c := range clients {
		ones = append(ones, holdfast.NewOnce(c, name,
			func(context.Context) (int64, bool, error) { n := made.Load(); return n, n != 0, nil },
			func(ctx context.Context, l *holdfast.Lease) (int64, error) {
				if built.Add(1) == 1 {
					return 0, failure
				}
				made.Store(l.Fence())
				return l.Fence(), nil
			}))
	}
	var failed atomic.Int64
	done := make(chan struct{})
	for i := range 12 {
		go func() {
			defer func() { done <- struct{}{} }()
			n, err := ones[i%3].Get(x.ctx)
			switch {
			case errors.Is(err, failure):
				failed.Add(1)
			case err != nil || n != made.Load():
				x.Errorf("Get: %d, %v", n, err)
			}
		}()
	}
	for range 12 {
		<-done
	}
	if built.Load() != 2 || failed.Load() != 1 {
		x.Errorf("it was built %d times, and %d callers were told of the failure: want 2 and 1", built.Load(), failed.Load())
	}
}

// increment adds one to the number in an item.
func increment(v holdfast.ItemValue) []byte {
	n, _ := strconv.Atoi(string(v.Data))
	return strconv.AppendInt(nil, int64(n+1), 10)
}

func testItemVersions(x *env) {
	clients, name := x.clients(3), x.name()
	each(clients, 2, func(c *holdfast.Client) {
		item := c.Item(name)
		for range 5 {
			v, err := item.Get(x.ctx)
			for err == nil {
				if v, err = item.CompareAndSet(x.ctx, v.Version, increment(v), 0); err == nil {
					break
				}
				if errors.Is(err, holdfast.ErrStale) {
					err = nil
				}
			}
			if err != nil {
				x.Errorf("increment: %v", err)
			}
		}
	})
	item := clients[0].Item(name)
	v, err := item.Get(x.ctx)
	if err != nil || string(v.Data) != "30" {
		x.Errorf("30 increments made %q, %v", v.Data, err)
	}
	_, err = item.CompareAndSet(x.ctx, 0, nil, 0)
	x.fails(err, holdfast.ErrStale, "CompareAndSet of version 0")
	x.fails(item.CompareAndDelete(x.ctx, v.Version-1), holdfast.ErrStale, "CompareAndDelete of another version")
	x.ok(item.CompareAndDelete(x.ctx, v.Version), "CompareAndDelete")
	if v, err := clients[1].Item(name).Get(x.ctx); v.Version != 0 || err != nil {
		x.Errorf("after a deletion: %+v, %v", v, err)
	}
	_, err = item.Set(x.ctx, make([]byte, holdfast.MaxItem+1), 0)
	x.fails(err, holdfast.ErrInvalid, "Set of too much")
}

func testItemLock(x *env) {
	clients, name := x.clients(3), x.name()
	each(clients, 2, func(c *holdfast.Client) {
		for range 5 {
			l, err := c.Item(name).GetAndLock(x.ctx)
			if err == nil {
				err = l.UpdateAndUnlock(x.ctx, increment(l.ItemValue), 0)
			}
			if err != nil {
				x.Errorf("increment under the lock: %v", err)
			}
		}
	})
	l, err := clients[0].Item(name).GetAndLock(x.ctx)
	x.ok(err, "GetAndLock")
	if string(l.Data) != "30" {
		x.Errorf("30 increments made %q", l.Data)
	}
	x.ok(l.Update(x.ctx, []byte("a"), 0), "Update")
	if _, err := clients[1].Item(name).Set(x.ctx, []byte("b"), 0); err != nil {
		x.Fatalf("Set beside the lock: %v", err)
	}
	x.fails(l.UpdateAndUnlock(x.ctx, []byte("c"), 0), holdfast.ErrStale, "Update of what changed")
	x.ok(l.Unlock(), "Unlock")
	x.fails(l.Update(x.ctx, []byte("d"), 0), holdfast.ErrNotHeld, "Update after Unlock")
	x.fails(l.Unlock(), holdfast.ErrNotHeld, "Unlock twice")
	if v, err := clients[2].Item(name).Get(x.ctx); string(v.Data) != "b" || err != nil {
		x.Errorf("stored is %q, %v", v.Data, err)
	}
	x.ok(clients[0].Item(name).Delete(x.ctx), "Delete")
}

func testItemExpiry(x *env) {
	clients, name := x.clients(2), x.name()
	v, err := clients[0].Item(name).Set(x.ctx, []byte("x"), x.TTL)
	x.ok(err, "Set")
	if v.TTL <= 0 || v.TTL > x.TTL {
		x.Errorf("the item lives for %v", v.TTL)
	}
	x.eventually(func() bool { v, err := clients[1].Item(name).Get(x.ctx); return err == nil && v.Version == 0 }, "the item expires")
	_, err = clients[0].Item(name).CompareAndSet(x.ctx, v.Version, nil, 0)
	x.fails(err, holdfast.ErrStale, "CompareAndSet of what expired")
	next, err := clients[0].Item(name).CompareAndSet(x.ctx, 0, nil, time.Hour)
	x.ok(err, "CompareAndSet")
	if next.Version <= v.Version {
		x.Errorf("version %d follows %d", next.Version, v.Version)
	}
	x.ok(clients[0].Item(name).Delete(x.ctx), "Delete")
}
