package testserver_test

import (
	"net"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// takesStartup reports whether a server of PostgreSQL's protocol answers at addr: to the
// question for TLS it says N or S.
func takesStartup(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	var reply [1]byte
	if _, err := c.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return false
	}
	_, err = c.Read(reply[:])
	return err == nil && (reply[0] == 'N' || reply[0] == 'S')
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	s := testserver.Postgres(t, testserver.PostgresOptions{Config: []string{"max_connections = 20"}})
	pooler := testserver.PgBouncer(t, s, "transaction", 2)
	for _, addr := range []string{s.Addr(), pooler} {
		if !takesStartup(t, addr) {
			t.Errorf("nobody answers at %s", addr)
		}
	}
	before := s.PID()
	s.Pause()
	if takesStartup(t, s.Addr()) {
		t.Error("a frozen server answers")
	}
	s.Resume()
	s.Restart()
	if s.PID() == before || !takesStartup(t, s.Addr()) {
		t.Error("the server did not come back")
	}
	s.Kill()
	if takesStartup(t, s.Addr()) {
		t.Error("a server that was killed answers")
	}
}
