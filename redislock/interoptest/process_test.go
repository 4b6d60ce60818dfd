package interoptest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// installed is where scripts/install puts the packages for Node.js.
const installed = ".installed"

// openPython starts peer.py.
func openPython(t testing.TB, server *testserver.RedisServer) client {
	t.Helper()
	// Debian's packages are seen by its own Python only, which need not be the first one.
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import redis").Run() == nil {
			return startPeer(t, nil, python, "peer.py", strconv.Itoa(server.Port()))
		}
	}
	testserver.Missing(t, "redis-py is not installed: apt-get install --no-install-recommends python3-redis")
	return nil
}

// openNode returns how to start peer.js for a library.
func openNode(library string) func(testing.TB, *testserver.RedisServer) client {
	return func(t testing.TB, server *testserver.RedisServer) client {
		t.Helper()
		return startNode(t, library, server)
	}
}

// startNode starts peer.js for a library, on one server or on several.
func startNode(t testing.TB, library string, servers ...*testserver.RedisServer) client {
	t.Helper()
	node := testserver.Need(t, "node")
	modules, err := filepath.Abs(filepath.Join(installed, "node_modules"))
	if err == nil {
		_, err = os.Stat(filepath.Join(modules, library, "package.json"))
	}
	if err != nil {
		testserver.Missing(t, "%s for Node.js is not installed: run scripts/install (%v)", library, err)
	}
	var ports []string
	for _, s := range servers {
		ports = append(ports, strconv.Itoa(s.Port()))
	}
	return startPeer(t, []string{"NODE_PATH=" + modules}, node, "peer.js", strings.Join(ports, ","), library)
}

// process is a foreign client in a process of its own. It carries out one command at a time.
type process struct {
	t       testing.TB
	in      io.WriteCloser
	answers chan string
	stderr  *bytes.Buffer

	mu   sync.Mutex
	last int
}

func startPeer(t testing.TB, env []string, program string, args ...string) client {
	t.Helper()
	p := &process{t: t, answers: make(chan string, 1), stderr: new(bytes.Buffer)}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = p.stderr
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.answers)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.answers <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.in.Close() // at the end of its input it ends
		end := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer end.Stop()
		for range p.answers {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, p.stderr)
		}
	})
	return p
}

// command sends a line and returns whether the answer was yes.
func (p *process) command(format string, args ...any) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return false, err
	}
	select {
	case answer, ok := <-p.answers:
		if ok && (answer == "yes" || answer == "no") {
			return answer == "yes", nil
		}
		return false, fmt.Errorf("%s: answer %q", line, answer)
	case <-time.After(patience):
		return false, fmt.Errorf("%s: no answer", line)
	}
}

func (p *process) acquire(key string, ttl time.Duration) (lock, error) {
	p.mu.Lock()
	p.last++
	id := p.last
	p.mu.Unlock()
	ok, err := p.command("acquire %d %s %d", id, key, ttl.Milliseconds())
	if err == nil && !ok {
		err = errHeld
	}
	return &processLock{p, id}, err
}

// processLock is a lock that the process knows by a number.
type processLock struct {
	p  *process
	id int
}

func (l *processLock) extend(ttl time.Duration) (bool, error) {
	return l.p.command("extend %d %d", l.id, ttl.Milliseconds())
}

func (l *processLock) release() (bool, error) { return l.p.command("release %d", l.id) }
