package cluster

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
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
	main()
}

// Process is an example that runs as a process of its own.
type Process struct {
	*testserver.Program
	t testing.TB
}

// Start starts the example with these flags. It is killed when the test ends.
func Start(t testing.TB, args ...string) *Process {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The race detector sleeps for a second at every exit, unless it is told not to.
	return &Process{testserver.Run(t, path, args, []string{child + "=1", "GORACE=atexit_sleep_ms=0"}), t}
}

// Lines returns the whole lines that the process has printed.
func (p *Process) Lines() []string {
	p.t.Helper()
	text, begin := p.Output()
	text = text[begin:]
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	return strings.Split(strings.TrimSuffix(string(whole), "\n"), "\n")
}

// Await waits until the process has printed n lines that match, and returns the last of those
// with its submatches. It ends the test when the process ends before.
func (p *Process) Await(n int, pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		running := p.Running() // asked first: all that it printed is there when it has ended
		lines := slices.DeleteFunc(p.Lines(), func(line string) bool { return !re.MatchString(line) })
		switch {
		case len(lines) >= n:
			return re.FindStringSubmatch(lines[n-1])
		case !running:
			p.t.Fatalf("the process ended before it printed %q %d times", pattern, n)
		case time.Now().After(deadline):
			p.t.Fatalf("the process did not print %q %d times within %v", pattern, n, patience)
		}
	}
}

// Stop ends the process as SIGTERM does, and expects it to end well.
func (p *Process) Stop() {
	p.t.Helper()
	p.Program.Stop()
	if code := p.ExitCode(); code != 0 {
		p.t.Errorf("exit code %d after SIGTERM", code)
	}
}
