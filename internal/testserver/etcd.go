package testserver

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// EtcdOptions says what an etcd cluster consists of.
type EtcdOptions struct {
	Members int // default 1
	// Current starts the version that etcdlock/etcdserver names, which scripts/install builds,
	// in place of the one that is installed.
	Current bool
	// TLS makes the members speak TLS with clients, and nothing else.
	TLS *TLSOptions
	// Args are further arguments of each member.
	Args []string
}

// EtcdCluster is an etcd cluster of its own for one test. Its methods that cannot do what they
// say end the test.
type EtcdCluster struct {
	t       testing.TB
	options EtcdOptions
	members []*EtcdMember
	ca      *CA // nil without TLS
	client  *http.Client
}

// EtcdMember is one server of a cluster.
type EtcdMember struct {
	cluster *EtcdCluster
	name    string
	id      string // as members say it to each other
	port    int
	release func() // of the port
	folder  string
	proc    *process
	gate    *peerGate // before its port for the other members
	proxy   *TCPProxy
}

// Etcd starts a cluster and returns when every member takes writes. It is killed when the test
// ends.
func Etcd(t testing.TB, options EtcdOptions) *EtcdCluster {
	t.Helper()
	options.Members = cmp.Or(options.Members, 1)
	c := &EtcdCluster{t: t, options: options, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	program := c.program()
	if options.TLS != nil {
		if c.ca = options.TLS.CA; c.ca == nil {
			c.ca = NewCA(t)
		}
		c.client.Transport.(*http.Transport).TLSClientConfig = c.ca.ClientConfig()
	}
	folder := memoryFolder(t) // before cleanUp, which comes first then
	t.Cleanup(c.cleanUp)
	for i := range options.Members {
		m := &EtcdMember{cluster: c, name: fmt.Sprintf("m%d", i+1), release: func() {}}
		m.folder = filepath.Join(folder, m.name)
		if err := os.Mkdir(m.folder, 0o700); err != nil {
			t.Fatal(err)
		}
		m.proc = &process{program: program, folder: m.folder, log: filepath.Join(m.folder, "log")}
		c.members = append(c.members, m)
	}
	for try := 1; ; try++ {
		err := c.launch()
		if err == nil {
			break
		}
		if try == 5 || !errors.Is(err, errPortTaken) {
			t.Fatalf("etcd: %v", err)
		}
	}
	for _, m := range c.members {
		m.proxy = Proxy(t, m.Addr())
	}
	return c
}

// memoryFolder returns a folder for a test, in memory where the system has one for that. A member
// syncs every entry of its log, and a disk that is busy with something else for seconds makes it
// miss elections. What is in memory outlives a member that is killed just as well.
func memoryFolder(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "holdfast-etcd-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

// program is the path of the server that the options ask for.
func (c *EtcdCluster) program() string {
	c.t.Helper()
	if !c.options.Current {
		return Need(c.t, "etcd")
	}
	_, here, _, _ := runtime.Caller(0)
	path := filepath.Join(filepath.Dir(here), "..", "..", "etcdlock", "etcdserver", ".installed", "etcd")
	if _, err := os.Stat(path); err != nil {
		Missing(c.t, "the current etcd has not been built: run scripts/install")
	}
	return path
}

// launch starts all members, on ports that it finds, without data.
func (c *EtcdCluster) launch() error {
	c.t.Helper()
	var all []string
	for _, m := range c.members {
		if err := m.proc.kill(); err != nil {
			return err
		}
		m.release()
		m.gate.close()
		m.port, m.release = reservePort(c.t, 1)
		m.gate = newPeerGate(c.t, loopback(m.port+1), c.ownerOf)
		all = append(all, m.name+"=http://"+m.gate.addr())
		if err := os.RemoveAll(m.data()); err != nil {
			return err
		}
	}
	for _, m := range c.members {
		m.proc.args = append(m.arguments(strings.Join(all, ",")), c.options.Args...)
		if err := m.proc.start(); err != nil {
			return err
		}
	}
	for _, m := range c.members {
		if err := m.awaitReady(); err != nil {
			return err
		}
		_, exited := m.proc.running()
		var s status
		err := poll(exited, func() (err error) {
			s, err = m.status()
			return err
		})
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(s.Header.Member, 10, 64)
		if err != nil {
			return err
		}
		m.id = strconv.FormatUint(id, 16)
	}
	return nil
}

func (m *EtcdMember) data() string { return filepath.Join(m.folder, "data") }

func (m *EtcdMember) arguments(cluster string) []string {
	args := []string{
		"--name=" + m.name, "--data-dir=" + m.data(), "--logger=zap", "--log-level=warn",
		"--listen-client-urls=" + m.url(), "--advertise-client-urls=" + m.url(),
		"--listen-peer-urls=http://" + loopback(m.port+1), "--initial-advertise-peer-urls=http://" + m.gate.addr(),
		"--initial-cluster=" + cluster, "--initial-cluster-state=new",
	}
	if o := m.cluster.options.TLS; o != nil {
		hosts := o.Hosts
		if len(hosts) == 0 {
			hosts = []string{"127.0.0.1", "localhost"}
		}
		files := m.cluster.ca.Issue("server-"+m.name, o.Expired, hosts...)
		args = append(args, "--cert-file="+files.Cert, "--key-file="+files.Key)
		if o.ClientCert {
			args = append(args, "--client-cert-auth", "--trusted-ca-file="+m.cluster.ca.File())
		}
	}
	return args
}

func (m *EtcdMember) url() string {
	if m.cluster.options.TLS != nil {
		return "https://" + m.Addr()
	}
	return "http://" + m.Addr()
}

// awaitReady returns nil when the member answers what the whole cluster has to agree on.
func (m *EtcdMember) awaitReady() error {
	_, exited := m.proc.running()
	err := poll(exited, m.healthy)
	if err == nil || !closed(exited) {
		return err
	}
	log := m.proc.tail(4096)
	if strings.Contains(log[max(0, strings.LastIndex(log, startLine)):], "address already in use") {
		return errPortTaken
	}
	return fmt.Errorf("%w\n%s", err, log)
}

func (m *EtcdMember) healthy() error {
	var health struct{ Health any }
	if err := m.ask("GET", "/health", &health); err != nil {
		return err
	}
	if fmt.Sprint(health.Health) != "true" {
		return fmt.Errorf("member %s is not healthy", m.name)
	}
	return nil
}

// status is what a member says of itself.
type status struct {
	Header struct {
		Member string `json:"member_id"`
	}
	Leader string
}

func (m *EtcdMember) status() (s status, err error) {
	err = m.ask("POST", "/v3/maintenance/status", &s)
	return s, err
}

// ask makes one request and decodes the answer.
func (m *EtcdMember) ask(method, path string, answer any) error {
	req, err := http.NewRequest(method, m.url()+path, bytes.NewReader([]byte("{}")))
	if err != nil {
		return err
	}
	client := *m.cluster.client
	client.Timeout = 2 * time.Second
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("member %s: %s: %.200s", m.name, resp.Status, body)
	}
	return json.Unmarshal(body, answer)
}

func (c *EtcdCluster) cleanUp() {
	for _, m := range c.members {
		if c.t.Failed() {
			c.t.Logf("log of etcd's member %s on port %d:\n%s", m.name, m.port, m.proc.tail(1500))
		}
		if err := m.proc.kill(); err != nil {
			c.t.Error(err)
		}
		m.gate.close()
		m.release()
	}
}

// Members returns the servers of the cluster.
func (c *EtcdCluster) Members() []*EtcdMember { return c.members }

// Addrs returns the addresses of the members, host:port.
func (c *EtcdCluster) Addrs() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.Addr())
	}
	return all
}

// ProxyAddrs returns the addresses of the members' proxies.
func (c *EtcdCluster) ProxyAddrs() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.proxy.Addr())
	}
	return all
}

// CA returns the authority that signed the members' certificates, nil without TLS.
func (c *EtcdCluster) CA() *CA { return c.ca }

// Leader returns the member that a majority takes for the leader, and waits until there is one.
func (c *EtcdCluster) Leader() *EtcdMember {
	c.t.Helper()
	var leader *EtcdMember
	err := poll(nil, func() error {
		votes := map[string]int{}
		ids := map[string]*EtcdMember{}
		for _, m := range c.members {
			if m.proc.down() {
				continue
			}
			if s, err := m.status(); err == nil {
				votes[s.Leader]++
				ids[s.Header.Member] = m
			}
		}
		for id, n := range votes {
			if leader = ids[id]; leader != nil && n > len(c.members)/2 {
				return nil
			}
		}
		return errors.New("the cluster has no leader")
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return leader
}

// AwaitReady returns when every member that runs answers what the cluster has to agree on.
func (c *EtcdCluster) AwaitReady() {
	c.t.Helper()
	for _, m := range c.members {
		if m.proc.down() {
			continue
		}
		if err := m.awaitReady(); err != nil {
			c.t.Fatalf("etcd: %v", err)
		}
	}
}

// Isolate takes m from the other members. Clients reach it as before: see Proxy for those.
func (c *EtcdCluster) Isolate(m *EtcdMember) {
	for _, other := range c.members {
		if other != m {
			other.gate.bar(m.id)
			m.gate.bar(other.id)
		}
	}
}

// ownerOf returns the id of the member that has that socket open, "" where none has.
func (c *EtcdCluster) ownerOf(inode string) string {
	for _, m := range c.members {
		if m.Running() && hasSocket(m.PID(), inode) {
			return m.id
		}
	}
	return ""
}

// Rejoin ends every Isolate.
func (c *EtcdCluster) Rejoin() {
	for _, m := range c.members {
		m.gate.admitAll()
	}
}

// Addr returns host:port.
func (m *EtcdMember) Addr() string { return loopback(m.port) }

// PID returns the process id of the last start.
func (m *EtcdMember) PID() int {
	proc, _ := m.proc.running()
	return proc.Pid
}

// Proxy returns the network between clients that dial its address and the member.
func (m *EtcdMember) Proxy() *TCPProxy { return m.proxy }

// Running reports whether the member's process is there.
func (m *EtcdMember) Running() bool { return !m.proc.down() }

// Start starts a member that is down, with what is on its disk, and does not wait for it: it
// may be one of too few.
func (m *EtcdMember) Start() {
	m.cluster.t.Helper()
	if err := m.proc.start(); err != nil {
		m.cluster.t.Fatalf("etcd: %v", err)
	}
}

// Kill ends the member at once, as a crash does, and returns when it is gone.
func (m *EtcdMember) Kill() {
	m.cluster.t.Helper()
	if err := m.proc.kill(); err != nil {
		m.cluster.t.Fatal(err)
	}
}

// Pause freezes the member.
func (m *EtcdMember) Pause() { m.cluster.t.Helper(); m.signal(freeze) }

// Resume ends a Pause. What was sent meanwhile is carried out.
func (m *EtcdMember) Resume() { m.cluster.t.Helper(); m.signal(resume) }

func (m *EtcdMember) signal(send func(*os.Process) error) {
	m.cluster.t.Helper()
	proc, _ := m.proc.running()
	if err := send(proc); err != nil {
		m.cluster.t.Fatalf("signal to etcd's member %s: %v", m.name, err)
	}
}

// TLSConfig returns what a client needs to talk to the cluster, nil without TLS.
func (c *EtcdCluster) TLSConfig() *tls.Config {
	c.t.Helper()
	if c.ca == nil {
		return nil
	}
	return c.ca.ClientConfig()
}
