package main

import (
	"errors"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// server is what runs for a measurement, of one process or several.
type server struct {
	addr  string       // as the adapters take it
	pids  []int        // its processes, without those that they start
	redis []string     // addresses to ask for what was done, where the product can tell
	clean func() error // makes it forget what the last cell left
	lab   *testserver.Lab
}

func (s *server) close() { _ = s.lab.Close() }

// gauge tells what a server has done so far.
type gauge struct {
	pids  []int
	wires []*wire
}

func openGauge(pids []int, redis []string) (*gauge, error) {
	g := &gauge{pids: pids}
	for _, addr := range redis {
		w, err := dialWire(addr)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.wires = append(g.wires, w)
	}
	return g, nil
}

func (g *gauge) close() (err error) {
	for _, w := range g.wires {
		err = errors.Join(err, w.close())
	}
	return err
}

// read asks servers that can tell, of others it knows the processor time only, and that to a
// hundredth of a second for each process.
func (g *gauge) read() (counters, error) {
	sum := newCounters()
	if len(g.wires) == 0 {
		sum.Processor = processorTimeOf(g.pids)
	}
	for _, w := range g.wires {
		c, err := w.counters()
		if err != nil {
			return sum, err
		}
		sum.add(c)
	}
	return sum, nil
}
