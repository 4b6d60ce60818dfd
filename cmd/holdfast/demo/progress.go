package demo

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress shows how far a strategy has come: on a terminal one line that changes, elsewhere
// a line each quarter.
type progress struct {
	out      io.Writer
	title    string
	tally    *tally
	terminal bool
	quarters int // shown so far

	quit chan struct{}
	done sync.WaitGroup
}

const progressInterval = 100 * time.Millisecond

func startProgress(out io.Writer, title string, t *tally) *progress {
	p := &progress{out: out, title: title, tally: t, terminal: isTerminal(out), quit: make(chan struct{})}
	p.done.Go(func() {
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.show()
			case <-p.quit:
				return
			}
		}
	})
	return p
}

// stop shows the last state and leaves it standing.
func (p *progress) stop() {
	close(p.quit)
	p.done.Wait()
	p.show()
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}

func (p *progress) show() {
	c := p.tally.counts()
	finished := c.Issued + c.Errors
	percent := 100 * finished / p.tally.expected
	line := fmt.Sprintf("%-16s %d of %d (%d %%), %d duplicates", p.title, finished, p.tally.expected, percent, c.Duplicates)
	switch {
	case p.terminal:
		fmt.Fprint(p.out, "\r\x1b[K", line)
	case percent/25 > p.quarters:
		p.quarters = percent / 25
		fmt.Fprintln(p.out, line)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
