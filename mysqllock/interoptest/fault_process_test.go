package interoptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// The test binary is its own child when this variable has the URL of the server.
const childServer = "HOLDFAST_FAULT_CHILD"

// TestFaultChild is the holder that is frozen. It answers each line of its input with whether its
// lease was lost by the time that it looks at it. It ends with its input.
func TestFaultChild(t *testing.T) {
	if url := os.Getenv(childServer); url != "" {
		fmt.Println("child:", childMain(url))
	}
}

func childMain(url string) error {
	ctx := context.Background()
	e, err := mysqllock.Open(ctx, url, mysqllock.Config{})
	if err != nil {
		return err
	}
	c, err := holdfast.New(e, holdfast.Config{TTL: 2 * time.Second})
	if err != nil {
		return err
	}
	lease, err := c.Mutex("name").Lock(ctx)
	if err != nil {
		return err
	}
	lease.Context()
	fmt.Println("child: held", lease.Fence())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if lease.Remaining() > 0 && lease.Context().Err() == nil {
			fmt.Println("child: holds")
			continue
		}
		<-lease.Context().Done()
		fmt.Println("child: lost", errors.Is(context.Cause(lease.Context()), holdfast.ErrLost))
	}
	return nil
}

// The holder is frozen past its lease: the server ends its session, and the next gets the lock.
// When the holder goes on, it knows that the lock is lost before it takes another step.
func faultHolderFrozen(l *lab) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestFaultChild$")
	cmd.Env = append(os.Environ(), childServer+"="+l.server.URL("")+l.query(""))
	cmd.Stderr = io.Discard // where the driver logs that its connection was ended
	out, err1 := cmd.StdoutPipe()
	in, err2 := cmd.StdinPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		l.Fatal(err)
	}
	lines := make(chan string, 100)
	l.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range lines {
		}
		_ = cmd.Wait() // says that it was killed
	})
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			if line, ok := strings.CutPrefix(s.Text(), "child: "); ok {
				lines <- line
			}
		}
	}()
	line := func() string {
		select {
		case line := <-lines:
			return line
		case <-time.After(patience):
			l.Fatal("the child says nothing")
			return ""
		}
	}
	step := func(want string) {
		l.Helper()
		if _, err := io.WriteString(in, "step\n"); err != nil {
			l.Fatal(err)
		}
		if got := line(); got != want {
			l.Fatalf("the child says %q, want %q", got, want)
		}
	}
	first := line()
	fence, err := strconv.ParseInt(strings.TrimPrefix(first, "held "), 10, 64)
	if err != nil {
		l.Fatalf("the child says %q", first)
	}
	step("holds")
	w := l.waiter(l.process(), "name")
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		l.Fatal(err)
	}
	lease := w.granted()
	if lease.Fence() <= fence {
		l.Errorf("fence %d after %d", lease.Fence(), fence)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		l.Fatal(err)
	}
	step("lost true")
	if lease.Context().Err() != nil {
		l.Errorf("the new holder lost its lease: %v", context.Cause(lease.Context()))
	}
	l.unlock(lease)
}
