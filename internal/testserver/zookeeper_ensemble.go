package testserver

import (
	"errors"
	"fmt"
	"testing"
)

// ZooKeeperEnsemble is servers that elect a leader. What followers and their leader say to
// each other goes through proxies, so that a follower can be parted from the others while
// clients still reach it.
type ZooKeeperEnsemble struct {
	t       testing.TB
	Servers []*ZooKeeperServer
	links   [][]*TCPProxy // links[from][to]: connections of one to the other as its leader
}

// ZooKeepers starts an ensemble of so many servers and returns when all serve.
func ZooKeepers(t testing.TB, n int, options ZooKeeperOptions) *ZooKeeperEnsemble {
	t.Helper()
	e := &ZooKeeperEnsemble{t: t}
	for i := range n {
		e.Servers = append(e.Servers, newZooKeeper(t, options, i+1))
	}
	e.links = make([][]*TCPProxy, n)
	for from := range e.Servers {
		e.links[from] = make([]*TCPProxy, n)
		for to, s := range e.Servers {
			if from != to {
				e.links[from][to] = Proxy(t, loopback(s.port+zooKeeperPeer))
			}
		}
	}
	for i, s := range e.Servers {
		s.writeConfig(e.members(i))
		s.startProcess()
	}
	for _, s := range e.Servers {
		if err := s.serves("leader", "follower"); err != nil {
			t.Fatalf("ZooKeeper on port %d: %v\n%s", s.port, err, s.proc.tail(4096))
		}
	}
	return e
}

// members returns the lines that name the ensemble, as the server with that index sees it.
func (e *ZooKeeperEnsemble) members(self int) []string {
	var lines []string
	for i, s := range e.Servers {
		peer := s.port + zooKeeperPeer
		if i != self {
			peer = e.links[self][i].Port()
		}
		lines = append(lines, fmt.Sprintf("server.%d=127.0.0.1:%d:%d", s.id, peer, s.port+zooKeeperElection))
	}
	return lines
}

// Addrs returns host:port of all servers.
func (e *ZooKeeperEnsemble) Addrs() []string {
	var addrs []string
	for _, s := range e.Servers {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// Leader returns the index of the server that leads, once there is one.
func (e *ZooKeeperEnsemble) Leader() int {
	e.t.Helper()
	leader := -1
	err := poll(nil, func() error {
		for i, s := range e.Servers {
			if !s.proc.down() && s.Mode() == "leader" {
				leader = i
				return nil
			}
		}
		return errors.New("no server leads")
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return leader
}

// Follower returns the index of a server that follows.
func (e *ZooKeeperEnsemble) Follower() int {
	e.t.Helper()
	return (e.Leader() + 1) % len(e.Servers)
}

// Part cuts a follower off from its leader. For some ticks it goes on answering reads to its
// clients. It does not part a leader: in an election servers tell each other where to connect,
// which is past any proxy.
func (e *ZooKeeperEnsemble) Part(i int) { e.each(i, (*TCPProxy).Partition) }

// Join ends Part.
func (e *ZooKeeperEnsemble) Join(i int) { e.each(i, (*TCPProxy).Heal) }

func (e *ZooKeeperEnsemble) each(i int, f func(*TCPProxy)) {
	for _, p := range e.links[i] {
		if p != nil {
			f(p)
		}
	}
}

// RestartAll kills all servers and starts them again with what is on their disks.
func (e *ZooKeeperEnsemble) RestartAll() {
	e.t.Helper()
	for _, s := range e.Servers {
		s.Kill()
	}
	for _, s := range e.Servers {
		s.startProcess()
	}
	e.AllServe()
}

// AllServe waits until every server serves.
func (e *ZooKeeperEnsemble) AllServe() {
	e.t.Helper()
	for _, s := range e.Servers {
		if err := s.serves("leader", "follower"); err != nil {
			e.t.Fatalf("ZooKeeper on port %d: %v\n%s", s.port, err, s.proc.tail(4096))
		}
	}
}
