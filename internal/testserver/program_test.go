package testserver_test

import (
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestProgram(t *testing.T) {
	t.Parallel()
	p := testserver.Run(t, "/bin/sh", []string{"-c", `trap 'exit 7' TERM; echo "$WORD"; while :; do sleep 0.05; done`}, []string{"WORD=begun"})
	begun := func() bool {
		text, last := p.Output()
		return strings.HasPrefix(string(text[last:]), "begun")
	}
	eventually(t, "its output", begun)
	p.Pause()
	p.Resume()
	p.Stop()
	if p.Running() || p.ExitCode() != 7 {
		t.Errorf("after Stop: runs %t, exit code %d", p.Running(), p.ExitCode())
	}
	first := p.PID()
	p.Start()
	eventually(t, "its output after a second start", begun)
	p.Pause()
	if code := p.ExitCode(); code != -1 {
		t.Errorf("exit code %d while it runs", code)
	}
	p.Kill()
	if p.PID() == first || running(p.PID()) {
		t.Errorf("process %d is left, the first was %d", p.PID(), first)
	}
}
