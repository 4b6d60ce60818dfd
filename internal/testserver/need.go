package testserver

import (
	"os"
	"os/exec"
	"testing"
)

// packages names the Debian package of each program that tests start. scripts/install installs
// the same ones.
var packages = map[string]string{
	"redis-server":       "redis-server",
	"gcc":                "build-essential", // with what it links
	"postgres":           "postgresql",
	"pgbouncer":          "pgbouncer",
	"mariadb-install-db": "mariadb-server",
	"mariadbd":           "mariadb-server",
	"etcd":               "etcd-server",
	"etcdctl":            "etcd-client",
	"java":               "default-jre-headless",
	"javac":              "default-jdk-headless",
	"zookeeper":          "zookeeper",
	"node":               "nodejs",

	"chromium-headless-shell": "chromium-headless-shell",
}

// Need returns the path of a program. Where it is not installed the test is skipped, or fails
// if the environment variable HOLDFAST_REQUIRE is set, as it is where changes are checked.
func Need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	pkg, ok := packages[program]
	if !ok {
		pkg = program
	}
	Missing(t, "%s is not installed: apt-get install --no-install-recommends %s", program, pkg)
	return ""
}

// Missing ends a test for which this machine lacks something that is no program, or not only one:
// see [Need].
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("HOLDFAST_REQUIRE") != "" {
		t.Fatalf(format, args...)
	} else {
		t.Skipf(format, args...)
	}
}
