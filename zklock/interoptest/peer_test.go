package interoptest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// patience bounds every wait: long, because machines are busy.
const patience = 60 * time.Second

// curatorJars is what a program with Curator needs.
var curatorJars = []string{
	"curator-recipes", "curator-framework", "curator-client", "zookeeper", "zookeeper-jute", "guava",
	"slf4j-api", "slf4j-nop", "netty-buffer", "netty-codec", "netty-common", "netty-handler",
	"netty-resolver", "netty-transport", "netty-transport-native-epoll", "netty-transport-native-unix-common",
}

// startCurator compiles Peer.java and starts it.
func startCurator(t *testing.T, server string) *peer {
	t.Helper()
	classes := t.TempDir()
	path := testserver.JavaClassPath(t, "libcurator-recipes-java", curatorJars...)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, testserver.Need(t, "javac"), "-cp", path, "-d", classes, "Peer.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return startPeer(t, testserver.Need(t, "java"), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-cp", path+string(filepath.ListSeparator)+classes, "Peer", server)
}

// startKazoo starts peer.py.
func startKazoo(t *testing.T, server string) *peer {
	t.Helper()
	// Debian's packages are seen by its own Python only, which need not be the first one.
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import kazoo").Run() == nil {
			return startPeer(t, python, "peer.py", server)
		}
	}
	testserver.Missing(t, "kazoo is not installed: apt-get install --no-install-recommends python3-kazoo")
	return nil
}

// peer is a foreign client in a process of its own.
type peer struct {
	t      *testing.T
	in     io.WriteCloser
	stderr *bytes.Buffer

	mu      sync.Mutex
	last    int
	answers map[string]chan string // by the id of the lock
}

func startPeer(t *testing.T, program string, args ...string) *peer {
	t.Helper()
	p := &peer{t: t, stderr: new(bytes.Buffer), answers: make(map[string]chan string)}
	cmd := exec.Command(program, args...)
	cmd.Stderr = p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			id, answer, _ := strings.Cut(s.Text(), " ")
			p.mu.Lock()
			c := p.answers[id]
			p.mu.Unlock()
			if c != nil {
				c <- answer
			}
		}
	}()
	t.Cleanup(func() {
		in.Close() // at the end of its input it ends
		end := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer end.Stop()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", program, err, p.stderr)
		}
	})
	return p
}

// theirs is a lock that the peer holds or waits for.
type theirs struct {
	p      *peer
	id     string
	answer chan string
}

// start asks for a lock that may take so long.
func (p *peer) start(kind, path string, n int, wait time.Duration) *theirs {
	p.t.Helper()
	p.mu.Lock()
	p.last++
	l := &theirs{p: p, id: fmt.Sprint(p.last), answer: make(chan string, 2)}
	p.answers[l.id] = l.answer
	p.mu.Unlock()
	p.send("acquire %s %s %s %d %d", l.id, kind, path, n, wait.Milliseconds())
	return l
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatalf("%v\n%s", err, p.stderr)
	}
}

// got reports whether the peer has been granted it, once it says.
func (l *theirs) got() bool {
	l.p.t.Helper()
	select {
	case a := <-l.answer:
		if a != "yes" && a != "no" {
			l.p.t.Fatalf("the peer says %q\n%s", a, l.p.stderr)
		}
		return a == "yes"
	case <-time.After(patience):
		l.p.t.Fatalf("the peer says nothing\n%s", l.p.stderr)
		return false
	}
}

// take has the peer take what has to be free.
func (p *peer) take(kind, path string, n int) *theirs {
	p.t.Helper()
	l := p.start(kind, path, n, patience)
	if !l.got() {
		p.t.Fatalf("the peer does not get the %s at %s", kind, path)
	}
	return l
}

// refused has the peer try for what has to be taken.
func (p *peer) refused(kind, path string, n int) {
	p.t.Helper()
	if p.start(kind, path, n, 50*time.Millisecond).got() {
		p.t.Fatalf("the peer gets the %s at %s, which is held", kind, path)
	}
}

func (l *theirs) release() {
	l.p.t.Helper()
	l.p.send("release %s", l.id)
	if !l.got() {
		l.p.t.Fatal("the peer cannot release")
	}
}
