package testserver

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// peerGate stands between the members of an etcd cluster and the port of one of them. All dial
// one address, as a cluster knows one for each member. The gate tells them apart by what the
// first request on a connection says, and can keep some of them out.
type peerGate struct {
	target   string
	port     int
	release  func()
	listener net.Listener
	owner    func(inode string) string // the id of the member that has that socket, "" for none
	work     sync.WaitGroup

	mu     sync.Mutex
	barred map[string]bool     // ids of members
	conns  map[net.Conn]string // and the id of who dialled, "" before that is known
	closed bool
}

func newPeerGate(t testing.TB, target string, owner func(inode string) string) *peerGate {
	t.Helper()
	g := &peerGate{target: target, owner: owner, barred: map[string]bool{}, conns: map[net.Conn]string{}}
	g.port, g.release = reservePort(t)
	err := poll(nil, func() (err error) {
		g.listener, err = net.Listen("tcp", g.addr())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	g.work.Go(g.accept)
	return g
}

func (g *peerGate) addr() string { return loopback(g.port) }

func (g *peerGate) accept() {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return // closed: nothing else ends a listener on the loopback
		}
		if g.enter(c, "") {
			g.work.Go(func() { g.serve(c) })
		}
	}
}

// enter notes a connection of a member. It reports false, and closes it, when that is barred.
func (g *peerGate) enter(c net.Conn, id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.barred[id] || id == anybody && len(g.barred) > 0 {
		c.Close()
		return false
	}
	g.conns[c] = id
	return true
}

func (g *peerGate) leave(c net.Conn) {
	c.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// dialler is the header in which members say who they are.
var dialler = regexp.MustCompile(`(?i)\r\nX-Server-From: ([0-9a-f]+)\r\n`)

// anybody is who dials without saying so: a member that looks whether another is there, or that
// passes a renewal of a lease on to the leader. Such a connection must not last when somebody
// is barred; those that are made then are told apart by whose socket is at the other end.
const anybody = "anybody"

// caller finds out who dials without saying so, while that matters.
func (g *peerGate) caller(c net.Conn) string {
	g.mu.Lock()
	matters := len(g.barred) > 0
	g.mu.Unlock()
	if !matters { // the list of all sockets is long
		return anybody
	}
	if inode := inodeOf(c); inode != "" {
		if id := g.owner(inode); id != "" {
			return id
		}
	}
	return anybody
}

// inodeOf returns the socket at the other end of a connection on the loopback, as /proc/net/tcp
// lists it: local address, remote address and, in the tenth column, the inode. "" where
// there is no such list.
func inodeOf(c net.Conn) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	local := fmt.Sprintf(":%04X", c.RemoteAddr().(*net.TCPAddr).Port)
	remote := fmt.Sprintf(":%04X", c.LocalAddr().(*net.TCPAddr).Port)
	for line := range strings.Lines(string(table)) {
		if !strings.Contains(line, local) {
			continue
		}
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], local) && strings.HasSuffix(f[2], remote) {
			return f[9]
		}
	}
	return ""
}

// hasSocket reports whether a process has that socket open.
func hasSocket(pid int, inode string) bool {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	all, _ := os.ReadDir(folder)
	for _, fd := range all {
		if link, _ := os.Readlink(filepath.Join(folder, fd.Name())); link == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// serve forwards a connection once it has seen who dials.
func (g *peerGate) serve(c net.Conn) {
	defer g.leave(c)
	head := make([]byte, 0, 4096)
	for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < cap(head) {
		n, err := c.Read(head[len(head):cap(head)])
		if head = head[:len(head)+n]; err != nil {
			return
		}
	}
	var id string
	if m := dialler.FindSubmatch(head); m != nil {
		id = string(m[1])
	} else {
		id = g.caller(c)
	}
	if !g.enter(c, id) {
		return
	}
	up, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	if !g.enter(up, id) {
		return
	}
	defer g.leave(up)
	g.work.Go(func() {
		_, _ = io.Copy(c, up)
		c.Close()
	})
	if _, err := up.Write(head); err == nil {
		_, _ = io.Copy(up, c)
	}
}

// bar closes the connections of a member and takes no more of them.
func (g *peerGate) bar(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.barred[id] = true
	for c, who := range g.conns {
		if who == id || who == anybody {
			c.Close()
		}
	}
}

// admitAll ends every bar.
func (g *peerGate) admitAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.barred)
}

// close ends the gate and its connections and returns when its goroutines are gone. A gate
// that was never made is closed.
func (g *peerGate) close() {
	if g == nil {
		return
	}
	g.listener.Close()
	g.mu.Lock()
	g.closed = true
	for c := range g.conns {
		c.Close()
	}
	g.mu.Unlock()
	g.work.Wait()
	g.release()
}
