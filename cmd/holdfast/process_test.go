//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-go/holdfast"
)

// program is a holdfast that a test has started, in a folder of its own.
type program struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	stdout *os.File // not pipes: a process that is left behind would keep them open
	stderr *os.File
	url    string
}

// newProgram prepares a holdfast on an engine of its own.
func newProgram(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{t: t, dir: t.TempDir(), cmd: exec.Command("holdfast", args...)}
	p.url = fileURL(filepath.Join(p.dir, "locks"))
	p.cmd.Dir = p.dir
	p.cmd.Env = append(os.Environ(), "HOLDFAST_URL="+p.url)
	p.stdout, p.stderr = p.create("stdout"), p.create("stderr")
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	return p
}

func (p *program) create(name string) *os.File {
	p.t.Helper()
	f, err := os.Create(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { f.Close() })
	return f
}

// breakLock takes the lock away, as an operator does.
func (p *program) breakLock() {
	p.t.Helper()
	c, err := holdfast.Open(p.t.Context(), p.url, holdfast.Config{})
	if err == nil {
		_, err = c.Break(p.t.Context(), "job", holdfast.Break{Reason: "test"})
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// startRun starts `holdfast run` with a shell script, once the script has made the file ready.
func startRun(t *testing.T, flags []string, script string) *program {
	t.Helper()
	p := newProgram(t, append(append([]string{"run"}, flags...), "job", "--", "sh", "-c", script)...)
	p.start()
	p.await("ready")
	return p
}

func (p *program) start() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
}

// await waits for a file in the folder and returns what is in it.
func (p *program) await(name string) string {
	p.t.Helper()
	var text []byte
	ok := eventually(func() bool {
		var err error
		text, err = os.ReadFile(filepath.Join(p.dir, name))
		return err == nil
	})
	if !ok {
		p.t.Fatalf("the file %s was never made; stderr: %s", name, p.await("stderr"))
	}
	return strings.TrimSpace(string(text))
}

// awaitLines waits until a file has so many lines.
func (p *program) awaitLines(name string, want int) {
	p.t.Helper()
	if !eventually(func() bool { return strings.Count(p.await(name)+"\n", "\n") >= want }) {
		p.t.Fatalf("%s has %q, not %d lines", name, p.await(name), want)
	}
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exits waits for the end and checks the exit code.
func (p *program) exits(want int) {
	p.t.Helper()
	if got := exitCode(p.cmd.Wait()); got != want {
		p.t.Errorf("exit code %d, not %d; stderr: %s", got, want, p.await("stderr"))
	}
}

// pid returns the number of a process that a file holds.
func (p *program) pid(file string) (pid int) {
	p.t.Helper()
	ok := eventually(func() (ok bool) {
		var err error
		pid, err = strconv.Atoi(p.await(file))
		return err == nil
	})
	if !ok {
		p.t.Fatalf("%s holds no number", file)
	}
	return pid
}

// gone waits until a process, whose number a file holds, has ended.
func (p *program) gone(file string) {
	p.t.Helper()
	pid := p.pid(file)
	if !eventually(func() bool { return !runs(pid) }) {
		p.t.Errorf("the process in %s still runs", file)
	}
}

// runs reports whether a process exists and has not ended. Whether its parent has collected
// it is not for us to say.
func runs(pid int) bool {
	if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil {
		return !bytes.Contains(stat, []byte(") Z "))
	}
	return syscall.Kill(pid, 0) == nil
}

func TestRunPassesSignalsOn(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			if signal.Ignored(s) {
				t.Skip("ignored from the start, as under nohup: so do the children")
			}
			// The grandchild is in the group, so it gets the signal as well.
			p := startRun(t, nil, `sleep 60 & echo $! > grandchild; echo > ready; wait`)
			p.signal(s)
			p.exits(128 + int(s))
			// A shell has background commands ignore these two.
			if s != syscall.SIGINT && s != syscall.SIGQUIT {
				p.gone("grandchild")
			} else {
				_ = syscall.Kill(p.pid("grandchild"), syscall.SIGKILL)
			}
		})
	}
}

func TestRunLeavesTheAnswerToTheCommand(t *testing.T) {
	t.Parallel()
	p := startRun(t, nil, `trap 'exit 9' TERM; echo > ready; while :; do sleep 0.01; done`)
	p.signal(syscall.SIGTERM)
	p.exits(9)
}

func TestRunSecondInterruptIsTheLastWarning(t *testing.T) {
	t.Parallel()
	p := startRun(t, []string{"--kill-after", "50ms"},
		`trap 'echo >> ints' INT; sh -c 'trap "" INT; echo $$ > grandchild; while :; do sleep 0.01; done' & echo > ready; while :; do sleep 0.01; done`)
	p.await("grandchild")
	p.signal(syscall.SIGINT)
	p.awaitLines("ints", 1)
	p.signal(syscall.SIGINT)
	p.exits(137)
	p.gone("grandchild")
}

func TestRunPassesBothInterruptsOn(t *testing.T) {
	t.Parallel()
	p := startRun(t, []string{"--kill-after", "1h"}, `n=0; trap 'n=$((n+1)); echo >> ints; [ $n = 2 ] && exit 5' INT; echo > ready; while :; do sleep 0.01; done`)
	p.signal(syscall.SIGINT)
	p.awaitLines("ints", 1)
	p.signal(syscall.SIGINT)
	p.exits(5)
}

func TestRunInheritsIgnoredSignals(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.cmd = exec.Command("sh", "-c", `trap '' HUP; exec holdfast run job -- sh -c 'kill -HUP $$; echo survived'`)
	p.cmd.Env = append(os.Environ(), "HOLDFAST_URL="+p.url)
	out, err := p.cmd.Output()
	if err != nil || string(out) != "survived\n" {
		t.Errorf("output %q, error %v", out, err)
	}
}

func TestRunLossEndsTheGroup(t *testing.T) {
	t.Parallel()
	stubborn := `trap "" TERM; echo $$ > grandchild; while :; do sleep 0.01; done`
	for name, script := range map[string]string{
		"the command ignores TERM": `trap '' TERM; sh -c '` + stubborn + `' & echo > ready; while :; do sleep 0.01; done`,
		"the command ends on TERM": `trap 'exit 0' TERM; sh -c '` + stubborn + `' & echo > ready; while :; do sleep 0.01; done`,
		"it is stopped":            `trap '' TERM; sh -c '` + stubborn + `' & echo > ready; kill -STOP $$; while :; do sleep 0.01; done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startRun(t, []string{"--kill-after", "100ms", "--ttl", "100ms"}, script)
			p.await("grandchild")
			p.breakLock()
			p.exits(73)
			p.gone("grandchild")
			if !strings.Contains(p.await("stderr"), `holdfast: error: the lock "job" was lost`) {
				t.Errorf("stderr: %s", p.await("stderr"))
			}
		})
	}
}

func TestRunLossKillsAtOnceIfAskedTo(t *testing.T) {
	t.Parallel()
	p := startRun(t, []string{"--kill-after", "0s", "--ttl", "100ms"}, `trap '' TERM; echo > ready; while :; do sleep 0.01; done`)
	p.breakLock()
	p.exits(73)
}

// What the command leaves behind when it ends by itself is its own business.
func TestRunLeavesGrandchildrenAlone(t *testing.T) {
	t.Parallel()
	p := startRun(t, nil, `sleep 60 >/dev/null 2>&1 & echo $! > grandchild; echo > ready; exit 4`)
	p.exits(4)
	pid := p.pid("grandchild")
	if !runs(pid) {
		t.Fatal("the grandchild is gone")
	}
	next := newProgram(t, "run", "--url", p.url, "--try", "job", "--", "true")
	next.start()
	next.exits(0) // no descriptor of ours keeps the lock
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// A message that nobody can read must not end the run, and the command must still be able to
// die of a closed pipe.
func TestRunWithClosedPipes(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "run", "-v", "--ttl", "100ms", "job", "--", "sh", "-c",
		`exec 2>/dev/null; trap 'echo > told; exit 0' TERM; echo > ready; while :; do sleep 0.01; done`)
	p.cmd.Stdout, p.cmd.Stderr = closedPipe(t), closedPipe(t)
	p.start()
	p.await("ready")
	p.breakLock()
	p.exits(73)
	p.await("told")

	p = newProgram(t, "run", "job", "--", "sh", "-c", `kill -PIPE $$`)
	p.start()
	p.exits(128 + int(syscall.SIGPIPE))
}

// The other commands end as those of the system do when nobody reads what they print.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "engines")
	p.cmd.Stdout = closedPipe(t)
	p.start()
	p.exits(128 + int(syscall.SIGPIPE))
}

// closedPipe returns the end of a pipe that nobody reads.
func closedPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// Descriptors that we were given for the command, as by make, reach it.
func TestRunPassesDescriptorsOn(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "run", "job", "--", "sh", "-c", "cat <&3")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.cmd.ExtraFiles = []*os.File{r}
	p.start()
	w.WriteString("through")
	w.Close()
	p.exits(0)
	if got := p.await("stdout"); got != "through" {
		t.Errorf("the command read %q", got)
	}
}

func TestRunInterruptedWhileWaiting(t *testing.T) {
	t.Parallel()
	first := startRun(t, nil, `trap 'exit 0' TERM; echo > ready; while :; do sleep 0.01; done`)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(s) {
			continue // as under nohup
		}
		p := newProgram(t, "run", "-v", "--url", first.url, "job", "--", "touch", "ran")
		p.start()
		if !eventually(func() bool { return strings.Contains(p.await("stderr"), "waiting: ") }) {
			t.Fatalf("stderr: %s", p.await("stderr"))
		}
		p.signal(s)
		p.exits(128 + int(s))
		if _, err := os.Stat(filepath.Join(p.dir, "ran")); err == nil {
			t.Error("the command ran")
		}
	}
	c, err := holdfast.Open(t.Context(), first.url, holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.Inspect(t.Context(), "job"); err != nil || info.Waiters > 0 || len(info.Holders) != 1 {
		t.Errorf("left behind: %+v, %v", info, err)
	}
	first.signal(syscall.SIGTERM)
	first.exits(0)
}

// A stopped command hears of the loss, and has its time to end properly.
func TestRunLossWakesAStoppedCommand(t *testing.T) {
	t.Parallel()
	p := startRun(t, []string{"--kill-after", "1h", "--ttl", "50ms"},
		`trap 'echo > told; exit 0' TERM; echo > ready; kill -STOP $$; while :; do sleep 0.01; done`)
	p.breakLock()
	p.exits(73)
	p.await("told")
}
