package testserver

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisOptions says how a server differs from a plain one: no password, no TLS, nothing
// written to disk.
type RedisOptions struct {
	// Password is what clients must know as the default user.
	Password string
	// Users are further users, each as the server's configuration has it after the word
	// "user": "app on >secret ~app:* +@all".
	Users []string
	// TLS makes the port speak TLS, and nothing else.
	TLS *TLSOptions
	// AppendOnly keeps the data in a log on disk: it survives Kill and Restart.
	AppendOnly bool
	// ReplicaOf makes the server a replica of one of this package, at this address or behind
	// it.
	ReplicaOf string
	// Config are further lines of the configuration file, as "maxmemory 1mb".
	Config []string
	// OwnClock gives the server a wall clock that SetClock moves. It needs Linux and gcc.
	OwnClock bool
}

// TLSOptions says what certificate a server shows and demands.
type TLSOptions struct {
	// CA signs the certificate; nil makes an authority for this server.
	CA *CA
	// Hosts are what the certificate is for. Default: 127.0.0.1 and localhost.
	Hosts []string
	// Expired makes a certificate that has expired.
	Expired bool
	// ClientCert demands a certificate of the same CA from clients.
	ClientCert bool
}

// The user as whom this package talks to its servers, whatever a test does to the others.
const (
	ownUser     = "testserver"
	ownPassword = "testserver"
)

// RedisServer is a redis-server of its own for one test. Its methods that cannot do what they
// say end the test: call them from its goroutine, or from one that it waits for.
type RedisServer struct {
	t        testing.TB
	options  RedisOptions
	sentinel bool // does not hold data but watches those that do
	port     int
	offsets  []int  // of further ports that it listens on
	release  func() // of the ports
	folder   string
	proc     *process
	clock    *clock      // nil where it is the machine's
	ca       *CA         // nil without TLS
	security *tls.Config // for this package's own exchanges, nil without TLS
}

// Redis starts a server and returns when it answers. It is killed when the test ends.
func Redis(t testing.TB, options RedisOptions) *RedisServer {
	t.Helper()
	s := newRedis(t, options)
	s.launch()
	return s
}

// newRedis prepares a server that has no port yet.
func newRedis(t testing.TB, options RedisOptions) *RedisServer {
	t.Helper()
	program := Need(t, cmp.Or(os.Getenv("HOLDFAST_REDIS_SERVER"), "redis-server"))
	s := &RedisServer{t: t, options: options, folder: t.TempDir(), release: func() {}}
	s.proc = &process{
		program: program,
		args:    []string{s.path("redis.conf")},
		folder:  s.path("data"),
		log:     s.path("log"),
	}
	if options.OwnClock {
		s.clock = newClock(t, s.folder)
		s.proc.env = s.clock.env
	}
	s.prepareTLS()
	return s
}

func (s *RedisServer) path(name string) string { return filepath.Join(s.folder, name) }

// launch starts the server for the first time, on a port that it finds.
func (s *RedisServer) launch() {
	s.t.Helper()
	s.t.Cleanup(s.cleanUp)
	for try := 1; ; try++ {
		s.release()
		s.port, s.release = reservePort(s.t, s.offsets...)
		s.writeFiles()
		err := s.start()
		if err == nil {
			return
		}
		if try == 5 || !errors.Is(err, errPortTaken) {
			s.t.Fatalf("redis-server on port %d: %v\n%s", s.port, err, s.LogTail())
		}
	}
}

func (s *RedisServer) cleanUp() {
	if s.t.Failed() {
		s.t.Logf("log of the redis-server on port %d:\n%s", s.port, s.proc.tail(1500))
	}
	if err := s.proc.kill(); err != nil {
		s.t.Error(err)
	}
	s.release()
}

func (s *RedisServer) writeFiles() {
	s.t.Helper()
	err := os.MkdirAll(s.path("data"), 0o700)
	if err == nil {
		err = os.WriteFile(s.path("redis.conf"), []byte(strings.Join(s.config(), "\n")+"\n"), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// config returns the lines of the configuration file. A file and not flags: others can read a
// command line, and servers rewrite their file when they change sides.
func (s *RedisServer) config() []string {
	o := s.options
	lines := append(s.tlsConfig(),
		"bind 127.0.0.1",
		"daemonize no",
		"dir "+strconv.Quote(s.path("data")),
		fmt.Sprintf("user %s on >%s ~* &* +@all", ownUser, ownPassword),
	)
	if !s.sentinel {
		lines = append(lines,
			`save ""`,
			"appendonly "+yesNo(o.AppendOnly),
			"masteruser "+ownUser,
			"masterauth "+ownPassword,
			"repl-diskless-sync-delay 0",
		)
	}
	if o.Password != "" {
		lines = append(lines, "requirepass "+strconv.Quote(o.Password))
	}
	for _, u := range o.Users {
		lines = append(lines, "user "+u)
	}
	if o.ReplicaOf != "" {
		host, port, err := net.SplitHostPort(o.ReplicaOf)
		if err != nil {
			s.t.Fatal(err)
		}
		lines = append(lines, "replicaof "+host+" "+port)
	}
	return append(lines, o.Config...)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Start starts a server that is down, on its port and with what is on its disk, and returns
// when it answers something else than LOADING.
func (s *RedisServer) Start() {
	s.t.Helper()
	err := s.start()
	for deadline := time.Now().Add(patience); errors.Is(err, errPortTaken) && time.Now().Before(deadline); {
		err = s.start()
	}
	if err != nil {
		s.t.Fatalf("redis-server on port %d: %v\n%s", s.port, err, s.LogTail())
	}
}

func (s *RedisServer) start() error {
	if err := s.proc.start(); err != nil {
		return err
	}
	_, exited := s.proc.running()
	err := poll(exited, s.ready)
	if err == nil || !closed(exited) {
		return err
	}
	log := s.LogTail()
	if strings.Contains(log[max(0, strings.LastIndex(log, startLine)):], "Address already in use") {
		return errPortTaken
	}
	return err
}

// ready is nil when the process that was started answers, and not another on its port.
func (s *RedisServer) ready() error {
	reply, err := s.do(2*time.Second, "INFO")
	if err != nil {
		return err
	}
	info := parseInfo(reply)
	if info["process_id"] != strconv.Itoa(s.PID()) {
		return fmt.Errorf("process %s answers on the port of process %d", info["process_id"], s.PID())
	}
	if info["loading"] == "1" {
		return errors.New("the server is loading its data")
	}
	return nil
}

// parseInfo returns the fields of an INFO reply.
func parseInfo(reply any) map[string]string {
	text, _ := reply.(string)
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[k] = v
		}
	}
	return fields
}

// replicates is nil when so many replicas get from the server what is written to it, and the
// server, if it is a replica itself, has caught up with its master.
func (s *RedisServer) replicates(replicas int) error {
	info, err := s.Info()
	if err != nil {
		return err
	}
	if info["role"] == "slave" && info["master_link_status"] != "up" {
		return fmt.Errorf("the replica on port %d has no link to its master", s.port)
	}
	for i := range replicas {
		// As in "ip=127.0.0.1,port=1,state=online": until then a write waits at the master.
		replica := info["slave"+strconv.Itoa(i)]
		if !slices.Contains(strings.Split(replica, ","), "state=online") {
			return fmt.Errorf("replica %d of the server on port %d: %q", i, s.port, replica)
		}
	}
	return nil
}

// pairs returns the fields of a reply that lists names and values in turn.
func pairs(reply any) map[string]string {
	list, _ := reply.([]any)
	fields := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		fields[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return fields
}

// Addr returns host:port.
func (s *RedisServer) Addr() string { return loopback(s.port) }

// Port returns the port, the same over restarts.
func (s *RedisServer) Port() int { return s.port }

// PID returns the process id of the last start.
func (s *RedisServer) PID() int {
	proc, _ := s.proc.running()
	return proc.Pid
}

// down is true while the server does not run.
func (s *RedisServer) down() bool { return s.proc.down() }

// Pause freezes the server: connections are accepted by the system, nothing is carried out.
func (s *RedisServer) Pause() {
	s.t.Helper()
	s.signal(freeze)
	_, exited := s.proc.running()
	err := poll(exited, func() error {
		if !frozen(s.PID()) {
			return errors.New("the server is not frozen yet")
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("redis-server on port %d: %v", s.port, err)
	}
}

// Resume ends a Pause. What was sent meanwhile is carried out.
func (s *RedisServer) Resume() { s.t.Helper(); s.signal(resume) }

func (s *RedisServer) signal(send func(*os.Process) error) {
	s.t.Helper()
	proc, _ := s.proc.running()
	if err := send(proc); err != nil {
		s.t.Fatalf("signal to the redis-server on port %d: %v", s.port, err)
	}
}

// SetClock sets by how much the server's wall clock is ahead of the machine's; less than nothing
// is behind. It steps there at once, frozen or not, and a server that is down starts with it.
// The clocks by which programs measure time that passes do not step: as when an operator sets
// a clock. Steps forward also age what a master last heard of its replicas; beyond repl-timeout,
// 60 s, it drops them. The server needs OwnClock; without it the test ends.
func (s *RedisServer) SetClock(ahead time.Duration) {
	s.t.Helper()
	if s.clock == nil {
		s.t.Fatalf("the redis-server on port %d has no clock of its own: start it with OwnClock", s.port)
	}
	s.clock.set(ahead)
}

// Kill ends the server at once, as a crash does, and returns when it is gone.
func (s *RedisServer) Kill() {
	s.t.Helper()
	if err := s.proc.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop shuts the server down in order and returns when it is gone.
func (s *RedisServer) Stop() {
	s.t.Helper()
	if err := s.proc.stop(); err != nil {
		s.t.Fatal(err)
	}
}

// Restart kills the server if it runs, and starts it on its port with what is on its disk:
// nothing, unless it is AppendOnly.
func (s *RedisServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// RestartEmpty is Restart after the loss of the disk. The configuration survives.
func (s *RedisServer) RestartEmpty() {
	s.t.Helper()
	s.Kill()
	err := os.RemoveAll(s.path("data"))
	if err == nil {
		err = os.Mkdir(s.path("data"), 0o700)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.Start()
}

// Do carries out one command on a connection of its own, as a user who may do everything. The
// reply is as for [Conn.Do]. Commands that are about the connection need one from Dial: WAIT,
// for one, waits for the writes of its connection only.
func (s *RedisServer) Do(args ...string) (any, error) { return s.do(patience, args...) }

func (s *RedisServer) do(limit time.Duration, args ...string) (any, error) {
	c, err := s.dial(limit)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Do(args...)
}

// Dial returns a connection of a user who may do everything.
func (s *RedisServer) Dial() (*Conn, error) { return s.dial(patience) }

func (s *RedisServer) dial(limit time.Duration) (*Conn, error) {
	c, err := dial(s.Addr(), s.security, limit)
	if err != nil {
		return nil, err
	}
	if _, err := c.Do("AUTH", ownUser, ownPassword); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Info returns the fields of INFO.
func (s *RedisServer) Info() (map[string]string, error) {
	reply, err := s.Do("INFO", "everything")
	return parseInfo(reply), err
}

// LogTail returns the end of the server's log.
func (s *RedisServer) LogTail() string { return s.proc.tail(4096) }
