//go:build unix

package zklock_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

func init() { onOneServer["Frozen"] = testFrozen }

// testFrozen: a process is frozen past its session. Somebody else gets the lock; when it goes
// on, it is told at once.
func testFrozen(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), brief)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), frozenURL+"=zk://"+s.Addr()+l.cfg.Root+"?session-timeout=9s&timeout=1s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "held") {
		t.Fatalf("the process says %q", lines.Text())
	}
	var fence int64
	fmt.Sscanf(lines.Text(), "held %d", &fence)
	e := l.open()
	l.refused(e, request("n", driver.Exclusive, short))
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w := l.start(l.context(), e, request("n", driver.Exclusive, short))
	if err := l.ended(w); err != nil {
		t.Fatal(err)
	}
	if w.grant.Fence <= fence {
		t.Errorf("fence is %d after %d", w.grant.Fence, fence)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "told" {
		t.Fatalf("the process says %q, want that it was told", lines.Text())
	}
}
