package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// screen is a terminal with a program in front of it.
type screen struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	text string
	read int // how much of text was expected already
}

// newScreen starts a program that a terminal of its own controls.
func newScreen(t *testing.T, name string, args ...string) *screen {
	t.Helper()
	master, slave, err := openPty()
	if err != nil {
		t.Fatalf("no pseudo terminals here: %v", err)
	}
	defer slave.Close()
	s := &screen{t: t, master: master, cmd: exec.Command(name, args...)}
	s.cmd.Env = append(os.Environ(), "HOLDFAST_URL="+fileURL(t.TempDir()), "PS1=$ ", "TERM=dumb", "HISTFILE=")
	s.cmd.Dir = t.TempDir()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		master.Close()
	})
	go s.watch()
	return s
}

func openPty() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}

// watch collects what is shown, until nobody is left to write.
func (s *screen) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.text += string(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits for a text behind the last one that was expected.
func (s *screen) expect(text string) {
	s.t.Helper()
	ok := eventually(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := strings.Index(s.text[s.read:], text)
		if i >= 0 {
			s.read += i + len(text)
		}
		return i >= 0
	})
	if !ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t.Fatalf("never saw %q; the screen shows:\n%s", text, s.text)
	}
}

// press types keys.
func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) exits(want int) {
	s.t.Helper()
	if got := exitCode(s.cmd.Wait()); got != want {
		s.t.Errorf("exit code %d, not %d; the screen shows:\n%s", got, want, s.text)
	}
}

const (
	ctrlC = "\x03"
	ctrlD = "\x04"
	ctrlZ = "\x1a"

	// talk shows that it has begun and repeats what is typed. The quotes tell what it shows
	// from the command line that starts it.
	talk = `echo be''gun; exec cat`
)

func TestTerminalBelongsToTheCommand(t *testing.T) {
	t.Parallel()
	s := newScreen(t, "holdfast", "run", "job", "--", "sh", "-c", talk)
	s.expect("begun")
	s.press("word\n")
	s.expect("word") // by the terminal
	s.expect("word") // by the command
	s.press(ctrlC)
	s.exits(130)
}

// Without a shell nobody could continue what Ctrl-Z stops.
func TestTerminalStopWithoutAShell(t *testing.T) {
	t.Parallel()
	s := newScreen(t, "holdfast", "run", "job", "--", "sh", "-c", talk)
	s.expect("begun")
	s.press(ctrlZ)
	s.expect("^Z")
	s.press("word\n")
	s.expect("word")
	s.expect("word")
	s.press(ctrlD)
	s.exits(0)
}

func newShell(t *testing.T) *screen {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err) // make test installs it
	}
	s := newScreen(t, bash, "--norc", "--noprofile", "--noediting", "-i")
	s.expect("$ ")
	return s
}

func TestTerminalJobControl(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.press(`holdfast run job -- sh -c "` + talk + `"` + "\n")
	s.expect("begun")
	for range 3 {
		s.press(ctrlZ)
		s.expect("Stopped")
		s.expect("$ ")
		s.press("fg\n")
		s.expect("holdfast run")
		s.press("word\n")
		s.expect("word")
		s.expect("word")
	}
	s.press(ctrlD)
	s.expect("$ ")
	s.press("echo code=$?\n")
	s.expect("code=0")
	s.press("exit 3\n")
	s.exits(3)
}

// In a pipeline the terminal stays with the pipeline until the command asks for it.
func TestTerminalInAPipeline(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.press(`holdfast run job -- sh -c 'echo be""gun; read x </dev/tty; echo got $x' | cat` + "\n")
	s.expect("begun")
	s.press("word\n")
	s.expect("got word")
	s.press(`holdfast run job -- sh -c 'echo be""gun; exec sleep 60' | cat; echo ended ${PIPESTATUS[0]}` + "\n")
	s.expect("begun")
	s.press(ctrlC)
	s.expect("$ ")
	s.press("echo ended ${PIPESTATUS[0]}\n")
	s.expect("ended 130")
	s.press("exit 0\n")
	s.exits(0)
}

// A command in the background is stopped when it wants to read, and goes on in front.
func TestTerminalFromTheBackground(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.press(`holdfast run job -- sh -c 'echo be""gun; read x; echo got $x' &` + "\n")
	s.expect("begun")
	// Until the shell knows that it has stopped, fg does not continue it.
	s.press("while ! jobs -s | grep -q run; do sleep 0.01; done; echo se''en\n")
	s.expect("seen")
	s.press("fg\n")
	s.expect("holdfast run")
	s.press("word\n")
	s.expect("got word")
	s.press("exit 0\n")
	s.exits(0)
}

// Ctrl-C ends the script that runs holdfast, as it would have if the command had not been in
// a group of its own.
func TestTerminalInterruptEndsAScript(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "dash"} {
		s := newScreen(t, shell, "-c", `for i in 1 2; do holdfast run job -- sh -c 'echo be""gun; exec sleep 60'; done; echo af""ter`)
		s.expect("begun")
		s.press(ctrlC)
		s.exits(130)
		s.mu.Lock()
		if strings.Contains(s.text, "after") {
			t.Errorf("%s: the script went on: %q", shell, s.text)
		}
		s.mu.Unlock()
	}
}

// Afterwards the terminal belongs to whoever had it before.
func TestTerminalIsGivenBack(t *testing.T) {
	t.Parallel()
	s := newScreen(t, "sh", "-c", `holdfast run job -- true; holdfast run job -- ./nothing; echo be''gun; read x; echo got $x`)
	s.expect("begun")
	s.press("word\n")
	s.expect("got word")
	s.exits(0)
}
