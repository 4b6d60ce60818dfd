package etcdlock

import (
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Guard returns a comparison for transactions on the same cluster, which holds as long as the
// lock that was granted with that fence stands: a write that is made under it, in one
// transaction with it, takes effect before anybody else is granted the lock or not at all.
// The lease of a lock, *holdfast.Lease, says both.
//
//	resp, err := client.Txn(ctx).
//		If(engine.Guard(lease)).
//		Then(clientv3.OpPut("balance", "17")).
//		Commit() // resp.Succeeded is false when the lock was lost
//
// Among the goroutines of one process it is not exact: a lock that is passed on within the
// process stands all the same, so a goroutine must not use a comparison after its Unlock. For
// a lock that this engine does not hold, or holds no more, the comparison never holds. It needs
// no permission but that to read the keys of the lock, and sends nothing.
//
// For data that is not in etcd, have the resource check the fence.
func (e *Engine) Guard(lease interface {
	Name() string
	Fence() int64
}) clientv3.Cmp {
	if c, ok := e.claims.find(lease.Name(), lease.Fence()); ok {
		return stands(c.place.key, c.create)
	}
	return stands(e.cfg.keysOf(lease.Name()), -1)
}
