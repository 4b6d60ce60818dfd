package testserver_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// greeting is what a server says to a new connection before anything is asked of it.
func greeting(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	b := make([]byte, 64)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	s := testserver.MariaDB(t, testserver.MariaDBOptions{Args: []string{"--server-id=7"}})
	greets := func() bool {
		text, err := greeting(s.Addr())
		return err == nil && strings.Contains(text, "MariaDB")
	}
	if !greets() {
		t.Fatal("the server does not greet")
	}
	if want := "mysql://root@" + s.Addr() + "/app"; s.URL("") != want {
		t.Errorf("URL is %q, want %q", s.URL(""), want)
	}
	s.Pause()
	if greets() {
		t.Error("a frozen server greets")
	}
	s.Resume()
	eventually(t, "a greeting after the pause", greets)
	before := s.PID()
	s.Kill()
	if alive(before) || greets() {
		t.Error("the server outlives Kill")
	}
	s.Restart()
	if s.PID() == before || !greets() {
		t.Error("no other process greets after Restart")
	}
}
