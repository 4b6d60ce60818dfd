package cluster

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. It is long because machines are busy, not because anything
// takes long.
const patience = time.Minute

// child is set in the environment of the processes that Start starts.
const child = "HOLDFAST_EXAMPLE_CHILD"

// Main is for TestMain: it runs the tests, and in the processes that they start the example.
func Main(m *testing.M, main func()) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	go func() { // the other end is closed when the test is gone, however that ended
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	main()
}

// Process is an example that runs as a process of its own.
type Process struct {
	t   testing.TB
	cmd *exec.Cmd

	mu      sync.Mutex
	output  []byte
	written chan struct{} // closed, and replaced, when something was written
	exited  chan struct{}
	err     error // how it ended, once exited is closed
}

// Start starts the example with these flags. It is killed when the test ends.
func Start(t testing.TB, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(os.Args[0], args...), written: make(chan struct{}), exited: make(chan struct{})}
	// The race detector sleeps for a second at every exit, unless it is told not to.
	p.cmd.Env = append(os.Environ(), child+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = p, p
	stdin, err := p.cmd.StdinPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Kill()
		stdin.Close()
		if t.Failed() {
			t.Logf("output of %q:\n%s", args, strings.Join(p.Lines(), "\n"))
		}
	})
	return p
}

// Write takes what the process prints.
func (p *Process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.output = append(p.output, data...)
	close(p.written)
	p.written = make(chan struct{})
	return len(data), nil
}

// Lines returns the whole lines that the process has printed.
func (p *Process) Lines() []string {
	lines, _ := p.printed()
	return lines
}

func (p *Process) printed() (lines []string, more <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	whole := p.output[:bytes.LastIndexByte(p.output, '\n')+1]
	return strings.Split(strings.TrimSuffix(string(whole), "\n"), "\n"), p.written
}

// Await waits until the process has printed n lines that match, and returns the last of those
// with its submatches. It ends the test when the process ends before.
func (p *Process) Await(n int, pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		lines, more := p.printed()
		lines = slices.DeleteFunc(lines, func(line string) bool { return !re.MatchString(line) })
		if len(lines) >= n {
			return re.FindStringSubmatch(lines[n-1])
		}
		select {
		case <-more:
		case <-p.exited:
			p.t.Fatalf("the process ended before it printed %q %d times: %v", pattern, n, p.err)
		case <-deadline:
			p.t.Fatalf("the process did not print %q %d times within %v", pattern, n, patience)
		}
	}
}

// Freeze stops the process where it is.
func (p *Process) Freeze() { p.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (p *Process) Thaw() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Kill ends the process as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails when it is gone already
	<-p.exited
}

// Stop ends the process as SIGTERM does, and expects it to end well.
func (p *Process) Stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("the process did not end within %v of SIGTERM", patience)
	}
	if p.err != nil {
		p.t.Errorf("after SIGTERM: %v", p.err)
	}
}
