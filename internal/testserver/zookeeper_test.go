package testserver_test

import (
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestZooKeeper(t *testing.T) {
	s := testserver.ZooKeeper(t, testserver.ZooKeeperOptions{})
	if mode := s.Mode(); mode != "standalone" {
		t.Fatalf("mode is %q", mode)
	}
	s.Restart()
	s.Pause()
	if mode := s.Mode(); mode != "" {
		t.Fatalf("a frozen server says that it is %q", mode)
	}
	s.Resume()
	s.Kill()
	if mode := s.Mode(); mode != "" {
		t.Fatalf("a dead server says that it is %q", mode)
	}
}

// TestZooKeepers parts a follower from its leader, and kills the leader.
func TestZooKeepers(t *testing.T) {
	e := testserver.ZooKeepers(t, 3, testserver.ZooKeeperOptions{})
	parted := e.Follower()
	e.Part(parted)
	eventually(t, "the follower that was parted serves no more", func() bool { return e.Servers[parted].Mode() == "" })
	e.Join(parted)
	e.AllServe()
	old := e.Leader()
	e.Servers[old].Kill()
	if e.Leader() == old {
		t.Fatal("a dead server leads")
	}
	e.Servers[old].Start()
	e.RestartAll()
}
