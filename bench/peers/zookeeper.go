package main

import (
	"context"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/zklock"
)

var onZooKeeper = product{
	name:  "zookeeper",
	start: startZooKeeper,
	adapters: []adapter{
		{name: "lock", kind: byDefault, about: "Lock of go-zookeeper", open: openZooKeeperLock},
		{name: "holdfast", kind: ours, about: "Mutex on zklock, defaults", open: holdfastAt("zk://")},
	},
	patterns: []pattern{
		patternA1.of("lock", "lock", "holdfast"),
		patternA2.of("lock", "lock", "holdfast"),
		patternB.of("lock", "lock", "holdfast"),
		patternD.of("lock", "lock", "holdfast"),
		patternE.of("lock", "lock", "holdfast"),
	},
	targets: []target{
		{pattern: "a1", what: "cycles/s to go-zookeeper's Lock", value: rate, to: []string{"lock"}, limit: 1, least: true},
		{pattern: "a2", what: "cycles/s to go-zookeeper's Lock", value: rate, to: []string{"lock"}, limit: 1, least: true},
		{pattern: "b", what: "cycles/s to go-zookeeper's Lock", value: rate, to: []string{"lock"}, limit: 1, least: true},
		{pattern: "d", what: "turns/s to go-zookeeper's Lock", value: rate, to: []string{"lock"}, limit: 20, least: true},
		{pattern: "e", what: "hand-overs/s to go-zookeeper's Lock", value: handoverRate, to: []string{"lock"}, limit: 2, least: true},
	},
}

func startZooKeeper(l *testserver.Lab) *server {
	s := testserver.ZooKeeper(l, testserver.ZooKeeperOptions{})
	return &server{addr: s.Addr(), pids: []int{s.PID()}, clean: func() error { return cleanZooKeeper(s.Addr()) }}
}

// quiet drops what the client would print.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// zooKeeperConn returns a connection with a session such as holdfast has.
func zooKeeperConn(addr string) (*zk.Conn, error) {
	c, events, err := zk.Connect([]string{addr}, zklock.DefaultSessionTimeout, zk.WithLogger(quiet{}))
	if err != nil {
		return nil, err
	}
	late := time.After(cleanWithin)
	for {
		select {
		case e := <-events:
			if e.State == zk.StateHasSession {
				return c, nil
			}
		case <-late:
			c.Close()
			return nil, errors.New(addr + " does not give a session")
		}
	}
}

// cleanZooKeeper removes all nodes but the server's own.
func cleanZooKeeper(addr string) error {
	c, err := zooKeeperConn(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	top, _, err := c.Children("/")
	if err != nil {
		return err
	}
	for _, name := range top {
		if name != "zookeeper" {
			err = errors.Join(err, removeNodes(c, "/"+name))
		}
	}
	return err
}

// removeNodes removes a node and those below it. Others may do the same: those of sessions that
// end, and containers.
func removeNodes(c *zk.Conn, path string) error {
	children, _, err := c.Children(path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	for _, name := range children {
		if err := removeNodes(c, path+"/"+name); err != nil {
			return err
		}
	}
	if err := c.Delete(path, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	return nil
}

type zooKeeperPeer struct{ conn *zk.Conn }

func openZooKeeperLock(addr string) (peer, error) {
	c, err := zooKeeperConn(addr)
	if err != nil {
		return nil, err
	}
	return zooKeeperPeer{c}, nil
}

func (p zooKeeperPeer) locker(key string) locker {
	return zooKeeperLock{zk.NewLock(p.conn, "/bench/"+key, zk.WorldACL(zk.PermAll))}
}
func (p zooKeeperPeer) close() error { p.conn.Close(); return nil }

type zooKeeperLock struct{ held *zk.Lock }

// lock knows no contexts: at the end of a measurement waiters get the lock one after the other.
func (l zooKeeperLock) lock(context.Context) error { return l.held.Lock() }
func (l zooKeeperLock) unlock() error              { return l.held.Unlock() }
