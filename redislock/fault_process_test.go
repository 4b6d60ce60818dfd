//go:build unix

package redislock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// The test binary is its own child when this variable says where the server is.
const childServer = "HOLDFAST_FAULT_CHILD"

// register is a resource that checks fences: it takes the number of a write unless it has seen
// a larger one.
var register = redis.NewScript(`
local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) < seen then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1`)

func write(ctx context.Context, r redis.UniversalClient, fence int64) (bool, error) {
	return register.Run(ctx, r, []string{"register"}, fence).Bool()
}

// TestFaultChild is the holder that is killed or frozen. It answers each line of its input: to
// "step" with what became of a write under the lease, to "late" with that of a write of a
// holder that does not look at its lease. It ends with its input.
func TestFaultChild(t *testing.T) {
	addr := os.Getenv(childServer)
	if addr == "" {
		return
	}
	fmt.Println("child:", childMain(addr))
}

func childMain(addr string) error {
	ctx := context.Background()
	r := redis.NewClient(&redis.Options{Addr: addr})
	e, err := redislock.New(r, redislock.Config{})
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
		if in.Text() == "step" && (lease.Remaining() == 0 || lease.Context().Err() != nil) {
			<-lease.Context().Done()
			fmt.Println("child: lost", errors.Is(context.Cause(lease.Context()), holdfast.ErrLost))
			continue
		}
		ok, err := write(ctx, r, lease.Fence())
		fmt.Println("child: written", ok, err)
	}
	return nil
}

// child is a holder in a process of its own.
type child struct {
	l     *lab
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	fence int64
}

// child starts a process and returns when it holds the lock "name".
func (l *lab) child() *child {
	l.Helper()
	c := &child{l: l, cmd: exec.Command(os.Args[0], "-test.run=^TestFaultChild$"), lines: make(chan string, 100)}
	c.cmd.Env = append(os.Environ(), childServer+"="+l.server.Addr())
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
	held, ok := strings.CutPrefix(c.line(), "held ")
	c.fence, err = strconv.ParseInt(held, 10, 64)
	if !ok || err != nil {
		l.Fatalf("the child says %q", held)
	}
	return c
}

// kill ends the process the hard way and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	for range c.lines {
	}
	_ = c.cmd.Wait() // a second call only fails
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

// The holder is killed: nobody gets the lock while its TTL runs, then the next waiter does.
func TestFaultHolderKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	dead := l.child()
	w := l.waiter(l.process(), "name")
	dead.kill()
	end := l.do("EVAL", "local t = redis.call('TIME') "+ // rounded down: PEXPIRETIME is from 7.0 on
		"return t[1] * 1000 + math.floor(t[2] / 1000) + redis.call('PTTL', KEYS[1]) - 1", "1", "holdfast:name").(int64)
	if end <= 0 {
		l.Fatalf("the key ends at %d: no time is left to watch", end)
	}
	lease := w.granted()
	fields := strings.Fields(l.key("name")) // the last one is the server's time of the grant
	at, err := strconv.ParseFloat(fields[len(fields)-1], 64)
	if err != nil || at*1000 < float64(end) {
		l.Errorf("granted at %v s, and the lock of the dead lasts until %d ms (%v)", at, end, err)
	}
	if lease.Fence() <= dead.fence {
		l.Errorf("fence %d after %d", lease.Fence(), dead.fence)
	}
	l.unlock(lease)
}

// The holder is frozen past its TTL and goes on: it knows that the lock is lost before it takes
// another step, and what it writes without looking is refused.
func TestFaultHolderFrozen(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	frozen := l.child()
	frozen.says("written true <nil>", "step")
	if err := frozen.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		l.Fatal(err)
	}
	lease := l.lock(l.process(), "name")
	r := redis.NewClient(&redis.Options{Addr: l.server.Addr()})
	defer r.Close()
	// Who guards reads as well as writes says its number before the first of them.
	if ok, err := write(l.patience(), r, lease.Fence()); !ok || err != nil {
		l.Fatalf("the new holder's write: %v, %v", ok, err)
	}
	if err := frozen.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		l.Fatal(err)
	}
	frozen.says("lost true", "step")
	frozen.says("written false <nil>", "late")
	if lease.Context().Err() != nil {
		l.Errorf("the new holder lost its lease: %v", context.Cause(lease.Context()))
	}
	l.unlock(lease)
}

// Ten that wait are half-open connections by the time the lock is free: they cost one offer and
// the time after which the silent lose their places, not a TTL each.
func TestFaultDeadWaiters(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	holder, alive := l.process(), l.process()
	lease := l.lock(holder, "name")
	var dead []*waiter
	for range 10 {
		dead = append(dead, l.waiter(l.client(l.engineAt(p.Addr(), "timeout=30s")), "name"))
	}
	w := l.waiter(alive, "name")
	p.Freeze()
	l.Cleanup(p.Heal)
	l.unlock(lease)
	l.unlock(w.granted()) // within labPatience, or its context ends
	for _, d := range dead {
		d.stillWaits()
	}
	p.Heal()
	// Back again, they are served like everybody else.
	for len(dead) > 0 {
		next := 0
		l.eventually("the next of them", func() bool {
			next = slices.IndexFunc(dead, (*waiter).over)
			return next >= 0
		})
		l.unlock(dead[next].granted())
		dead = slices.Delete(dead, next, next+1)
	}
}
