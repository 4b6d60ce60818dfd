package testserver

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// PostgresOptions says how a server differs from a plain one: anybody on the loopback is
// trusted, and nothing is synced to disk.
type PostgresOptions struct {
	// Config are further lines of postgresql.conf, as "max_connections = 30".
	Config []string
}

// PostgresServer is a PostgreSQL server of its own for one test. Its methods that cannot do
// what they say end the test: call them from its goroutine, or from one that it waits for.
type PostgresServer struct {
	t       testing.TB
	folder  string
	bin     string // where the server's programs are
	port    int
	release func()
	proc    *process
}

// postgresUser runs the server and owns its files where the test runs as root, as whom the
// server refuses to run. It is the superuser in the database as well.
const postgresUser = "postgres"

// Postgres starts a server and returns when it answers. It is killed when the test ends.
func Postgres(t testing.TB, options PostgresOptions) *PostgresServer {
	t.Helper()
	s := &PostgresServer{t: t, bin: postgresPrograms(t), folder: ownedFolder(t), release: func() {}}
	s.proc = &process{
		program: filepath.Join(s.bin, "postgres"), folder: s.folder, user: postgresUser,
		log: filepath.Join(s.folder, "log"),
	}
	s.initialize(options)
	t.Cleanup(s.cleanUp)
	for try := 1; ; try++ {
		s.release()
		s.port, s.release = reservePort(t)
		s.proc.args = []string{"-D", s.data(), "-p", fmt.Sprint(s.port)}
		err := s.start()
		if err == nil {
			return s
		}
		if try == 5 || !errors.Is(err, errPortTaken) {
			t.Fatalf("postgres on port %d: %v\n%s", s.port, err, s.LogTail())
		}
	}
}

// postgresPrograms returns the folder of the server's programs, which Debian keeps out of the
// way of those who look for others.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is good
	if len(found) == 0 {
		return filepath.Dir(Need(t, "postgres"))
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// ownedFolder returns a folder of the test that belongs to the user who runs the server.
func ownedFolder(t testing.TB) string {
	t.Helper()
	base := t.TempDir()
	folder := filepath.Join(base, "server")
	err := os.Mkdir(folder, 0o700)
	for _, above := range []string{base, filepath.Dir(base)} { // another user has to get there
		err = errors.Join(err, os.Chmod(above, 0o711))
	}
	if err = errors.Join(err, give(folder, postgresUser)); err != nil {
		t.Fatal(err)
	}
	return folder
}

func (s *PostgresServer) data() string { return filepath.Join(s.folder, "data") }

// initialize makes the server's files.
func (s *PostgresServer) initialize(options PostgresOptions) {
	s.t.Helper()
	init := &process{
		program: filepath.Join(s.bin, "initdb"), folder: s.folder, user: postgresUser,
		log: filepath.Join(s.folder, "initdb.log"),
		args: []string{"-D", s.data(), "-U", postgresUser, "-A", "trust", "-E", "UTF8", "--locale=C",
			"--no-sync", "--no-instructions"},
	}
	err := init.start()
	if err == nil {
		_, exited := init.running()
		for try := 0; try < 5 && !closed(exited); try++ { // much to do on a busy machine
			err = init.gone(exited)
		}
	}
	if err != nil {
		s.t.Fatalf("initdb: %v\n%s", err, init.tail(2000))
	}
	lines := append([]string{
		"listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "fsync = off",
		"full_page_writes = off", "max_connections = 100", "shared_buffers = 16MB",
	}, options.Config...)
	conf, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, init.tail(2000)) // initdb has made none
	}
	_, err = conf.WriteString("\n" + strings.Join(lines, "\n") + "\n")
	if err = errors.Join(err, conf.Close()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *PostgresServer) cleanUp() {
	if s.t.Failed() {
		s.t.Logf("log of the postgres on port %d:\n%s", s.port, s.proc.tail(3000))
	}
	if err := s.kill(); err != nil {
		s.t.Error(err)
	}
	s.release()
}

// Start starts a server that is down, on its port and with what is on its disk, and returns
// when it answers.
func (s *PostgresServer) Start() {
	s.t.Helper()
	err := s.start()
	for deadline := time.Now().Add(patience); errors.Is(err, errPortTaken) && time.Now().Before(deadline); {
		err = s.start()
	}
	if err != nil {
		s.t.Fatalf("postgres on port %d: %v\n%s", s.port, err, s.LogTail())
	}
}

func (s *PostgresServer) start() error {
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

// ready is nil when the process that was started takes connections: it says so in its file,
// which another server on the port could not.
func (s *PostgresServer) ready() error {
	data, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) < 8 || strings.TrimSpace(lines[7]) != "ready" || lines[0] != fmt.Sprint(s.PID()) {
		return errors.New("the server is not ready yet")
	}
	return nil
}

// Addr returns host:port.
func (s *PostgresServer) Addr() string { return loopback(s.port) }

// URL returns the URL of the database "postgres" for the superuser.
func (s *PostgresServer) URL() string { return s.URLVia(s.Addr()) }

// URLVia is URL by way of a proxy or pooler at addr.
func (s *PostgresServer) URLVia(addr string) string {
	u := url.URL{Scheme: "postgres", User: url.User(postgresUser), Host: addr, Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

// PID returns the process id of the last start.
func (s *PostgresServer) PID() int {
	proc, _ := s.proc.running()
	return proc.Pid
}

// Kill ends the server at once, as a crash does, and returns when all of it is gone.
func (s *PostgresServer) Kill() {
	s.t.Helper()
	if err := s.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// kill ends the server's main process, frozen or not. Its children notice, and end.
func (s *PostgresServer) kill() error {
	proc, exited := s.proc.running()
	if proc == nil || closed(exited) {
		return nil
	}
	children := childrenOf(proc.Pid)
	if err := s.proc.kill(); err != nil {
		return err
	}
	return poll(nil, func() error {
		for _, child := range children {
			_ = resumeID(child) // who is frozen notices nothing
			if alive(child) {
				return fmt.Errorf("process %d of the server is left", child)
			}
		}
		return nil
	})
}

// Restart kills the server if it runs, and starts it on its port with what is on its disk.
// Unlogged tables are empty then, as after every crash.
func (s *PostgresServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Pause freezes the server and every session of it: connections are accepted by the system,
// nothing is carried out.
func (s *PostgresServer) Pause() { s.t.Helper(); s.signal(freezeID) }

// Resume ends a Pause. What was sent meanwhile is carried out.
func (s *PostgresServer) Resume() { s.t.Helper(); s.signal(resumeID) }

func (s *PostgresServer) signal(send func(pid int) error) {
	s.t.Helper()
	main := s.PID()
	if err := send(main); err != nil {
		s.t.Fatal(err)
	}
	for _, pid := range childrenOf(main) {
		_ = send(pid) // it may have ended meanwhile
	}
}

// LogTail returns the end of the server's log.
func (s *PostgresServer) LogTail() string { return s.proc.tail(4096) }
