package testserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait of this package. It is long because machines are busy, not
// because anything takes long.
const patience = 20 * time.Second

// process is a program that runs in the background and writes to a file.
type process struct {
	program string
	args    []string
	folder  string   // its working directory
	env     []string // beside that of this process
	log     string   // path of the file that gets its output, over all starts
	user    string   // as whom it runs where this process is root, "" for root

	mu     sync.Mutex
	cmd    *exec.Cmd     // of the last start, nil before the first
	exited chan struct{} // closed when that one is gone and its id is free
}

// startLine parts the output of one start from that of the one before.
const startLine = "---- start\n"

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited != nil && !closed(p.exited) {
		return fmt.Errorf("%s runs already, as process %d", p.program, p.cmd.Process.Pid)
	}
	out, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := out.WriteString(startLine); err != nil {
		return err
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.folder, out, out
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = childAttributes()
	if err := runAs(cmd, p.user); err != nil {
		return err
	}
	started := make(chan error)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	return nil
}

// spawner runs functions on one thread that lives as long as this process. Linux kills a child
// at the death of the thread that started it, and threads of other goroutines may end early.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// running returns the process of the last start and what is closed when it is gone.
func (p *process) running() (*os.Process, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		gone := make(chan struct{})
		close(gone)
		return nil, gone
	}
	return p.cmd.Process, p.exited
}

// down is true before the first start and when the process is gone.
func (p *process) down() bool {
	_, exited := p.running()
	return closed(exited)
}

// kill ends the process, frozen or not, and waits until it is gone.
func (p *process) kill() error {
	proc, exited := p.running()
	if closed(exited) {
		return nil
	}
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.gone(exited)
}

// stop asks the process to end and waits until it is gone.
func (p *process) stop() error {
	proc, exited := p.running()
	if closed(exited) {
		return nil
	}
	if err := resume(proc); err != nil { // who is frozen hears nothing
		return err
	}
	if err := proc.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.gone(exited)
}

func (p *process) gone(exited <-chan struct{}) error {
	select {
	case <-exited:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s does not end", p.program)
	}
}

// tail returns the end of the output, at most so many bytes of it.
func (p *process) tail(most int64) string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-most), io.SeekStart)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	if int64(len(data)) >= most { // starts in the middle of a line
		_, rest, _ := strings.Cut(string(data), "\n")
		return "...\n" + rest
	}
	return string(data)
}

// poll calls try until it returns nil, and gives up when the process is gone or after
// patience. The error is the last one of try.
func poll(gone <-chan struct{}, try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", patience, err)
		}
		select {
		case <-gone:
			return fmt.Errorf("the server has ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
