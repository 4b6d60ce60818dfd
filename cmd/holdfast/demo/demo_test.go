package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast/driver"
)

// asProgram makes the test binary behave like the program, for the processes of the demo.
const asProgram = "HOLDFAST_DEMO_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(program(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Setenv(asProgram, "1")
	os.Unsetenv("HOLDFAST_URL")
	// The race detector has every process linger for a second at its end.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// program runs a command line as the root command does.
func program(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{Use: "holdfast"}
	root.PersistentFlags().String("url", "", "")
	root.PersistentFlags().StringP("output", "o", "text", "")
	root.AddCommand(Command())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "error:", err)
	var f *failure
	if !errors.As(err, &f) {
		return 70 // holdfast's own
	}
	if f.Hint() != "" {
		fmt.Fprintln(stderr, "hint:", f.Hint())
	}
	return f.ExitCode()
}

// scratch makes a new folder the one for temporary files, and returns it.
func scratch(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	return dir
}

func TestDemo(t *testing.T) {
	dir := scratch(t)
	const instances, invoices = 3, 60
	// Nothing makes duplicates certain, so chance gets three attempts.
	for attempt := 1; ; attempt++ {
		var stdout, stderr bytes.Buffer
		code := program([]string{"demo", "--instances", fmt.Sprint(instances), "--invoices", fmt.Sprint(invoices), "-o", "json"}, &stdout, &stderr)
		if code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
		}
		var r report
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("%v in\n%s", err, &stdout)
		}
		if len(r.Strategies) != 3 || !r.Sound || r.Engine == "" {
			t.Fatalf("report is not complete or not sound:\n%s", &stdout)
		}
		for _, s := range r.Strategies {
			if s.Issued != instances*invoices || s.Errors != 0 || s.FirstError != "" || s.Seconds <= 0 || s.Explanation == "" {
				t.Errorf("%s: %+v", s.Strategy, s)
			}
			if !strings.Contains(stderr.String(), fmt.Sprintf("%-16s %d of %[2]d (100 %%)", s.Strategy, s.Issued)) {
				t.Errorf("%s: no progress in\n%s", s.Strategy, &stderr)
			}
		}
		if s := r.Strategies[2]; !s.sound(instances * invoices) {
			t.Errorf("with holdfast: %+v", s)
		}
		none, process := r.Strategies[0], r.Strategies[1]
		if none.Duplicates > 0 && none.LostUpdates > 0 && process.Duplicates > 0 {
			break
		}
		if attempt == 3 {
			t.Fatalf("no duplicates without a lock, or with one in each process only: %+v", r.Strategies)
		}
	}
	empty(t, dir)
	quiet(t, dir)
}

func TestTable(t *testing.T) {
	dir := scratch(t)
	var stdout, stderr bytes.Buffer
	if code := program([]string{"demo", "--instances", "2", "--invoices", "20", "--dir", dir}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
	for _, want := range []string{"STRATEGY", "LOST UPDATES", "PER SECOND", "\nno lock ", "\nin-process lock ", "\nholdfast ", "hf.Mutex("} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &stdout)
		}
	}
	kept, _ := filepath.Glob(filepath.Join(dir, "holdfast-demo-*", "holdfast.db"))
	if len(kept) != 1 || !strings.Contains(stderr.String(), filepath.Dir(kept[0])) {
		t.Errorf("kept %v, and said\n%s", kept, &stderr)
	}
}

func TestURL(t *testing.T) {
	dir := scratch(t)
	locks := t.TempDir()
	u := fileURL(filepath.Join(locks, "x")).String()
	small := []string{"--instances", "1", "--invoices", "1"}
	for _, c := range []struct {
		name, env string
		args      []string
	}{
		{"after", "mem://", append([]string{"demo", "--url", u}, small...)},
		{"before", "mem://", append([]string{"--url", u, "demo"}, small...)},
		{"environment", u, append([]string{"demo"}, small...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("HOLDFAST_URL", c.env)
			var stderr bytes.Buffer
			if code := program(c.args, io.Discard, &stderr); code != 0 {
				t.Fatalf("exit code %d\n%s", code, &stderr)
			}
			if _, err := os.Stat(filepath.Join(locks, "x")); err != nil {
				t.Error("the locks are not where the URL says")
			}
			os.RemoveAll(filepath.Join(locks, "x"))
		})
	}
	empty(t, dir)
}

func TestRefused(t *testing.T) {
	dir := scratch(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--instances 0 --invoices 0 -o xml", exitUsage, "--instances is 0: it must be 1 to 64\n--invoices is 0: it must be 1 to 100000\n--output is \"xml\""},
		{"--instances 65", exitUsage, "--instances is 65"},
		{"--invoices 100001", exitUsage, "--invoices is 100001"},
		{"--url mem://", exitUsage, "hint: leave the URL out"},
		{"--url MEM:x", exitUsage, "hint: leave the URL out"},
		{"--url nonsense://x", 70, `scheme "nonsense" is not known`},
		{"--dir /does/not/exist", exitFailed, "no folder for the databases"},
	} {
		var stderr bytes.Buffer
		code := program(append([]string{"demo"}, strings.Fields(c.args)...), io.Discard, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: exit code %d, want %d with %q, said\n%s", c.args, code, c.code, c.want, &stderr)
		}
	}
	empty(t, dir)
}

func TestCluster(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	if err := createStore(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	args := []string{"demo", "instance", "--strategy", "none", "--database", path, "--number"}
	c, err := startCluster(t.Context(), 2, args, "")
	if err != nil {
		t.Fatal(err)
	}
	members := c.members
	for _, m := range members {
		resp, err := http.Get("http://" + m.address.String() + "/healthz")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	// One that dies is told of, and what it was asked fails.
	members[0].process.Process.Kill()
	<-members[0].exited
	tl := newTally(2 * 3)
	drive(t.Context(), c, 3, tl)
	if n := tl.counts(); n.Issued != 3 || n.Errors != 3 || !strings.Contains(tl.first.Error(), "instance 1") {
		t.Errorf("%+v, %v", n, tl.first)
	}
	if err := c.close(); err == nil || !strings.Contains(err.Error(), "instance 1 ended: signal: killed") {
		t.Errorf("close: %v", err)
	}
	for _, m := range members {
		if alive(m.process.Process.Pid) {
			t.Errorf("instance %d is alive", m.number)
		}
	}
	quiet(t, dir)
}

func TestClusterThatDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db") // without tables
	args := []string{"demo", "instance", "--strategy", "none", "--database", path, "--number"}
	_, err := startCluster(t.Context(), 2, args, "")
	if err == nil || !strings.Contains(err.Error(), "instance 1 ended: exit status 1: error: ") {
		t.Errorf("startCluster: %v", err)
	}
	quiet(t, dir)
}

// A lock that does not hold must not look like one that does.
func TestBrokenLock(t *testing.T) {
	dir := scratch(t)
	var stdout, stderr bytes.Buffer
	code := program([]string{"demo", "--instances", "2", "--invoices", "200", "--url", "broken://"}, &stdout, &stderr)
	if code != exitFailed || !strings.Contains(stderr.String(), "did not issue every number exactly once") {
		t.Errorf("exit code %d, want %d\n%s%s", code, exitFailed, &stdout, &stderr)
	}
	if !strings.Contains(stdout.String(), "first error: instance ") || !strings.Contains(stdout.String(), errStale.Error()) {
		t.Errorf("no request was refused for its fence:\n%s", &stdout)
	}
	empty(t, dir)
}

func init() {
	driver.Register(driver.Scheme{
		Name: "broken", Example: "broken://",
		Open: func(context.Context, *url.URL) (driver.Engine, error) { return brokenEngine{}, nil },
	})
}

// brokenEngine grants to everybody.
type brokenEngine struct{}

func (brokenEngine) Acquire(context.Context, driver.Request) (driver.Grant, error) {
	return driver.Grant{Fence: time.Now().UnixMicro(), FenceSpan: 1, Sent: driver.BootClock().Now()}, nil
}
func (brokenEngine) Renew(_ context.Context, claims []driver.Claim) []error {
	return make([]error, len(claims))
}
func (brokenEngine) Release(context.Context, driver.Claim) error { return nil }
func (brokenEngine) Close() error                                { return nil }
func (brokenEngine) Capabilities() driver.Capabilities {
	return driver.Capabilities{Engine: "broken", MinTTL: time.Second, MaxTTL: time.Hour, DefaultTTL: 10 * time.Second}
}

// A demo that is interrupted, or killed, in the middle of its work.
func TestSignals(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{
		{syscall.SIGINT, 130},
		{syscall.SIGTERM, 143},
		{syscall.SIGKILL, -1},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			dir := scratch(t)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			p := exec.CommandContext(ctx, self, "demo", "--instances", "3", "--invoices", "100000")
			var stdout bytes.Buffer
			p.Stdout = &stdout
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			// At work: the database grows.
			eventually(t, "work begins", func() bool {
				logs, _ := filepath.Glob(filepath.Join(dir, "*", "*.db-wal"))
				if len(logs) == 0 {
					return false
				}
				info, err := os.Stat(logs[0])
				return err == nil && info.Size() > 100_000
			})
			p.Process.Signal(c.signal)
			p.Wait()
			if code := p.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout has %q", &stdout)
			}
			quiet(t, dir)
			if c.signal != syscall.SIGKILL {
				empty(t, dir)
			}
		})
	}
}

func TestFence(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "test.db")
	if err := createStore(ctx, path); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i, fence := range []int64{7, 9} {
		if n, err := s.issue(ctx, 1, fence); n != int64(i+1) || err != nil {
			t.Fatalf("fence %d: %d, %v", fence, n, err)
		}
	}
	for _, fence := range []int64{9, 8} {
		if _, err := s.issue(ctx, 1, fence); !errors.Is(err, errStale) {
			t.Errorf("fence %d: %v", fence, err)
		}
	}
	if err := checked(s.write.ExecContext(ctx, 99, "total", 8)); !errors.Is(err, errStale) {
		t.Errorf("a write of an earlier holder: %v", err)
	}
}

func TestTally(t *testing.T) {
	tl := newTally(9)
	for _, n := range []int64{1, 2, 2, 5, 5, 5} {
		tl.add(n)
	}
	tl.fail(2, errors.New("first"))
	tl.fail(1, errors.New("second"))
	if got, want := tl.counts(), (counts{Issued: 6, Duplicates: 3, Gaps: 2, Errors: 3}); got != want || tl.first.Error() != "first" {
		t.Errorf("%+v, want %+v, first error %v", got, want, tl.first)
	}
}

func TestExplanations(t *testing.T) {
	whole := counts{Issued: 9}
	seen := make(map[string]string)
	for _, c := range []struct {
		name, key string
		instances int
		result    result
	}{
		{"holdfast", "holdfast", 2, result{counts: whole}},
		{"holdfast with duplicates", "holdfast", 2, result{counts: counts{Issued: 9, Duplicates: 1}}},
		{"holdfast with gaps", "holdfast", 2, result{counts: counts{Issued: 9, Gaps: 1}}},
		{"errors", "none", 2, result{counts: counts{Issued: 8, Errors: 1}}},
		{"luck", "none", 2, result{counts: whole}},
		{"no luck", "none", 2, result{counts: counts{Issued: 9, Duplicates: 1}}},
		{"one process", "process", 1, result{counts: whole}},
		{"processes", "process", 2, result{LostUpdates: 1, counts: whole}},
	} {
		text := c.result.explain(c.key, 9, c.instances)
		if other, dup := seen[text]; dup {
			t.Errorf("%s and %s are explained alike: %s", c.name, other, text)
		}
		seen[text] = c.name
	}
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}

// quiet waits until no process has dir on its command line.
func quiet(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		return // the system does not tell
	}
	eventually(t, "all processes are gone", func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(dir)) {
				return false
			}
		}
		return true
	})
}

// empty fails when something is left in dir.
func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
