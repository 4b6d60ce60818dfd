package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings say what to run and for how long.
type settings struct {
	product    *product
	patterns   []pattern // in this order
	adapters   []string  // shell patterns of names; empty for all
	rounds     int
	holdRounds int
	duration   time.Duration // of a cell
	hold       time.Duration // of a cell that holds leases
	leases     int
	parallel   int           // at most so many goroutines
	section    time.Duration // how long a holder keeps the one lock of a pattern
	base       string
	profiles   string // folder, "" for none
	progress   io.Writer
}

// outcome is a pattern's samples: of each adapter, one a round, nil where the cell failed.
type outcome struct {
	pattern  pattern
	adapters []adapter
	samples  map[string][]*sample
	failures map[string]string // by adapter, the last one
	control  *sample           // of the broken lock
	skipped  string            // why the pattern was not run
}

func (s *settings) run(ctx context.Context) ([]*outcome, error) {
	srv, err := start(s.product)
	if err != nil {
		return nil, err
	}
	defer srv.close()
	var all []*outcome
	for _, p := range s.patterns {
		o, err := s.runPattern(ctx, srv, p)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w", p.name, err)
		}
		all = append(all, o)
	}
	return all, nil
}

func (s *settings) runPattern(ctx context.Context, srv *server, p pattern) (*outcome, error) {
	o := &outcome{pattern: p, samples: map[string][]*sample{}, failures: map[string]string{}}
	if n := len(allProcessors()); n < p.processors {
		o.skipped = fmt.Sprintf("needs %d processors to pin processes to, has %d", p.processors, n)
		return o, nil
	}
	if s.base != "" {
		o.pattern.base = s.base
	}
	for _, name := range p.adapters {
		a, err := s.product.adapter(name)
		if err != nil {
			return nil, err
		}
		if s.wants(name) {
			o.adapters = append(o.adapters, a)
		}
	}
	if p.oneKey {
		if err := s.checkTheCheck(ctx, srv, o); err != nil {
			return nil, err
		}
	}
	rounds := s.rounds
	if p.hold {
		rounds = s.holdRounds
	}
	for round := range rounds {
		for i := range o.adapters {
			// Each round begins with another one: nobody always follows the same.
			a := o.adapters[(i+round)%len(o.adapters)]
			c, err := s.cell(ctx, srv, p, a, s.section)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				o.failures[a.name] = err.Error()
			}
			o.samples[a.name] = append(o.samples[a.name], c)
			fmt.Fprintf(s.progress, "\r%s %d/%d %-24s", p.name, round+1, rounds, a.name)
		}
	}
	fmt.Fprintf(s.progress, "\r%-60s\r", "")
	return o, nil
}

// checkTheCheck has the contenders run without a lock: overlaps that are not seen then would
// not be seen in others either.
func (s *settings) checkTheCheck(ctx context.Context, srv *server, o *outcome) error {
	for try := 0; ; try++ {
		c, err := s.cell(ctx, srv, o.pattern, controls[0], 50*time.Microsecond)
		switch {
		case err != nil:
			return err
		case c.Overlaps > 0 && c.LostUpdate > 0:
			o.control = c
			return nil
		case try == 4:
			return errors.New("the check for overlaps sees none where nothing is locked")
		}
	}
}

func (s *settings) wants(name string) bool {
	return len(s.adapters) == 0 || slices.ContainsFunc(s.adapters, func(glob string) bool {
		ok, _ := path.Match(glob, name)
		return ok
	})
}

// cell runs one adapter once, in processes of its own.
func (s *settings) cell(ctx context.Context, srv *server, p pattern, a adapter, section time.Duration) (*sample, error) {
	if err := srv.clean(); err != nil {
		return nil, err
	}
	clients, servers := placement(p.processors)
	if err := pin(srv.pids, servers); err != nil {
		return nil, err
	}
	o := order{
		Server: s.product.name, Adapter: a.name, Addr: srv.addr, Pids: srv.pids, Redis: srv.redis, Parallel: min(p.parallel, s.parallel), OneKey: p.oneKey,
		Section: section, Duration: s.duration, Warmup: s.duration / 4,
	}
	if p.hold {
		o.Leases, o.Duration = s.leases, s.hold
	}
	if p.oneKey {
		o.Register = filepath.Join(srv.lab.Folder(), "register")
		if err := newRegister(o.Register); err != nil {
			return nil, err
		}
	}
	if s.profiles != "" {
		o.Profile = filepath.Join(s.profiles, s.product.name+"-"+p.name+"-"+a.name+".pprof")
	}
	const slack = time.Minute // for the start, the ends of waits, and a busy machine
	ctx, cancel := context.WithTimeout(ctx, o.Warmup+o.Duration+slack)
	defer cancel()
	c := new(sample)
	var err error
	if c.Workers, err = employ(ctx, o, p.processes, clients); err != nil {
		return nil, err
	}
	return c, c.inspect(o.Register)
}

// placement says which processors clients and the server get.
func placement(processors int) (clients, servers []int) {
	all := allProcessors()
	switch processors {
	case 1:
		return all[:1], all[:1]
	case 2:
		return all[:1], all[1:2]
	}
	return nil, all
}

// inspect reads what the holders left in the register.
func (c *sample) inspect(registerPath string) error {
	if registerPath == "" {
		return nil
	}
	r, err := openRegister(registerPath)
	if err != nil {
		return err
	}
	c.Overlaps = r.overlaps.Load()
	c.LostUpdate = int64(c.sum(func(r *result) float64 { return float64(r.Entered) })) - r.counter.Load()
	return unmap(r)
}

// employ runs n workers side by side.
func employ(ctx context.Context, o order, n int, processors []int) ([]*result, error) {
	workers := make([]*employee, n)
	defer func() {
		for _, w := range workers {
			w.dismiss()
		}
	}()
	for i := range workers {
		o.Worker = i
		if i > 0 {
			o.Profile = ""
		}
		var err error
		if workers[i], err = hire(ctx, o, processors); err != nil {
			return nil, err
		}
	}
	for _, w := range workers {
		if line, err := w.out.ReadString('\n'); err != nil || line != "ready\n" {
			return nil, w.failure(err)
		}
	}
	for _, w := range workers {
		if _, err := io.WriteString(w.in, "\n"); err != nil {
			return nil, w.failure(err)
		}
	}
	results := make([]*result, n)
	for i, w := range workers {
		results[i] = new(result)
		if err := json.NewDecoder(w.out).Decode(results[i]); err != nil {
			return nil, w.failure(err)
		}
	}
	for _, w := range workers {
		if w.dismiss(); !w.cmd.ProcessState.Success() {
			return nil, w.failure(errors.New("ended badly"))
		}
	}
	return results, nil
}

// employee is a worker's process, seen from here.
type employee struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr strings.Builder
}

func hire(ctx context.Context, o order, processors []int) (*employee, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &employee{cmd: exec.CommandContext(ctx, self)}
	w.cmd.Env = append(os.Environ(), workerVariable+"=1")
	if len(processors) > 0 {
		w.cmd.Env = append(w.cmd.Env, "GOMAXPROCS="+strconv.Itoa(len(processors)))
	}
	w.cmd.Stderr = &w.stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	if err := spawn(w.cmd, processors); err != nil {
		return nil, err
	}
	line, err := json.Marshal(o)
	if err == nil {
		_, err = w.in.Write(append(line, '\n'))
	}
	if err != nil {
		return w, w.failure(err)
	}
	return w, nil
}

// failure says why a worker did not answer: it said so itself, unless it was killed.
func (w *employee) failure(err error) error {
	w.dismiss()
	if text := strings.TrimSpace(w.stderr.String()); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("worker: %w, %s", err, w.cmd.ProcessState)
}

// dismiss ends the process if it still runs.
func (w *employee) dismiss() {
	if w == nil || w.cmd.ProcessState != nil {
		return
	}
	_ = w.in.Close()
	done := make(chan struct{})
	go func() {
		_ = w.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = w.cmd.Process.Kill()
		<-done
	}
}
