package testserver

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// MariaDBOptions says how a server differs from a plain one: everything in memory or on a disk
// that is not waited for, nothing replicated.
type MariaDBOptions struct {
	// Args are further arguments of mariadbd, as "--max-connections=20".
	Args []string
}

// The user of a MariaDB server who may do everything, and its schema. Both are there from the
// start; the administrator's account has no password and is for this machine.
const (
	mariadbUser   = "root"
	mariadbSchema = "app"
)

// MariaDBServer is a mariadbd of its own. Its methods that cannot do what they say end the test:
// call them from its goroutine, or from one that it waits for.
type MariaDBServer struct {
	t       testing.TB
	options MariaDBOptions
	port    int
	release func() // of the port
	folder  string
	proc    *process
}

// MariaDB starts a server with an empty schema and returns when it answers. It is killed when
// the test ends.
func MariaDB(t testing.TB, options MariaDBOptions) *MariaDBServer {
	t.Helper()
	program, installer := Need(t, "mariadbd"), Need(t, "mariadb-install-db")
	s := &MariaDBServer{t: t, options: options, folder: t.TempDir(), release: func() {}}
	s.install(installer)
	t.Cleanup(s.cleanUp)
	for try := 1; ; try++ {
		s.release()
		s.port, s.release = reservePort(t)
		s.proc = &process{program: program, args: s.args(), folder: s.folder, log: filepath.Join(s.folder, "log")}
		err := s.start()
		if err == nil {
			return s
		}
		if try == 5 || !errors.Is(err, errPortTaken) {
			t.Fatalf("mariadbd on port %d: %v\n%s", s.port, err, s.LogTail())
		}
	}
}

func (s *MariaDBServer) cleanUp() {
	if s.t.Failed() && s.proc != nil {
		s.t.Logf("log of the mariadbd on port %d:\n%s", s.port, s.proc.tail(1500))
	}
	if s.proc != nil {
		if err := s.proc.kill(); err != nil {
			s.t.Error(err)
		}
	}
	s.release()
}

// account is the user of the system that the server runs as: it refuses to be root.
func (s *MariaDBServer) account() string {
	if os.Getuid() != 0 {
		if u, err := user.Current(); err == nil {
			return u.Username
		}
	}
	return "mysql"
}

func (s *MariaDBServer) data() string { return filepath.Join(s.folder, "data") }

// scratch is for temporary files: servers that share a folder for them get into each other's way.
func (s *MariaDBServer) scratch() string { return filepath.Join(s.folder, "scratch") }

// install makes the data folder.
func (s *MariaDBServer) install(program string) {
	s.t.Helper()
	err := errors.Join(os.Mkdir(s.data(), 0o700), os.Mkdir(s.scratch(), 0o700))
	if err == nil && os.Getuid() == 0 {
		err = s.handOver()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(program, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
		"--user="+s.account(), "--datadir="+s.data(), "--tmpdir="+s.scratch())
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(s.data(), mariadbSchema), 0o700); err != nil { // a schema is a folder
		s.t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := s.handOver(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// handOver makes the folders of the data the server's, and lets it get to them.
func (s *MariaDBServer) handOver() error {
	u, err := user.Lookup(s.account())
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, folder := range []string{s.data(), s.scratch(), filepath.Join(s.data(), mariadbSchema)} {
		if err := os.Chown(folder, uid, gid); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// The folders of tests are their owner's only.
	for folder := s.folder; strings.HasPrefix(folder, os.TempDir()) && folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (s *MariaDBServer) args() []string {
	return append([]string{
		"--no-defaults", "--user=" + s.account(), "--datadir=" + s.data(), "--tmpdir=" + s.scratch(),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(s.port), "--socket=",
		"--pid-file=" + filepath.Join(s.data(), "pid"), "--skip-name-resolve",
		"--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--sync-frm=0", "--innodb-buffer-pool-size=16M", "--max-connections=500",
		"--skip-log-bin", "--performance-schema=off",
	}, s.options.Args...)
}

// Start starts a server that is down, on its port and with its data, and returns when it
// answers.
func (s *MariaDBServer) Start() {
	s.t.Helper()
	err := s.start()
	for deadline := time.Now().Add(patience); errors.Is(err, errPortTaken) && time.Now().Before(deadline); {
		err = s.start()
	}
	if err != nil {
		s.t.Fatalf("mariadbd on port %d: %v\n%s", s.port, err, s.LogTail())
	}
}

func (s *MariaDBServer) start() error {
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

// ready is nil when the process that was started greets, and not another on its port: its own
// log says that it has the port.
func (s *MariaDBServer) ready() error {
	log := s.proc.tail(1 << 16)
	if !strings.Contains(log[max(0, strings.LastIndex(log, startLine)):], "ready for connections") {
		return errors.New("the server does not say that it is ready")
	}
	c, err := net.DialTimeout("tcp", s.Addr(), 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	greeting := make([]byte, 5)
	if _, err := c.Read(greeting); err != nil {
		return err
	}
	if greeting[4] != 10 { // the version of the protocol
		return fmt.Errorf("the server greets with %v", greeting)
	}
	return nil
}

// Addr returns host:port.
func (s *MariaDBServer) Addr() string { return loopback(s.port) }

// URL returns the server's URL for a user who may do everything. addr is where it is reached, a
// proxy before it; empty means directly.
func (s *MariaDBServer) URL(addr string) string {
	return "mysql://" + mariadbUser + "@" + cmp.Or(addr, s.Addr()) + "/" + mariadbSchema
}

// DSN is URL in the notation of go-sql-driver.
func (s *MariaDBServer) DSN(addr string) string {
	return mariadbUser + "@tcp(" + cmp.Or(addr, s.Addr()) + ")/" + mariadbSchema
}

// PID returns the process id of the last start.
func (s *MariaDBServer) PID() int {
	proc, _ := s.proc.running()
	return proc.Pid
}

// Pause freezes the server: connections are accepted by the system, nothing is carried out.
func (s *MariaDBServer) Pause() {
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
		s.t.Fatalf("mariadbd on port %d: %v", s.port, err)
	}
}

// Resume ends a Pause. What was sent meanwhile is carried out.
func (s *MariaDBServer) Resume() { s.t.Helper(); s.signal(resume) }

func (s *MariaDBServer) signal(send func(*os.Process) error) {
	s.t.Helper()
	proc, _ := s.proc.running()
	if err := send(proc); err != nil {
		s.t.Fatalf("signal to the mariadbd on port %d: %v", s.port, err)
	}
}

// Kill ends the server at once, as a crash does, and returns when it is gone.
func (s *MariaDBServer) Kill() {
	s.t.Helper()
	if err := s.proc.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Restart kills the server if it runs, and starts it on its port with its data.
func (s *MariaDBServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// LogTail returns the end of the server's log.
func (s *MariaDBServer) LogTail() string { return s.proc.tail(4096) }
