//go:build unix

package filelock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// helperEnv makes the test binary a process that uses locks.
const helperEnv = "HOLDFAST_FILELOCK_HELPER"

// helpers are the programs that such a process can be.
var helpers = map[string]func(args []string) error{
	"serve": serve,
	"count": count,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helperCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// process is another process that does what it is told.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, folder string) *process {
	t.Helper()
	p := &process{t: t, cmd: helperCommand("serve", folder)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	return p
}

// tell sends a command and does not wait for the answer.
func (p *process) tell(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

// answer reads the answer to a command: a word and a number.
func (p *process) answer() (word string, n int64) {
	p.t.Helper()
	type read struct {
		line string
		err  error
	}
	c := make(chan read, 1)
	go func() {
		line, err := p.out.ReadString('\n')
		c <- read{line, err}
	}()
	select {
	case r := <-c:
		if r.err != nil {
			p.t.Fatalf("the process gives no answer: %v", r.err)
		}
		fmt.Sscan(r.line, &word, &n)
	case <-time.After(liveness):
		p.t.Fatal("the process does not answer")
	}
	return word, n
}

// ask sends a command and checks the first word of the answer.
func (p *process) ask(want, format string, args ...any) int64 {
	p.t.Helper()
	p.tell(format, args...)
	return p.want(want)
}

func (p *process) want(want string) int64 {
	p.t.Helper()
	word, n := p.answer()
	if word != want {
		p.t.Fatalf("answer %q, want %q", word, want)
	}
	return n
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// freeze stops the process and returns once it stands still.
func (p *process) freeze() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	var ws unix.WaitStatus
	for {
		pid, err := unix.Wait4(p.cmd.Process.Pid, &ws, unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid != p.cmd.Process.Pid || !ws.Stopped() {
			p.t.Fatalf("wait4: %v, status %v", err, ws)
		}
		return
	}
}

// kill kills the process and returns once it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// serve carries out commands: "acquire ID NAME MODE [wait]", "upgrade ID", "renew ID",
// "release ID", "permits ID NAME WEIGHT LIMIT".
func serve(args []string) error {
	e, err := filelock.Open(args[0], filelock.Config{})
	if err != nil {
		return err
	}
	reqs := make(map[string]driver.Request)
	claims := make(map[string]driver.Claim)
	ctx := context.Background()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		op, id := f[0], f[1]
		switch op {
		case "acquire", "permits":
			r := request(f[2])
			r.Owner = id
			if op == "permits" {
				r.Mode = driver.Permits
				fmt.Sscan(f[3], &r.Weight)
				fmt.Sscan(f[4], &r.Limit)
			} else {
				r.Mode = map[string]driver.Mode{"x": driver.Exclusive, "s": driver.Shared, "u": driver.Upgradeable}[f[3]]
			}
			r.Wait = f[len(f)-1] == "wait"
			reqs[id] = r
			tell(e, claims, id, r)
		case "upgrade":
			r := reqs[id]
			r.Mode, r.Upgrade, r.Wait = driver.Exclusive, true, true
			tell(e, claims, id, r)
		case "renew":
			say("ok", 0, e.Renew(ctx, []driver.Claim{claims[id]})[0])
		case "release":
			say("ok", 0, e.Release(ctx, claims[id]))
		}
	}
	return lines.Err()
}

func tell(e *filelock.Engine, claims map[string]driver.Claim, id string, r driver.Request) {
	g, err := e.Acquire(context.Background(), r)
	if err == nil {
		claims[id] = r.Claim(g)
	}
	say("granted", g.Fence, err)
}

func say(word string, n int64, err error) {
	if err != nil {
		word = strings.ReplaceAll(err.(*driver.Error).Kind.String(), " ", "-")
	}
	fmt.Println(word, n)
}

func TestProcessesExclude(t *testing.T) {
	folder := t.TempDir()
	a, b := start(t, folder), start(t, folder)
	first := a.ask("granted", "acquire 1 n x")
	b.ask("held", "acquire 2 n x")
	b.ask("held", "acquire 2 n s")
	b.tell("acquire 3 n x wait")
	awaitWaiters(t, open(t, folder), "n", 1)
	a.ask("ok", "release 1")
	if f := b.want("granted"); f <= first {
		t.Errorf("fence %d after %d", f, first)
	}
	a.ask("held", "acquire 4 n x")
	a.ask("not-held", "release 1")
	b.ask("ok", "renew 3")
}

func TestKilledHolder(t *testing.T) {
	folder := t.TempDir()
	a, b, c := start(t, folder), start(t, folder), start(t, folder)
	first := a.ask("granted", "acquire 1 n x")
	b.tell("acquire 2 n x wait")
	observer := open(t, folder)
	awaitWaiters(t, observer, "n", 1)
	c.tell("acquire 3 n x wait")
	awaitWaiters(t, observer, "n", 2)
	a.kill()
	began := time.Now()
	second := b.want("granted")
	t.Logf("noticed after %v", time.Since(began))
	if second <= first {
		t.Errorf("fence %d after %d", second, first)
	}
	b.kill()
	if third := c.want("granted"); third <= second {
		t.Errorf("fence %d after %d", third, second)
	}
	// Without a waiter it is free at once.
	c.kill()
	if g := acquire(t, observer, request("n")); g.Fence <= second {
		t.Errorf("fence %d after %d", g.Fence, second)
	}
}

func TestKilledWaiter(t *testing.T) {
	folder := t.TempDir()
	a, b, c := start(t, folder), start(t, folder), start(t, folder)
	observer := open(t, folder)
	a.ask("granted", "acquire 1 n s")
	b.tell("acquire 2 n x wait")
	awaitWaiters(t, observer, "n", 1)
	c.tell("acquire 3 n s wait")
	awaitWaiters(t, observer, "n", 2)
	b.kill() // the writer that kept the second reader waiting
	c.want("granted")
	a.ask("ok", "release 1")
	c.ask("ok", "release 3")
	acquire(t, observer, request("n"))
}

// The kernel lock of a frozen process stands, and so does what it holds.
func TestFrozenHolderKeeps(t *testing.T) {
	folder := t.TempDir()
	a, b := start(t, folder), start(t, folder)
	a.ask("granted", "acquire 1 n x")
	a.freeze()
	for range 3 {
		b.ask("held", "acquire 2 n x")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // several looks of a waiter
	defer cancel()
	if _, err := open(t, folder).Acquire(ctx, waiting(request("n"))); err == nil {
		t.Fatal("the lock of a frozen holder was given away")
	}
	a.signal(syscall.SIGCONT)
	a.ask("ok", "renew 1")
	a.ask("ok", "release 1")
	b.ask("granted", "acquire 2 n x")
}

func TestModesAcrossProcesses(t *testing.T) {
	folder := t.TempDir()
	a, b, c := start(t, folder), start(t, folder), start(t, folder)
	observer := open(t, folder)
	a.ask("granted", "acquire 1 n s")
	b.ask("granted", "acquire 2 n u")
	c.ask("held", "acquire 3 n u")
	c.ask("granted", "acquire 3 n s")
	b.tell("upgrade 2")
	awaitWaiters(t, observer, "n", 1)
	a.ask("ok", "release 1")
	c.kill() // a reader that dies makes way as one that leaves does
	b.want("granted")
	a.ask("held", "acquire 1 n s")
	b.ask("ok", "release 2")

	a.ask("granted", "permits 4 p 2 3")
	b.ask("held", "permits 5 p 2 3")
	b.ask("granted", "permits 5 p 1 3")
	b.ask("invalid", "permits 6 p 1 4")
	b.tell("permits 6 p 2 3 wait")
	awaitWaiters(t, observer, "p", 1)
	a.kill()
	b.want("granted")
}

// A child must not keep the locks of a parent that was killed.
func TestChildrenInheritNothing(t *testing.T) {
	folder := t.TempDir()
	a := open(t, folder)
	acquire(t, a, request("n"))
	w := acquireAsync(patient(t), open(t, folder), waiting(request("n"))) // opens an inbox
	awaitWaiters(t, a, "n", 1)
	out, err := exec.Command("/bin/ls", "-l", "/proc/self/fd").Output()
	if err != nil {
		t.Skip("no /proc here")
	}
	if strings.Contains(string(out), folder) {
		t.Errorf("a child has:\n%s", out)
	}
	a.Close()
	await(t, w)
}
