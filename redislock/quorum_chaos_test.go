//go:build unix

package redislock_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

const (
	// chaosNodes tells a child where the nodes are, and that it is one.
	chaosNodes = "HOLDFAST_CHAOS_CHILD"

	// chaosLong is how long the run lasts, with 32 processes. Without it, it is a short one
	// with 8.
	chaosLong = "HOLDFAST_CHAOS"

	// chaosSeed repeats the faults of a run.
	chaosSeed = "HOLDFAST_CHAOS_SEED"
)

var chaosNames = []string{"red", "green", "blue"}

func chaosConfig() redislock.QuorumConfig {
	return redislock.QuorumConfig{Group: "chaos", MaxTTL: shortTTL, Timeout: 300 * time.Millisecond}
}

// TestQuorumChaosChild is a process of the run below. It takes and gives back locks until its
// input ends, and then each once more. Of each it says by which fence it held it, from when to
// when at least, by the clock that all processes of the machine share.
func TestQuorumChaosChild(t *testing.T) {
	addrs := os.Getenv(chaosNodes)
	if addrs == "" {
		return
	}
	fmt.Println("child:", chaosChild(strings.Split(addrs, ",")))
}

func chaosChild(addrs []string) error {
	redis.SetLogger(quiet{})
	ctx, end := context.WithCancel(context.Background())
	defer end()
	var urls []string
	for _, a := range addrs {
		urls = append(urls, "redis://"+a)
	}
	open, cancel := context.WithTimeout(ctx, labPatience)
	defer cancel()
	e, err := redislock.OpenQuorum(open, urls, chaosConfig())
	for err != nil && open.Err() == nil { // harm is being done already
		e, err = redislock.OpenQuorum(open, urls, chaosConfig())
	}
	if err != nil {
		return err
	}
	c, err := holdfast.New(e, holdfast.Config{TTL: time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	fmt.Println("child: ready")
	var all sync.WaitGroup
	errs := make(chan error, 2)
	for range cap(errs) {
		all.Go(func() { errs <- chaosWork(ctx, c, over) })
	}
	all.Wait()
	return errors.Join(<-errs, <-errs)
}

// quiet keeps the library from telling of every connection that breaks.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func chaosWork(ctx context.Context, c *holdfast.Client, over <-chan struct{}) error {
	last := chaosNames
	for {
		name := chaosNames[rand.IntN(len(chaosNames))]
		select {
		case <-over:
			if len(last) == 0 {
				return nil
			}
			name, last = last[0], last[1:]
		default:
		}
		if err := chaosHold(ctx, c, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// chaosHold takes a lock once. A quorum that is gone is waited for.
func chaosHold(ctx context.Context, c *holdfast.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*labPatience)
	defer cancel()
	l, err := c.Mutex(name).Lock(ctx)
	for errors.Is(err, holdfast.ErrUnavailable) && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		l, err = c.Mutex(name).Lock(ctx)
	}
	if err != nil {
		return err
	}
	from := clockNow()
	until := from
	hold := rand.N(20 * time.Millisecond)
	if rand.IntN(20) == 0 {
		hold = time.Second + rand.N(time.Second) // it has to be renewed
	}
	for {
		// What is seen to be held after the clock was read was held then.
		now := clockNow()
		if l.Context().Err() != nil {
			break
		}
		if until = now; now.Sub(from) >= hold {
			break
		}
		time.Sleep(min(5*time.Millisecond, hold))
	}
	fmt.Println("child: held", name, l.Fence(), int64(from), int64(until))
	_ = l.Unlock() // the nodes may be gone, or the lease lost
	return nil
}

// chaos is a run.
type chaos struct {
	*testing.T
	servers []*testserver.RedisServer
	links   [2][]*testserver.TCPProxy // of each half of the processes to each node
	watch   *redislock.Quorum
	rng     *rand.Rand

	mu    sync.Mutex
	spans map[string][]span // by name
	ended []string          // what processes said last
}

// span is a time in which somebody held a lock.
type span struct {
	fence       int64
	from, until driver.Instant
}

// TestQuorumChaos: while nodes are killed and come back empty, are frozen and cut off from some
// of the processes, no two processes hold one lock at a time, fences are unique and grow, and
// in the end everybody gets every lock.
func TestQuorumChaos(t *testing.T) {
	children, length := 8, 12*time.Second
	if long := os.Getenv(chaosLong); long != "" {
		d, err := time.ParseDuration(long)
		if err != nil {
			t.Fatalf("%s: %v", chaosLong, err)
		}
		children, length = 32, d
	} else {
		t.Parallel()
	}
	seed := rand.Uint64()
	if s := os.Getenv(chaosSeed); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", chaosSeed, seed)
	x := &chaos{T: t, servers: nodes(t, 5, testserver.RedisOptions{}), rng: rand.New(rand.NewPCG(seed, 0)), spans: make(map[string][]span)}
	for half := range x.links {
		for _, s := range x.servers {
			x.links[half] = append(x.links[half], testserver.Proxy(t, s.Addr()))
		}
	}
	found(t, addrsOf(x.servers), chaosConfig())
	x.watch = quorumOn(t, addrsOf(x.servers), chaosConfig())
	defer x.watch.Close()
	var all []*chaosProcess
	for i := range children {
		all = append(all, x.start(i))
	}
	faults := x.run(length)
	for _, p := range all {
		p.in.Close()
	}
	for _, p := range all {
		p.wait()
	}
	x.check(faults)
}

// chaosProcess is a child.
type chaosProcess struct {
	x     *chaos
	cmd   *exec.Cmd
	in    io.Closer
	ended chan struct{}
}

func (x *chaos) start(i int) *chaosProcess {
	x.Helper()
	var addrs []string
	for _, p := range x.links[i%2] {
		addrs = append(addrs, p.Addr())
	}
	p := &chaosProcess{x: x, cmd: exec.Command(os.Args[0], "-test.run=^TestQuorumChaosChild$"), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), chaosNodes+"="+strings.Join(addrs, ","))
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	var out io.ReadCloser
	if err == nil {
		out, err = p.cmd.StdoutPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		x.Fatal(err)
	}
	p.in = in
	x.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	go func() {
		defer close(p.ended)
		last := ""
		for s := bufio.NewScanner(out); s.Scan(); {
			if line, ok := strings.CutPrefix(s.Text(), "child: "); ok {
				last = line
				x.note(line)
			}
		}
		_ = p.cmd.Wait()
		x.mu.Lock()
		defer x.mu.Unlock()
		x.ended = append(x.ended, last)
	}()
	return p
}

func (x *chaos) note(line string) {
	var name string
	var s span
	if n, _ := fmt.Sscanf(line, "held %s %d %d %d", &name, &s.fence, &s.from, &s.until); n != 4 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.spans[name] = append(x.spans[name], s)
}

// wait waits until the process has got every lock once more.
func (p *chaosProcess) wait() {
	p.x.Helper()
	select {
	case <-p.ended:
	case <-time.After(4 * labPatience):
		p.x.Fatal("a process is stuck")
	}
}

// run does harm to at most two nodes at a time, and makes it good again.
func (x *chaos) run(length time.Duration) map[string]int {
	faults := make(map[string]int)
	for end := time.Now().Add(length); time.Now().Before(end); {
		var undo []func()
		for _, i := range x.rng.Perm(len(x.servers))[:1+x.rng.IntN(2)] {
			kind, f := x.harm(i)
			faults[kind]++
			undo = append(undo, f)
		}
		time.Sleep(time.Duration(x.rng.IntN(1500)) * time.Millisecond)
		for _, f := range undo {
			f()
		}
		// Nodes that have forgotten are healed before others forget: more than a minority of
		// them would need an operator.
		comesTrue(x.T, "all nodes serve", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), labPatience)
			defer cancel()
			x.watch.Look(ctx)
			return x.watch.Serving() == len(x.servers)
		})
	}
	return faults
}

// harm does something to a node. The function that it returns ends it.
func (x *chaos) harm(i int) (string, func()) {
	s := x.servers[i]
	switch x.rng.IntN(5) {
	case 0:
		s.Kill()
		return "killed, came back empty", s.Start
	case 1:
		s.RestartEmpty()
		return "restarted empty", func() {}
	case 2:
		s.Pause()
		return "frozen", s.Resume
	case 3:
		p := x.links[x.rng.IntN(2)][i]
		p.Partition()
		return "cut off from half", p.Heal
	}
	p := x.links[x.rng.IntN(2)][i]
	p.FreezeDown()
	return "replies held back", p.Thaw
}

func (x *chaos) check(faults map[string]int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, last := range x.ended {
		if last != "<nil>" {
			x.Errorf("a process ended with %q", last)
		}
	}
	n := 0
	for _, name := range chaosNames {
		all := x.spans[name]
		n += len(all)
		slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
		for i := 1; i < len(all); i++ {
			a, b := all[i-1], all[i]
			if b.from < a.until {
				x.Errorf("%s: fence %d was held until %v, and %d from %v", name, a.fence, a.until, b.fence, b.from)
			}
			if b.fence <= a.fence {
				x.Errorf("%s: fence %d after %d", name, b.fence, a.fence)
			}
		}
	}
	x.Logf("%d leases in %d processes; faults: %v", n, len(x.ended), faults)
	if n < 10*len(x.ended) {
		x.Errorf("only %d leases", n)
	}
}
