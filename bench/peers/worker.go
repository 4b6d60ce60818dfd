package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// workerVariable is set in the environment of processes that carry out one cell.
const workerVariable = "HOLDFAST_PEERS_WORKER"

// order is what a worker is told on its standard input.
type order struct {
	Server   string // the product
	Adapter  string
	Addr     string
	Pids     []int    // of the server's processes
	Redis    []string // see server
	Worker   int      // its number among those of the cell
	Parallel int      // goroutines
	OneKey   bool
	Register string // path, "" for none
	Section  time.Duration
	Warmup   time.Duration
	Duration time.Duration
	Leases   int    // hold so many in place of locking in turns
	Profile  string // path for a processor profile, "" for none
}

// result is what it answers.
type result struct {
	Seconds   float64
	Cycles    uint64
	Entered   uint64 // how often the section was entered, before and after measuring as well
	Handovers uint64 // turns that went from one process to another
	Served    []uint64
	Acquire   *histogram
	Handover  *histogram
	Processor time.Duration
	Allocs    uint64
	Server    counters // of the first worker only
	Errors    int
	Example   string // one of the errors

	Acquired   time.Duration // how long it took to take all leases
	HeapBytes  int64
	StackBytes int64
	Lost       int // leases
}

// work is the life of a worker: read the order, get ready, wait for the start, answer.
func work(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	w := &worker{order: o}
	if err := w.prepare(); err != nil {
		return fmt.Errorf("%s: %w", o.Adapter, err)
	}
	fmt.Fprintln(out, "ready")
	if _, err := lines.ReadBytes('\n'); err != nil {
		return err
	}
	r, err := w.run()
	if err != nil {
		return fmt.Errorf("%s: %w", o.Adapter, err)
	}
	return json.NewEncoder(out).Encode(r)
}

// The phases of a cell.
const (
	warmup = iota
	measure
	over
)

type worker struct {
	order
	peer     peer
	register *register
	gauge    *gauge // of the first worker
	phase    atomic.Int32
}

func (w *worker) prepare() error {
	p, err := productNamed(w.Server)
	if err != nil {
		return err
	}
	a, err := p.adapter(w.Adapter)
	if err != nil {
		return err
	}
	if w.peer, err = a.open(w.Addr); err != nil {
		return err
	}
	if w.Register != "" {
		if w.register, err = openRegister(w.Register); err != nil {
			return err
		}
	}
	if w.Worker == 0 {
		w.gauge, err = openGauge(w.Pids, w.Redis)
	}
	return err
}

func (w *worker) run() (*result, error) {
	stop, err := w.profile()
	if err != nil {
		return nil, err
	}
	defer stop()
	if w.Leases > 0 {
		return w.hold()
	}
	return w.cycles()
}

func (w *worker) profile() (stop func(), err error) {
	if w.Profile == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(w.Profile), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(w.Profile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}

// usage is what the process and the server have used up to some moment.
type usage struct {
	at        time.Time
	processor time.Duration
	allocs    uint64
	server    counters
}

func (w *worker) usage() (u usage, err error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u = usage{at: time.Now(), processor: processorTime(), allocs: m.Mallocs}
	if w.gauge != nil {
		u.server, err = w.gauge.read()
	}
	return u, err
}

// into writes the difference to an earlier moment into r.
func (u usage) into(r *result, before usage) {
	r.Seconds = u.at.Sub(before.at).Seconds()
	r.Processor = u.processor - before.processor
	r.Allocs = u.allocs - before.allocs
	if before.server.Calls != nil {
		r.Server = u.server.since(before.server)
	}
}

// tally is what one goroutine counts. Each has cache lines of its own.
type tally struct {
	measured  bool
	cycles    uint64
	handovers uint64
	entered   uint64
	errors    int
	example   error
	acquire   histogram
	handover  histogram
}

// cycles locks and unlocks in all goroutines until the time is over.
func (w *worker) cycles() (*result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tallies := make([]*tally, w.Parallel)
	var running sync.WaitGroup
	for i := range tallies {
		tallies[i] = new(tally)
		key := "bench:one"
		if !w.OneKey {
			key = fmt.Sprintf("bench:%d:%d", w.Worker, i)
		}
		l := w.peer.locker(key)
		running.Go(func() { w.contend(ctx, int64(i), l, tallies[i]) })
	}
	time.Sleep(w.Warmup)
	before, err := w.usage()
	w.phase.Store(measure)
	time.Sleep(w.Duration)
	w.phase.Store(over)
	after, e := w.usage()
	cancel()
	running.Wait()
	if err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	r := &result{Acquire: new(histogram), Handover: new(histogram)}
	after.into(r, before)
	for _, t := range tallies {
		r.add(t)
	}
	return r, w.peer.close()
}

func (r *result) add(t *tally) {
	r.Cycles += t.cycles
	r.Entered += t.entered
	r.Handovers += t.handovers
	r.Served = append(r.Served, t.cycles)
	r.Acquire.merge(&t.acquire)
	r.Handover.merge(&t.handover)
	r.Errors += t.errors
	if t.example != nil {
		r.Example = t.example.Error()
	}
}

// contend is one goroutine that takes turns.
func (w *worker) contend(ctx context.Context, i int64, l locker, t *tally) {
	process := int64(w.Worker) + 1
	me := process<<32 | i + 1
	for {
		phase := w.phase.Load()
		if phase == over {
			return
		}
		t.measured = phase == measure
		begin := time.Now()
		if err := l.lock(ctx); err != nil {
			if w.phase.Load() != over {
				t.fail(err)
				_ = pause(ctx, time.Millisecond) // or errors would eat the machine
			}
			continue
		}
		now := time.Now()
		var h handover
		if w.register != nil {
			h = w.register.enter(me, process, now)
			w.register.section(w.Section)
			w.register.leave(me, process)
		}
		t.entered++
		err := l.unlock()
		if w.phase.Load() == over {
			return
		}
		if err != nil {
			t.fail(err)
		} else if t.measured {
			t.cycle(now.Sub(begin), h)
		}
	}
}

func (t *tally) fail(err error) {
	t.errors++
	t.example = err
}

func (t *tally) cycle(acquire time.Duration, h handover) {
	t.cycles++
	t.acquire.add(acquire)
	if h.other {
		t.handovers++
		t.handover.add(h.took)
	}
}
