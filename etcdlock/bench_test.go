package etcdlock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

// benchVisit is one lock and unlock of a name, as one goroutine of one process does it.
type benchVisit func(process, goroutine int, name string) error

// BenchmarkLock measures lock and unlock beside etcd's own concurrency.Mutex, with a session for
// each goroutine where goroutines share a name: one session does not keep them apart.
func BenchmarkLock(b *testing.B) {
	cluster := testserver.Etcd(b, testserver.EtcdOptions{Current: true})
	const processes, goroutines = 4, 64
	ctx := context.Background()
	var ours [processes]*holdfast.Client
	var theirs [processes][goroutines]*concurrency.Session
	for p := range processes {
		client, err := clientv3.New(clientv3.Config{Endpoints: cluster.Addrs(), Logger: zap.NewNop()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { client.Close() })
		e, err := etcdlock.New(client, etcdlock.Config{})
		if err != nil {
			b.Fatal(err)
		}
		if ours[p], err = holdfast.New(e, holdfast.Config{}); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ours[p].Close() })
		for g := range goroutines {
			if theirs[p][g], err = concurrency.NewSession(client); err != nil {
				b.Fatal(err)
			}
		}
	}
	kinds := []struct {
		name  string
		visit benchVisit
	}{
		{"holdfast", func(p, _ int, name string) error {
			lease, err := ours[p].Mutex(name).Lock(ctx)
			if err != nil {
				return err
			}
			return lease.Unlock()
		}},
		{"etcd", func(p, g int, name string) error {
			m := concurrency.NewMutex(theirs[p][g], "etcd/"+name)
			if err := m.Lock(ctx); err != nil {
				return err
			}
			return m.Unlock(ctx)
		}},
	}
	for _, pattern := range []struct {
		name                  string
		processes, goroutines int
		distinct              bool
	}{
		{"Uncontended", 1, 1, true},
		{"Distinct64", 1, 64, true},
		{"OneName64", 1, 64, false},
		{"FourProcesses", 4, 1, false},
	} {
		for _, kind := range kinds {
			b.Run(pattern.name+"/"+kind.name, func(b *testing.B) {
				crowd(b, pattern.processes, pattern.goroutines, func(p, g int) error {
					if pattern.distinct {
						return kind.visit(p, g, fmt.Sprint(pattern.name, g))
					}
					return kind.visit(p, g, pattern.name)
				})
			})
		}
	}
}

// crowd has each goroutine of each process make its part of b.N visits.
func crowd(b *testing.B, processes, goroutines int, visit func(process, goroutine int) error) {
	share := b.N/(processes*goroutines) + 1
	var all sync.WaitGroup
	for p := range processes {
		for g := range goroutines {
			all.Go(func() {
				for range share {
					if err := visit(p, g); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
	}
	all.Wait()
}
