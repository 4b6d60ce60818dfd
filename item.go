package holdfast

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// MaxItem is the largest data of an [Item], in bytes.
const MaxItem = driver.MaxValue

// Item is a small value that processes share, with a version, and a lock of its own. Who
// changes it seldom compares versions; who wants to be alone while it is changed locks it. It
// is a cheap handle and safe for concurrent use.
//
// CompareAndSet, CompareAndDelete and LockedItem.Update change it only if nobody else did since the
// value was read, under the lock or not: otherwise they fail with ErrStale. Set and Delete do not
// ask. An item is as durable as its engine; see Capabilities.Safety.
type Item struct {
	client *Client
	lock   *Mutex
	name   string
	err    error
}

// Item returns the handle of the item of that name. The options are those of its lock, which
// has the name "item:" followed by the item's.
func (c *Client) Item(name string, opts ...Option) *Item {
	i := &Item{client: c, name: "item:" + name}
	if err := checkPrefixed(name, i.name); err != nil {
		i.err = c.fail("item", name, ErrInvalid, err)
	}
	i.lock = c.Mutex(i.name, opts...)
	if i.err == nil {
		i.err = i.lock.h.err
	}
	return i
}

// ItemValue is what an [Item] holds at one moment.
type ItemValue struct {
	Data []byte
	// Version is that of the last change, 0 where nothing is stored.
	Version int64
	// TTL is how long it is kept from the moment of reading, 0 where for ever.
	TTL time.Duration
}

func itemValue(v driver.Value) ItemValue { return ItemValue{v.Data, v.Version, v.TTL} }

// Get returns what is stored. A Version of 0 says that nothing is.
func (i *Item) Get(ctx context.Context) (ItemValue, error) {
	if i.err != nil {
		return ItemValue{}, i.err
	}
	v, err := i.client.readValue(ctx, "get", i.name)
	return itemValue(v), err
}

// CompareAndSet stores data, at most MaxItem bytes, for ttl (0: for ever) if the item still
// has that version, 0 for one that is not stored. Otherwise it fails with ErrStale and returns what is stored
// instead. After an error with Unknown outcome it may be stored.
func (i *Item) CompareAndSet(ctx context.Context, version int64, data []byte, ttl time.Duration) (ItemValue, error) {
	return i.compare(ctx, "compareandset", driver.Write{Data: data, TTL: ttl, If: version})
}

// CompareAndDelete removes the item if it still has that version. It fails as CompareAndSet does.
func (i *Item) CompareAndDelete(ctx context.Context, version int64) error {
	_, err := i.compare(ctx, "compareanddelete", driver.Write{Delete: true, If: version})
	return err
}

// compare writes if the item has a certain version. The engine's word for any version is none.
func (i *Item) compare(ctx context.Context, op string, w driver.Write) (ItemValue, error) {
	if i.err == nil && w.If == driver.AnyVersion {
		return ItemValue{}, i.client.fail(op, i.name, ErrInvalid, fmt.Errorf("version is %d: it must be 0 (nothing stored) or one that was read", w.If))
	}
	return i.write(ctx, op, w)
}

// Set stores data for ttl (0: for ever), whatever is there and whoever holds its lock.
func (i *Item) Set(ctx context.Context, data []byte, ttl time.Duration) (ItemValue, error) {
	return i.write(ctx, "set", driver.Write{Data: data, TTL: ttl, If: driver.AnyVersion})
}

// Delete removes the item, whoever holds its lock.
func (i *Item) Delete(ctx context.Context) error {
	_, err := i.write(ctx, "delete", driver.Write{Delete: true, If: driver.AnyVersion})
	return err
}

func (i *Item) write(ctx context.Context, op string, w driver.Write) (ItemValue, error) {
	if i.err != nil {
		return ItemValue{}, i.err
	}
	w.Name = i.name
	v, err := i.client.writeValue(ctx, op, w)
	return itemValue(v), err
}

// GetAndLock waits for the item's lock and returns the item as it is from then on, until
// another process changes it without the lock.
func (i *Item) GetAndLock(ctx context.Context) (*LockedItem, error) {
	if i.err != nil {
		return nil, i.err
	}
	lease, err := i.lock.Lock(ctx)
	if err != nil {
		return nil, err
	}
	v, err := i.client.readValue(ctx, "getandlock", i.name)
	if err != nil {
		lease.Unlock() // what the caller has to know is that it could not be read
		return nil, err
	}
	return &LockedItem{ItemValue: itemValue(v), item: i, lease: lease}, nil
}

// LockedItem is an item whose lock is held. It is for one goroutine at a time.
type LockedItem struct {
	// ItemValue is what was read under the lock, or stored since.
	ItemValue

	item  *Item
	lease *Lease
}

// Lease returns the lease that holds the lock.
func (l *LockedItem) Lease() *Lease { return l.lease }

// Update stores data for ttl (0: for ever) and keeps the lock. It fails with ErrLost or
// ErrNotHeld when the lock is not held any more, and with ErrStale when the item was changed
// since by somebody without the lock, or by a later holder of it: nothing is stored then. An item
// that was not there, and was stored and removed since, has not changed. After an error with
// Unknown outcome the data may be stored; a second Update fails with ErrStale where it is.
func (l *LockedItem) Update(ctx context.Context, data []byte, ttl time.Duration) error {
	if err := l.lease.held("update"); err != nil {
		return err
	}
	v, err := l.item.write(ctx, "update", driver.Write{Data: data, TTL: ttl, If: l.Version, Fence: l.lease.Fence()})
	if err == nil {
		l.ItemValue = v
	}
	return err
}

// UpdateAndUnlock is Update, and Unlock if that succeeded. When it did not, the lock is held
// still where it was before.
func (l *LockedItem) UpdateAndUnlock(ctx context.Context, data []byte, ttl time.Duration) error {
	if err := l.Update(ctx, data, ttl); err != nil {
		return err
	}
	return l.lease.Unlock()
}

// Unlock gives the lock back and leaves the item as it is.
func (l *LockedItem) Unlock() error { return l.lease.Unlock() }
