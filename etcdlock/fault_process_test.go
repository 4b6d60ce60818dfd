//go:build unix

package etcdlock_test

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
	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// The test binary is its own child when this variable says where the server is.
const childServer = "HOLDFAST_ETCD_FAULT_CHILD"

const childTTL = 2 * time.Second

// TestFaultChild is the process that is killed or frozen. It takes the lock "name" and answers
// each line of its input: to "step" with what became of a guarded write, if its lease stands,
// to "late" with that of a holder that does not look at its lease. It ends with its input.
func TestFaultChild(t *testing.T) {
	addr := os.Getenv(childServer)
	if addr == "" {
		return
	}
	fmt.Println("child:", childMain(addr))
}

func childMain(addr string) error {
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	e, err := etcdlock.New(client, etcdlock.Config{})
	if err != nil {
		return err
	}
	c, err := holdfast.New(e, holdfast.Config{TTL: childTTL})
	if err != nil {
		return err
	}
	lease, err := c.Mutex("name").Lock(ctx)
	if err != nil {
		return err
	}
	guard := e.Guard(lease)
	held := lease.Context()
	fmt.Println("child: held", lease.Fence())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "step" && (lease.Remaining() == 0 || held.Err() != nil) {
			<-held.Done()
			fmt.Println("child: lost", errors.Is(context.Cause(held), holdfast.ErrLost))
			continue
		}
		resp, err := client.Txn(ctx).If(guard).Then(clientv3.OpPut("register", "child")).Commit()
		if err != nil {
			return err
		}
		fmt.Println("child: written", resp.Succeeded)
	}
	return nil
}

// child is a process of its own.
type child struct {
	l     *lab
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func (l *lab) child() *child {
	l.Helper()
	c := &child{l: l, cmd: exec.Command(os.Args[0], "-test.run=^TestFaultChild$"), lines: make(chan string, 100)}
	c.cmd.Env = append(os.Environ(), childServer+"="+l.cluster.Members()[0].Addr())
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		c.in, err = c.cmd.StdinPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(c.kill)
	go func() {
		defer close(c.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			if line, ok := strings.CutPrefix(in.Text(), "child: "); ok {
				c.lines <- line
			}
		}
	}()
	return c
}

// kill ends the process the hard way and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	for range c.lines {
	}
	_ = c.cmd.Wait() // a second call only fails
}

func (c *child) signal(s syscall.Signal) {
	c.l.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.l.Fatal(err)
	}
}

func (c *child) line() string {
	c.l.Helper()
	select {
	case line := <-c.lines:
		return line
	case <-time.After(labPatience):
		c.l.Fatal("the child says nothing")
		return ""
	}
}

// holds returns the fence of the child's lock.
func (c *child) holds() int64 {
	c.l.Helper()
	line := c.line()
	held, ok := strings.CutPrefix(line, "held ")
	fence, err := strconv.ParseInt(held, 10, 64)
	if !ok || err != nil {
		c.l.Fatalf("the child says %q", line)
	}
	return fence
}

// says sends a line and checks the answer.
func (c *child) says(want, line string) {
	c.l.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.l.Fatal(err)
	}
	if got := c.line(); got != want {
		c.l.Fatalf("to %q the child says %q, want %q", line, got, want)
	}
}

// The holder is killed: who waits is granted the lock when its lease has run out.
func TestFaultHolderKilled(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	dead := l.child()
	fence := dead.holds()
	e := l.engine(l.cluster.Addrs()...)
	w := l.waiter(l.client(e, childTTL), e, "name")
	dead.kill()
	lease := w.granted()
	if lease.Fence() <= fence {
		t.Errorf("fence %d after %d", lease.Fence(), fence)
	}
	l.unlock(lease)
}

// The holder is frozen past its session and goes on: it knows that the lock is lost before it
// takes another step, and what it writes without looking is refused by etcd.
func TestFaultHolderFrozen(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	frozen := l.child()
	fence := frozen.holds()
	frozen.says("written true", "step")
	frozen.signal(syscall.SIGSTOP)
	lease := l.lock(l.process(20*time.Second), "name")
	if lease.Fence() <= fence {
		t.Errorf("fence %d after %d", lease.Fence(), fence)
	}
	frozen.signal(syscall.SIGCONT)
	frozen.says("lost true", "step")
	frozen.says("written false", "late")
	if lease.Context().Err() != nil {
		t.Errorf("the new holder lost its lease: %v", context.Cause(lease.Context()))
	}
	l.unlock(lease)
}

// Who waits is frozen until its session is over, and somebody else holds the lock when it goes
// on: it must not take the end of the one it waited for as its grant.
func TestFaultWaiterFrozen(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	e := l.engine(l.cluster.Addrs()...)
	const ttl = 20 * time.Second // that of the child alone is short
	first := l.lock(l.client(e, ttl), "name")
	frozen := l.child()
	l.eventually("the child waits", func() bool { return l.waiting(e, "name") == 1 })
	frozen.signal(syscall.SIGSTOP)
	l.eventually("its session is over", func() bool { return l.waiting(e, "name") == 0 })
	l.unlock(first)
	second := l.lock(l.process(ttl), "name")
	frozen.signal(syscall.SIGCONT)
	l.eventually("the child waits again", func() bool { return l.waiting(e, "name") == 1 })
	select {
	case line := <-frozen.lines:
		t.Fatalf("beside the holder the child says %q", line)
	default:
	}
	l.unlock(second)
	if fence := frozen.holds(); fence <= second.Fence() {
		t.Errorf("fence %d after %d", fence, second.Fence())
	}
}
