package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// startTimeout is generous: many processes may start at the same time on a busy machine.
	startTimeout = 30 * time.Second

	// stopTimeout is when an instance that was told to end is killed. It has time to drain
	// and to give its locks back.
	stopTimeout = drainTimeout + 6*time.Second
)

// cluster is a number of processes that serve.
type cluster struct {
	members []*member
	cancel  context.CancelFunc
}

// member is a process, as the demo sees it.
type member struct {
	number  int
	process *exec.Cmd
	address firstLine
	stderr  tail
	exited  chan struct{} // closed when the process has ended
	err     error         // then: how
}

// startCluster starts n processes and waits until all of them serve. args are those of every
// process, but for the last, its number. The processes end when ctx does, by close, and when
// this process dies.
func startCluster(ctx context.Context, n int, args []string, url string) (*cluster, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &cluster{cancel: cancel}
	for i := range n {
		m, err := startMember(ctx, program, i+1, args, url)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.members = append(c.members, m)
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	for _, m := range c.members {
		if err := m.ready(ctx, timeout.C); err != nil {
			c.close() // what else goes wrong now follows from that
			return nil, err
		}
	}
	return c, nil
}

func startMember(ctx context.Context, program string, number int, args []string, url string) (*member, error) {
	m := &member{number: number, exited: make(chan struct{})}
	m.address.seen = make(chan struct{})
	p := exec.CommandContext(ctx, program, append(args[:len(args):len(args)], strconv.Itoa(number))...)
	p.Args[0] = os.Args[0] // some programs go by the name they are called
	p.Env = append(os.Environ(), "HOLDFAST_URL="+url)
	p.Stdout, p.Stderr = &m.address, &m.stderr
	stdin, err := p.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.Cancel, p.WaitDelay = stdin.Close, stopTimeout
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("instance %d does not start: %w", number, err)
	}
	m.process = p
	go func() {
		m.err = p.Wait()
		close(m.exited)
	}()
	return m, nil
}

// ready waits until the process has said where it listens.
func (m *member) ready(ctx context.Context, timeout <-chan time.Time) error {
	select {
	case <-m.address.seen:
		return nil
	case <-m.exited:
		return m.died()
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout:
		return fmt.Errorf("instance %d did not start within %v%s", m.number, startTimeout, m.stderr.suffix())
	}
}

// died describes the end of a process that should be alive.
func (m *member) died() error {
	how := "it exited"
	if m.err != nil {
		how = m.err.Error()
	}
	return fmt.Errorf("instance %d ended: %s%s", m.number, how, m.stderr.suffix())
}

// close ends the processes and returns when they are gone. The error is of those that had
// ended by themselves before.
func (c *cluster) close() error {
	var errs []error
	for _, m := range c.members {
		select {
		case <-m.exited:
			errs = append(errs, m.died())
		default:
		}
	}
	c.cancel()
	for _, m := range c.members {
		<-m.exited // bounded by WaitDelay
	}
	c.members = nil
	return errors.Join(errs...)
}

// firstLine is a writer that keeps the first line that is written to it.
type firstLine struct {
	mu   sync.Mutex
	text []byte
	done bool
	seen chan struct{} // closed when the line is complete
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return len(p), nil
	}
	f.text = append(f.text, p...)
	if line, _, ok := bytes.Cut(f.text, []byte("\n")); ok {
		f.text, f.done = line, true
		close(f.seen)
	}
	return len(p), nil
}

func (f *firstLine) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.text)
}

// tail is a writer that keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	return len(p), nil
}

// suffix is the text as the end of a message.
func (t *tail) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := strings.TrimSpace(string(t.text)); text != "" {
		return ": " + text
	}
	return ""
}

var _, _ io.Writer = (*firstLine)(nil), (*tail)(nil)
