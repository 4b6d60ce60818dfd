package testserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// pgbouncerConfig lets anybody in, as the superuser of the server.
const pgbouncerConfig = `[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres user=` + postgresUser + `
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = %d
ignore_startup_parameters = extra_float_digits
`

// PgBouncer starts a pooler before server in the given mode, "session" or "transaction", with
// so many connections to the server, and returns its address. It is killed when the test ends.
func PgBouncer(t testing.TB, server *PostgresServer, mode string, pool int) (addr string) {
	t.Helper()
	folder := ownedFolder(t)
	p := &process{
		program: Need(t, "pgbouncer"), args: []string{filepath.Join(folder, "pgbouncer.ini")},
		folder: folder, user: postgresUser, log: filepath.Join(folder, "log"),
	}
	for try := 1; ; try++ {
		port, release := reservePort(t)
		config := fmt.Sprintf(pgbouncerConfig, server.port, port, mode, pool)
		if err := os.WriteFile(p.args[0], []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		err := p.start()
		if err == nil {
			_, exited := p.running()
			err = poll(exited, func() error {
				c, err := net.Dial("tcp", loopback(port))
				return errors.Join(err, closeIf(c))
			})
		}
		if err == nil {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("log of pgbouncer:\n%s", p.tail(2000))
				}
				if err := p.kill(); err != nil {
					t.Error(err)
				}
				release()
			})
			return loopback(port)
		}
		_ = p.kill()
		release()
		if try == 5 {
			t.Fatalf("pgbouncer on port %d: %v\n%s", port, err, p.tail(2000))
		}
	}
}

func closeIf(c net.Conn) error {
	if c == nil {
		return nil
	}
	return c.Close()
}
