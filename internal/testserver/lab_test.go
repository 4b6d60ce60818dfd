package testserver_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// A program starts servers, breaks them, hears of what fails, and leaves nothing.
func TestLab(t *testing.T) {
	testserver.Need(t, "redis-server")
	t.Parallel()
	l, err := testserver.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	var s *testserver.RedisServer
	if err := l.Do(func() { s = testserver.Redis(l, testserver.RedisOptions{}) }); err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	if err := l.Do(s.Restart); err != nil || s.PID() == pid {
		t.Errorf("%v, process %d after %d", err, s.PID(), pid)
	}
	after := false
	err = l.Do(func() {
		s.SetClock(1) // it has none of its own
		after = true
	})
	if err == nil || after {
		t.Errorf("a call that fails: %v", err)
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "log of the redis-server") {
		t.Errorf("without the server's log: %v", err)
	}
	if _, err := os.Stat(l.Folder()); !errors.Is(err, os.ErrNotExist) || running(s.PID()) {
		t.Errorf("left: %v, process %v", err, running(s.PID()))
	}
}

func TestLabWithoutAProgram(t *testing.T) {
	t.Setenv("HOLDFAST_REQUIRE", "")
	l, err := testserver.NewLab()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Do(func() { testserver.Need(l, "no-such-program") }); !errors.Is(err, testserver.ErrMissing) {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, testserver.ErrMissing) {
		t.Error(err)
	}
}
