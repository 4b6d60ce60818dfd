package zklock_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// frozenURL makes the test binary the process that testFrozen freezes.
const frozenURL = "HOLDFAST_ZK_FROZEN_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(frozenURL); url != "" {
		os.Exit(holdAndTell(url))
	}
	// Tests mostly wait for sessions to end, so many go together, however few the processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	for end := time.Now().Add(patience); code == 0 && runtime.NumGoroutine() > before+1; { // one starts servers
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			fmt.Printf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
			code = 1
		}
		time.Sleep(5 * time.Millisecond)
	}
	os.Exit(code)
}

// holdAndTell takes a lock, says so, and says when it was told that it is lost.
func holdAndTell(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hf, err := holdfast.Open(ctx, url, holdfast.Config{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	lease, err := hf.Mutex("n").Lock(ctx)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held", lease.Fence())
	<-lease.Context().Done()
	if !errors.Is(context.Cause(lease.Context()), holdfast.ErrLost) {
		fmt.Println(context.Cause(lease.Context()))
		return 1
	}
	fmt.Println("told")
	return 0
}

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
