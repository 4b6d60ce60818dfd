package holdfast

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// RWMutex is a lock that either one writer holds or any number of readers do, among them at
// most one that may become the writer. A [Mutex] of the same name is the same lock: it is
// the writer. It is a cheap handle and safe for concurrent use.
//
// On engines that keep an order (Capabilities.FIFO) readers do not overtake a writer that
// waits.
type RWMutex struct {
	write, read, upgrade handle
}

// RWMutex returns the handle of the lock of that name. See [Client.Mutex] for what is said
// of names and options there. On an engine without shared locks every use of a reader fails
// with ErrUnsupported.
func (c *Client) RWMutex(name string, opts ...Option) *RWMutex {
	rw := &RWMutex{
		write:   c.newHandle(name, driver.Exclusive, opts),
		read:    c.newHandle(name, driver.Shared, opts),
		upgrade: c.newHandle(name, driver.Upgradeable, opts),
	}
	if !c.caps.Shared {
		rw.read.unsupported("shared")
	}
	if !c.caps.Upgradeable {
		rw.upgrade.unsupported("upgradeable")
	}
	return rw
}

// Name returns the name of the lock.
func (rw *RWMutex) Name() string { return rw.write.name }

// Lock waits until it is the writer. See [Mutex.Lock].
func (rw *RWMutex) Lock(ctx context.Context) (*Lease, error) {
	return rw.write.client.acquire(ctx, "lock", &rw.write, true)
}

// TryLock becomes the writer, or fails with ErrHeld at once. See [Mutex.TryLock].
func (rw *RWMutex) TryLock(ctx context.Context) (*Lease, error) {
	return rw.write.client.acquire(ctx, "trylock", &rw.write, false)
}

// RLock waits until it is a reader. Readers of one process may share one claim on the engine;
// each has a fence of its own all the same.
func (rw *RWMutex) RLock(ctx context.Context) (*Lease, error) {
	return rw.read.client.acquire(ctx, "rlock", &rw.read, true)
}

// TryRLock becomes a reader, or fails with ErrHeld at once.
func (rw *RWMutex) TryRLock(ctx context.Context) (*Lease, error) {
	return rw.read.client.acquire(ctx, "tryrlock", &rw.read, false)
}

// LockUpgradeable waits until it is the one reader that may become the writer by
// [Lease.Upgrade], without giving up what it has read. Plain readers may stand beside it;
// while a second upgradeable reader waits, those that come after it wait behind it.
func (rw *RWMutex) LockUpgradeable(ctx context.Context) (*Lease, error) {
	return rw.upgrade.client.acquire(ctx, "lockupgradeable", &rw.upgrade, true)
}

// TryLockUpgradeable is LockUpgradeable without waiting: it fails with ErrHeld at once.
func (rw *RWMutex) TryLockUpgradeable(ctx context.Context) (*Lease, error) {
	return rw.upgrade.client.acquire(ctx, "trylockupgradeable", &rw.upgrade, false)
}

// RLocker returns a Mutex whose Lock is RLock, for [LockAll] and for [Mutex.Do].
func (rw *RWMutex) RLocker() *Mutex { return &Mutex{rw.read} }

// Do runs f as the writer. See [Mutex.Do].
func (rw *RWMutex) Do(ctx context.Context, f func(ctx context.Context, l *Lease) error) error {
	return (&Mutex{rw.write}).Do(ctx, f)
}
