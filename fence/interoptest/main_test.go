//go:build unix

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
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

const (
	// patience bounds every wait: long, because machines are busy.
	patience = 60 * time.Second

	// lockName is the lock that protects every resource of these tests.
	lockName = "the counter"

	// childTTL is how long the lock of a frozen holder lasts.
	childTTL = time.Second
)

// What makes the test binary a holder in a process of its own: the server of the locks, and
// the resource and where it is.
const (
	childLocks    = "HOLDFAST_FENCE_LOCKS"
	childResource = "HOLDFAST_FENCE_RESOURCE"
	childTarget   = "HOLDFAST_FENCE_TARGET"
)

func TestMain(m *testing.M) {
	if locks := os.Getenv(childLocks); locks != "" {
		if err := holder(locks, os.Getenv(childResource), os.Getenv(childTarget)); err != nil {
			fmt.Println("child: failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testserver.Main(m, 1))
}

// openLocks returns a client whose locks are on the Redis server at addr.
func openLocks(addr string, ttl time.Duration) (*holdfast.Client, error) {
	e, err := redislock.Open(context.Background(), "redis://"+addr, redislock.Config{Timeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	return holdfast.New(e, holdfast.Config{TTL: ttl})
}

// holder takes the lock, opens the resource, reads it, and says so. Then it does what each line
// of its input says, without looking at its lease, as a holder that was paused between its last
// look and its write.
func holder(locks, kind, target string) error {
	ctx := context.Background()
	hf, err := openLocks(locks, childTTL)
	if err != nil {
		return err
	}
	r, err := connect(kind, target)
	if err != nil {
		return err
	}
	l, err := hf.Mutex(lockName).Lock(ctx)
	if err != nil {
		return err
	}
	if err := r.open(ctx, l); err != nil {
		return err
	}
	value, err := r.read(ctx, l)
	if err != nil {
		return err
	}
	fmt.Println("child: held", l.Fence())
	var steps stepper
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch command := in.Text(); command {
		case "write":
			err = r.write(ctx, l, value+1)
		case "open":
			err = r.open(ctx, l)
		default:
			if steps == nil {
				steps = r.(interface{ stepper() stepper }).stepper()
			}
			err = steps(ctx, command, l, value+1)
		}
		switch {
		case err == nil:
			fmt.Println("child: done")
		case errors.Is(err, holdfast.ErrStale):
			fmt.Println("child: stale")
		default:
			fmt.Println("child: failed:", err)
		}
	}
	return nil
}

// child is a holder in a process of its own.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	fence int64
}

// startHolder returns when the process holds the lock and has read the resource.
func startHolder(t *testing.T, locks *testserver.RedisServer, kind, target string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0]), lines: make(chan string, 100)}
	c.cmd.Env = append(os.Environ(), childLocks+"="+locks.Addr(), childResource+"="+kind, childTarget+"="+target)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		c.in, err = c.cmd.StdinPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		for range c.lines {
		}
		_ = c.cmd.Wait()
	})
	go func() {
		defer close(c.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			if line, ok := strings.CutPrefix(in.Text(), "child: "); ok {
				c.lines <- line
			}
		}
	}()
	line := c.line()
	held, ok := strings.CutPrefix(line, "held ")
	c.fence, err = strconv.ParseInt(held, 10, 64)
	if !ok || err != nil {
		t.Fatalf("the child says %q", line)
	}
	return c
}

func (c *child) line() string {
	c.t.Helper()
	select {
	case line := <-c.lines:
		return line
	case <-time.After(patience):
		c.t.Fatal("the child says nothing")
		return ""
	}
}

// tell sends a command and returns what became of it.
func (c *child) tell(command string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.in, command+"\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.line()
}

func (c *child) says(want, command string) {
	c.t.Helper()
	if got := c.tell(command); got != want {
		c.t.Fatalf("to %q the child says %q, want %q", command, got, want)
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// client returns a client of the locks for this process.
func client(t *testing.T, locks *testserver.RedisServer) *holdfast.Client {
	t.Helper()
	hf, err := openLocks(locks.Addr(), 5*time.Minute)
	must(t, err)
	t.Cleanup(func() { hf.Close() })
	return hf
}

// lock takes the lock, once whoever has it is gone or its lease is over.
func lock(t *testing.T, hf *holdfast.Client) *holdfast.Lease {
	t.Helper()
	l, err := hf.Mutex(lockName).Lock(patient(t))
	must(t, err)
	return l
}

// patient returns a context that bounds a wait.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantStale checks a refusal and its numbers.
func wantStale(t *testing.T, err error, shown, stored int64) {
	t.Helper()
	var stale *fence.StaleError
	if !errors.Is(err, holdfast.ErrStale) || !errors.As(err, &stale) {
		t.Fatalf("error %v, want ErrStale", err)
	}
	if stale.Fence != shown || stale.Stored != stored {
		t.Fatalf("refused with %+v, want %d shown and %d stored", *stale, shown, stored)
	}
}

// dial returns a client of a Redis server.
func dial(t *testing.T, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { c.Close() })
	return c
}
