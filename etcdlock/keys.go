package etcdlock

import (
	"github.com/holdfast-go/holdfast/driver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keys are the keys of one name, and a request's own among them.
type keys struct {
	all string // what those of the name begin with
	own string
}

// free holds while nobody has a key of the name.
func (k *keys) free() clientv3.Cmp {
	return createdAt(k.all, 0).WithPrefix()
}

// stands holds while a key is the one that was created then.
func stands(key string, create int64) clientv3.Cmp {
	return createdAt(key, create)
}

// createdAt is clientv3.Compare, which copies the comparison once more.
func createdAt(key string, revision int64) clientv3.Cmp {
	c := clientv3.CreateRevision(key)
	c.GetCompare().Result = pb.Compare_EQUAL
	c.GetCompare().TargetUnion = &pb.Compare_CreateRevision{CreateRevision: revision}
	return c
}

// readAll reads the keys of the name in the order of their creation.
func (k *keys) readAll() clientv3.Op {
	return clientv3.OpGet(k.all, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
}

// readBefore reads what matters to a request whose key was created at that revision: for an
// exclusive one the key before it, for others all.
func (k *keys) readBefore(mode driver.Mode, create int64) clientv3.Op {
	options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMaxCreateRev(create - 1)}
	if mode == driver.Exclusive {
		return clientv3.OpGet(k.all, append(options, clientv3.WithLastCreate()...)...)
	}
	return clientv3.OpGet(k.all, append(options, clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))...)
}

func (k *keys) put(n *note, l *lease) clientv3.Op {
	return clientv3.OpPut(k.own, n.encode(), clientv3.WithLease(l.id))
}
