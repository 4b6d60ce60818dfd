package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// diagnose returns what the engine says for leases of ttl.
func diagnose(t *testing.T, e *redislock.Engine, ttl time.Duration) driver.Diagnosis {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d, err := e.Diagnose(ctx, ttl)
	if err != nil {
		t.Fatalf("Diagnose: %v", err)
	}
	return d
}

// finds fails unless there is a finding of that level and subject that says all of this.
func finds(t *testing.T, d driver.Diagnosis, level driver.Level, subject string, says ...string) {
	t.Helper()
	for _, f := range d.Findings {
		if f.Subject != subject || f.Level != level {
			continue
		}
		if missing := slices.IndexFunc(says, func(text string) bool { return !strings.Contains(f.Text+" "+f.Remedy, text) }); missing < 0 {
			return
		}
	}
	t.Errorf("no finding %v %s that says %q in\n%s", level, subject, says, sheet(d))
}

func sheet(d driver.Diagnosis) string {
	var b strings.Builder
	for _, f := range d.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%v %s: %s [%s]\n", f.Level, f.Subject, f.Text, f.Remedy)
	}
	return b.String()
}

func TestDiagnoseStandalone(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	e := accepts(t, "redis://"+server.Addr())
	d := diagnose(t, e, 10*time.Second)
	finds(t, d, driver.LevelOK, "server")
	finds(t, d, driver.LevelOK, "replicas", "none")
	finds(t, d, driver.LevelOK, "eviction", "noeviction")
	finds(t, d, driver.LevelOK, "permissions")
	finds(t, d, driver.LevelOK, "latency")
	finds(t, d, driver.LevelOK, "clock")
	finds(t, d, driver.LevelWarning, "persistence", "a restart forgets everything", "fences", "failover-grace=crash")
	finds(t, d, driver.LevelNote, "safety", "SingleProcess")
	if d.Worst() != driver.LevelWarning {
		t.Errorf("worst is %v:\n%s", d.Worst(), sheet(d))
	}
	for _, name := range []string{"server", "role", "replicas", "persistence", "latency", "clock", "topology", "safety"} {
		if !slices.ContainsFunc(d.Facts, func(f driver.Fact) bool { return f.Name == name && f.Value != "" }) {
			t.Errorf("no fact %q in\n%s", name, sheet(d))
		}
	}
	if n := must(t, server, "DBSIZE"); n != int64(0) {
		t.Errorf("it left %d keys behind: %v", n, must(t, server, "KEYS", "*"))
	}

	must(t, server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	must(t, server, "CONFIG", "SET", "appendonly", "yes")
	must(t, server, "CONFIG", "SET", "appendfsync", "always")
	d = diagnose(t, e, 10*time.Second)
	finds(t, d, driver.LevelWarning, "eviction", "allkeys-lru", "noeviction")
	finds(t, d, driver.LevelOK, "persistence")
	must(t, server, "CONFIG", "SET", "appendfsync", "everysec")
	must(t, server, "CONFIG", "SET", "maxmemory", "1000mb")
	d = diagnose(t, e, 10*time.Second)
	finds(t, d, driver.LevelWarning, "eviction", "when memory runs out")
	finds(t, d, driver.LevelWarning, "persistence", "power loss")

	must(t, server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	must(t, server, "CONFIG", "SET", "maxmemory", "1")
	d = diagnose(t, e, 10*time.Second)
	finds(t, d, driver.LevelProblem, "commands", "OOM")
	finds(t, d, driver.LevelProblem, "safety")
}

func TestDiagnoseReplicaUnderSingleProcess(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	testserver.Redis(t, testserver.RedisOptions{ReplicaOf: server.Addr()})
	e := accepts(t, "redis://"+server.Addr())
	comesTrue(t, "the replica follows", func() bool {
		info, err := server.Info()
		return err == nil && strings.Contains(info["slave0"], "state=online")
	})
	finds(t, diagnose(t, e, time.Second), driver.LevelWarning, "replicas", "granted a second time", "data-nodes=2")
	must(t, server, "CONFIG", "SET", "min-replicas-to-write", "3")
	finds(t, diagnose(t, e, time.Second), driver.LevelProblem, "min-replicas-to-write", "refuses writes")
	crash := accepts(t, "redis://"+server.Addr()+"?failover-grace=crash")
	must(t, server, "CONFIG", "SET", "min-replicas-to-write", "0")
	d := diagnose(t, crash, time.Second)
	finds(t, d, driver.LevelNote, "replicas", "cut off")
	finds(t, d, driver.LevelNote, "min-replicas-to-write", "set it to 1")
}

// TestDiagnoseDemotedServer: the server became a replica after it was opened.
func TestDiagnoseDemotedServer(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	other := testserver.Redis(t, testserver.RedisOptions{})
	e := accepts(t, "redis://"+server.Addr())
	must(t, server, "REPLICAOF", "127.0.0.1", fmt.Sprint(other.Port()))
	d := diagnose(t, e, time.Second)
	finds(t, d, driver.LevelProblem, "role", "is a replica of "+other.Addr())
	finds(t, d, driver.LevelProblem, "commands", "READONLY")
}

func TestDiagnoseNothingAnswers(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	e := accepts(t, "redis://"+server.Addr())
	server.Kill()
	_, err := e.Diagnose(t.Context(), time.Second)
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable {
		t.Errorf("%v, want unavailable", err)
	}
	e.Close()
	if _, err = e.Diagnose(t.Context(), time.Second); !errors.As(err, &d) || d.Kind != driver.Closed {
		t.Errorf("after Close: %v, want closed", err)
	}
}

// commands of a user's ACL that the engine can be without.
var optional = []string{"hello", "auth", "client|setinfo", "client|setname", "unsubscribe", "exists", "info"}

// TestDiagnosePermissions takes each command from a user who has just what ACL names.
func TestDiagnosePermissions(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	for _, grace := range []string{"off", "crash"} {
		rule := strings.Fields(accepts(t, "redis://"+server.Addr()+"?failover-grace="+grace).ACL("app"))
		setUser := func(name string, more ...string) *redislock.Engine {
			t.Helper()
			args := append(slices.Clone(rule), ">hunter2")
			args[2] = name
			must(t, server, append(args, more...)...)
			return accepts(t, "redis://"+name+":hunter2@"+server.Addr()+"?failover-grace="+grace)
		}
		d := diagnose(t, setUser("app"+grace), time.Second)
		finds(t, d, driver.LevelOK, "permissions")
		if d.Worst() == driver.LevelProblem {
			t.Errorf("with the rule of ACL:\n%s", sheet(d))
		}
		commands := regexp.MustCompile(`\+(\S+)`).FindAllStringSubmatch(strings.Join(rule, " "), -1)
		for i, m := range commands {
			command := m[1]
			if command == "ping" || slices.Contains(optional, command) && (command != "info" || grace == "off") {
				continue
			}
			without := "-" + command
			if before7(t, server) { // it takes away whole commands
				without, _, _ = strings.Cut(without, "|")
			}
			d := diagnose(t, setUser(fmt.Sprintf("u%s%d", grace, i), without), time.Second)
			finds(t, d, driver.LevelProblem, "permissions", command, "ACL SETUSER", "+"+command)
		}
		// Asking the server itself finds the same.
		d = diagnose(t, setUser("asker"+grace, "+acl", "-eval", "-evalsha", "-zcard"), time.Second)
		finds(t, d, driver.LevelProblem, "permissions", "eval", "evalsha", "zcard")
		d = diagnose(t, setUser("keys"+grace, "resetkeys", "~holdfast:*"), time.Second)
		finds(t, d, driver.LevelProblem, "permissions", "zadd")
		d = diagnose(t, setUser("channels"+grace, "resetchannels"), time.Second)
		finds(t, d, driver.LevelProblem, "permissions", "publish", "subscribe")
	}
}

// TestNeedsAreComplete: what the scripts carry out is what is tried, and what ACL names; for the
// nodes of a quorum, which try nothing, what its own ACL names.
func TestNeedsAreComplete(t *testing.T) {
	files, err := filepath.Glob("lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	server := testserver.Redis(t, testserver.RedisOptions{})
	e := accepts(t, "redis://"+server.Addr()+"?failover-grace=crash")
	rule := e.ACL("app") + " "
	tried := redislock.Needs(e)
	found := 0
	q := quorumOn(t, []string{"h1:1", "h2:1", "h3:1"}, redislock.QuorumConfig{})
	defer q.Close()
	ofQuorum := q.ACL("app") + " "
	for _, file := range files {
		quorum := strings.HasPrefix(filepath.Base(file), "quorum")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`redis\.p?call\('(\w+)'`).FindAllStringSubmatch(string(text), -1) {
			found++
			if quorum {
				if !strings.Contains(ofQuorum, "+"+strings.ToLower(m[1])+" ") {
					t.Errorf("%s carries out %s, which the ACL of a quorum does not allow", file, m[1])
				}
				continue
			}
			if !slices.Contains(tried, m[1]) {
				t.Errorf("%s carries out %s, which Diagnose does not try", file, m[1])
			}
			if allow := "+" + strings.ToLower(m[1]); !strings.Contains(rule, allow+" ") && !strings.Contains(rule, allow+"|") {
				t.Errorf("%s carries out %s, which ACL does not allow", file, m[1])
			}
		}
	}
	if found < 50 {
		t.Errorf("found %d calls only: their form has changed", found)
	}
}
