package main

import (
	"context"
	"errors"
	"sync"

	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

var onEtcd = product{
	name:  "etcd",
	start: startEtcd,
	adapters: []adapter{
		{name: "mutex", kind: byDefault, about: "Mutex of etcd's own package concurrency, sessions by default", open: openEtcdMutex},
		{name: "holdfast", kind: ours, about: "Mutex on etcdlock, defaults", open: holdfastAt("etcd://")},
	},
	patterns: []pattern{
		patternA1.of("mutex", "mutex", "holdfast"),
		patternA2.of("mutex", "mutex", "holdfast"),
		patternB.of("mutex", "mutex", "holdfast"),
		patternD.of("mutex", "mutex", "holdfast"),
		patternE.of("mutex", "mutex", "holdfast"),
	},
	targets: []target{
		{pattern: "a1", what: "cycles/s to concurrency.Mutex", value: rate, to: []string{"mutex"}, limit: 1, least: true},
		{pattern: "a2", what: "cycles/s to concurrency.Mutex", value: rate, to: []string{"mutex"}, limit: 1, least: true},
		{pattern: "b", what: "cycles/s to concurrency.Mutex", value: rate, to: []string{"mutex"}, limit: 1, least: true},
		{pattern: "d", what: "turns/s to concurrency.Mutex", value: rate, to: []string{"mutex"}, limit: 20, least: true},
		{pattern: "e", what: "hand-overs/s to concurrency.Mutex", value: handoverRate, to: []string{"mutex"}, limit: 3, least: true},
	},
}

// startEtcd starts one member of the current version, which does not wait for its disk.
func startEtcd(l *testserver.Lab) *server {
	c := testserver.Etcd(l, testserver.EtcdOptions{Current: true, Args: []string{"--unsafe-no-fsync"}})
	m := c.Members()[0]
	return &server{addr: m.Addr(), pids: []int{m.PID()}, clean: func() error { return cleanEtcd(m.Addr()) }}
}

func etcdClient(addr string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: etcdlock.DefaultTimeout, Logger: zap.NewNop()})
}

// cleanEtcd ends the leases that are left, and removes all keys and their history.
func cleanEtcd(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanWithin)
	defer cancel()
	c, err := etcdClient(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	leases, err := c.Leases(ctx)
	if err != nil {
		return err
	}
	for _, l := range leases.Leases {
		_, _ = c.Revoke(ctx, l.ID) // it may have ended meanwhile
	}
	emptied, err := c.Delete(ctx, "", clientv3.WithFromKey())
	if err != nil || emptied.Deleted == 0 {
		return err
	}
	_, err = c.Compact(ctx, emptied.Header.Revision, clientv3.WithCompactPhysical())
	return err
}

// etcdMutexPeer has sessions for its lockers: a Mutex does not keep those apart that share one.
type etcdMutexPeer struct {
	client *clientv3.Client

	mu         sync.Mutex
	sessions   []*concurrency.Session
	contenders map[string]int // by key: so many of the sessions are taken
}

func openEtcdMutex(addr string) (peer, error) {
	c, err := etcdClient(addr)
	if err != nil {
		return nil, err
	}
	return &etcdMutexPeer{client: c, contenders: map[string]int{}}, nil
}

// locker gives each contender for one lock a session, and contenders for different locks the
// same ones, as each costs a lease.
func (p *etcdMutexPeer) locker(key string) locker {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.contenders[key]
	if i == len(p.sessions) {
		s, err := concurrency.NewSession(p.client)
		if err != nil {
			return etcdMutex{err: err}
		}
		p.sessions = append(p.sessions, s)
	}
	p.contenders[key]++
	return etcdMutex{mutex: concurrency.NewMutex(p.sessions[i], "/bench/"+key)}
}

func (p *etcdMutexPeer) close() (err error) {
	for _, s := range p.sessions {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, p.client.Close())
}

type etcdMutex struct {
	mutex *concurrency.Mutex
	err   error
}

func (l etcdMutex) lock(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	return l.mutex.Lock(ctx)
}

func (l etcdMutex) unlock() error { return l.mutex.Unlock(context.Background()) }
