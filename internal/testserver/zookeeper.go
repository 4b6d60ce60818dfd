package testserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// jars is where Debian has the libraries of Java, and zooKeeperJars what the server needs.
const jars = "/usr/share/java"

var zooKeeperJars = []string{
	"zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple", "metrics-core", "snappy-java",
	"netty-buffer", "netty-codec", "netty-common", "netty-handler", "netty-resolver",
	"netty-transport", "netty-transport-native-epoll", "netty-transport-native-unix-common",
}

// ZooKeeperOptions says how servers differ from plain ones.
type ZooKeeperOptions struct {
	// Tick is the server's unit of time, in which sessions expire and peers are missed.
	// Default: 100 ms.
	Tick time.Duration
	// MinSession and MaxSession bound the timeouts of sessions. Default: 2 and 3000 ticks.
	MinSession, MaxSession time.Duration
	// Config are further lines of the configuration file, as "maxClientCnxns=3".
	Config []string
	// TLS gives the server one more port, which speaks TLS: see SecureAddr. Nil for none.
	TLS *TLSOptions
	// Properties are further properties of the Java machine, as "jute.maxbuffer=4096".
	Properties []string
}

// ZooKeeperServer is a ZooKeeper server of its own for one test, alone or in an ensemble. Its
// methods that cannot do what they say end the test.
type ZooKeeperServer struct {
	t       testing.TB
	options ZooKeeperOptions
	id      int
	port    int
	release func() // of the ports
	folder  string
	proc    *process
	ca      *CA // nil without TLS
}

// Offsets of the ports at which the servers of an ensemble talk to each other.
const (
	zooKeeperPeer     = 1
	zooKeeperElection = 2
	zooKeeperSecure   = 3 // for clients that speak TLS
)

// ZooKeeper starts a server on its own and returns when it serves. It is killed when the test
// ends.
func ZooKeeper(t testing.TB, options ZooKeeperOptions) *ZooKeeperServer {
	t.Helper()
	s := newZooKeeper(t, options, 1)
	for try := 1; ; try++ {
		s.writeConfig(nil)
		err := s.start("standalone")
		if err == nil {
			return s
		}
		if try == 5 || !errors.Is(err, errPortTaken) {
			t.Fatalf("ZooKeeper on port %d: %v\n%s", s.port, err, s.proc.tail(4096))
		}
		s.release()
		s.port, s.release = reservePort(t, zooKeeperPeer, zooKeeperElection, zooKeeperSecure)
	}
}

// JavaClassPath returns what the Java machine needs to find Debian's libraries of those names,
// without their endings. Where one is missing the test is skipped or fails, as for Need; pkg
// is the package that has them.
func JavaClassPath(t testing.TB, pkg string, names ...string) string {
	t.Helper()
	var all []string
	for _, name := range names {
		path := filepath.Join(jars, name+".jar")
		if _, err := os.Stat(path); err != nil {
			Missing(t, "%s is not installed: apt-get install --no-install-recommends %s", path, pkg)
		}
		all = append(all, path)
	}
	return strings.Join(all, string(os.PathListSeparator))
}

// newZooKeeper prepares a server, with ports of its own.
func newZooKeeper(t testing.TB, options ZooKeeperOptions, id int) *ZooKeeperServer {
	t.Helper()
	if options.Tick == 0 {
		options.Tick = 100 * time.Millisecond
	}
	if options.MinSession == 0 {
		options.MinSession = 2 * options.Tick
	}
	if options.MaxSession == 0 {
		options.MaxSession = 3000 * options.Tick
	}
	java := Need(t, "java")
	classes := JavaClassPath(t, packages["zookeeper"], zooKeeperJars...)
	s := &ZooKeeperServer{t: t, options: options, id: id, folder: t.TempDir()}
	s.port, s.release = reservePort(t, zooKeeperPeer, zooKeeperElection, zooKeeperSecure)
	// Two servers on a small machine: no compiler that takes its time, no heap to speak of,
	// and no waiting for a disk that no test pulls the plug of.
	args := []string{
		"-Xms32m", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		"-Dzookeeper.admin.enableServer=false", "-Dzookeeper.forceSync=no",
		"-Dzookeeper.fastleader.maxNotificationInterval=400",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dzookeeper.4lw.commands.whitelist=*", "-Djava.net.preferIPv4Stack=true",
	}
	for _, p := range options.Properties {
		args = append(args, "-D"+p)
	}
	args = append(args, "-cp", classes, "org.apache.zookeeper.server.quorum.QuorumPeerMain", s.path("zoo.cfg"))
	s.proc = &process{program: java, args: args, folder: s.folder, log: s.path("log")}
	t.Cleanup(s.cleanUp)
	return s
}

func (s *ZooKeeperServer) path(name string) string { return filepath.Join(s.folder, name) }

func (s *ZooKeeperServer) cleanUp() {
	if s.t.Failed() {
		s.t.Logf("log of the ZooKeeper on port %d:\n%s", s.port, s.proc.tail(3000))
	}
	if err := s.proc.kill(); err != nil {
		s.t.Error(err)
	}
	s.release()
}

// writeConfig writes the configuration, for an ensemble with the lines that name its members.
func (s *ZooKeeperServer) writeConfig(members []string) {
	s.t.Helper()
	o := s.options
	lines := append([]string{
		"tickTime=" + strconv.FormatInt(o.Tick.Milliseconds(), 10),
		"minSessionTimeout=" + strconv.FormatInt(o.MinSession.Milliseconds(), 10),
		"maxSessionTimeout=" + strconv.FormatInt(o.MaxSession.Milliseconds(), 10),
		"initLimit=30",
		"syncLimit=10",
		"maxClientCnxns=0",
		"dataDir=" + s.path("data"),
		"clientPort=" + strconv.Itoa(s.port),
		"clientPortAddress=127.0.0.1",
	}, append(members, o.Config...)...)
	lines = append(lines, s.tlsConfig()...)
	err := os.MkdirAll(s.path("data"), 0o700)
	if err == nil {
		err = os.WriteFile(s.path("zoo.cfg"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	}
	if err == nil && len(members) > 0 {
		err = os.WriteFile(s.path("data/myid"), []byte(strconv.Itoa(s.id)), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// tlsConfig returns the lines about the port that speaks TLS. The server itself has that with
// Netty only.
func (s *ZooKeeperServer) tlsConfig() []string {
	o := s.options.TLS
	if o == nil {
		return nil
	}
	if s.ca = o.CA; s.ca == nil {
		s.ca = NewCA(s.t)
	}
	hosts := o.Hosts
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1", "localhost"}
	}
	files := s.ca.Issue("server", o.Expired, hosts...)
	demands := "none"
	if o.ClientCert {
		demands = "need"
	}
	return []string{
		"serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
		"secureClientPort=" + strconv.Itoa(s.port+zooKeeperSecure),
		"secureClientPortAddress=127.0.0.1",
		"ssl.keyStore.type=PEM", "ssl.keyStore.location=" + s.keyStore(files),
		"ssl.trustStore.type=PEM", "ssl.trustStore.location=" + s.ca.File(),
		"ssl.hostnameVerification=false", // of clients, which are no hosts
		"ssl.clientAuth=" + demands,
	}
}

// keyStore writes a certificate and its key into one file, as ZooKeeper wants them.
func (s *ZooKeeperServer) keyStore(files CertFiles) string {
	s.t.Helper()
	var both []byte
	for _, file := range []string{files.Key, files.Cert} {
		pem, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		both = append(both, pem...)
	}
	path := s.path("keystore.pem")
	if err := os.WriteFile(path, both, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// SecureAddr returns the host:port of clients that speak TLS, and CA the authority that signed
// the server's certificate. There are none unless the options say TLS.
func (s *ZooKeeperServer) SecureAddr() string { return loopback(s.port + zooKeeperSecure) }

// CA is described at SecureAddr.
func (s *ZooKeeperServer) CA() *CA { return s.ca }

// start starts the process and waits until it serves in one of the modes, none for any.
func (s *ZooKeeperServer) start(modes ...string) error {
	if err := s.proc.start(); err != nil {
		return err
	}
	return s.serves(modes...)
}

func (s *ZooKeeperServer) serves(modes ...string) error {
	_, exited := s.proc.running()
	err := poll(exited, func() error {
		mode := s.Mode()
		for _, m := range modes {
			if m == mode {
				return nil
			}
		}
		return fmt.Errorf("its mode is %q", mode)
	})
	if err != nil && closed(exited) && strings.Contains(s.proc.tail(8192), "Address already in use") {
		return errPortTaken
	}
	return err
}

// Mode returns "leader", "follower" or "standalone", and nothing while the server does not
// serve.
func (s *ZooKeeperServer) Mode() string {
	answer, err := s.Word("srvr")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(answer) {
		if mode, ok := strings.CutPrefix(strings.TrimSpace(line), "Mode: "); ok {
			return mode
		}
	}
	return ""
}

// Word sends a four letter word, as "srvr" or "cons", and returns the answer.
func (s *ZooKeeperServer) Word(word string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Addr(), 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// Addr returns the host:port of clients.
func (s *ZooKeeperServer) Addr() string { return loopback(s.port) }

// PID returns the process id of the last start.
func (s *ZooKeeperServer) PID() int {
	proc, _ := s.proc.running()
	return proc.Pid
}

// Kill ends the server at once, as a crash does, and returns when it is gone.
func (s *ZooKeeperServer) Kill() {
	s.t.Helper()
	if err := s.proc.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Start starts a server that is down, with what is on its disk, and returns when it serves: in
// an ensemble that takes a majority.
func (s *ZooKeeperServer) Start() {
	s.t.Helper()
	s.startProcess()
	if err := s.serves("leader", "follower", "standalone"); err != nil {
		s.t.Fatalf("ZooKeeper on port %d: %v\n%s", s.port, err, s.proc.tail(4096))
	}
}

func (s *ZooKeeperServer) startProcess() {
	s.t.Helper()
	if err := s.proc.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Restart kills the server if it runs, and starts it with what is on its disk.
func (s *ZooKeeperServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Pause freezes the server: connections are accepted by the system, nothing is carried out.
func (s *ZooKeeperServer) Pause() {
	s.t.Helper()
	proc, exited := s.proc.running()
	err := freeze(proc)
	if err == nil {
		err = poll(exited, func() error {
			if !frozen(proc.Pid) {
				return errors.New("the server is not frozen yet")
			}
			return nil
		})
	}
	if err != nil {
		s.t.Fatalf("ZooKeeper on port %d: %v", s.port, err)
	}
}

// Resume ends a Pause.
func (s *ZooKeeperServer) Resume() {
	s.t.Helper()
	proc, _ := s.proc.running()
	if err := resume(proc); err != nil {
		s.t.Fatalf("ZooKeeper on port %d: %v", s.port, err)
	}
}
