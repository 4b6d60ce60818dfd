package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

// server is the redis-server of a run.
type server struct {
	cmd    *exec.Cmd
	addr   string
	wire   *wire
	exited chan struct{}
	folder string
}

// startServer starts a server that keeps everything in memory, on a free port of the
// loopback. program is redis-server, or another one that takes its options.
func startServer(ctx context.Context, program string) (*server, error) {
	folder, err := os.MkdirTemp("", "peers-")
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		s, err := launchServer(ctx, program, folder)
		if err == nil {
			return s, nil
		}
		if try == 4 || ctx.Err() != nil || errors.Is(err, exec.ErrNotFound) {
			_ = os.RemoveAll(folder)
			return nil, err
		}
	}
}

func launchServer(ctx context.Context, program, folder string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	s := &server{addr: addr.String(), exited: make(chan struct{}), folder: folder}
	s.cmd = exec.Command(program, "--port", fmt.Sprint(addr.Port), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--dir", folder, "--maxclients", "4000")
	if err := spawn(s.cmd, nil); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // it is killed at the end, or shows why not on its first use
		close(s.exited)
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if s.wire, err = dialWire(s.addr); err == nil {
			if _, err = s.wire.do("PING"); err == nil {
				return s, nil
			}
			_ = s.wire.close()
		}
		select {
		case <-s.exited:
			return nil, fmt.Errorf("%s on %s has ended", program, s.addr)
		case <-ctx.Done():
			s.kill()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.kill()
	return nil, fmt.Errorf("%s does not answer: %w", program, err)
}

// clean makes the server forget what the last cell left.
func (s *server) clean() error {
	if _, err := s.wire.do("FLUSHALL"); err != nil {
		return err
	}
	_, err := s.wire.do("CONFIG", "RESETSTAT")
	return err
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

func (s *server) close() {
	s.kill()
	_ = os.RemoveAll(s.folder)
}
