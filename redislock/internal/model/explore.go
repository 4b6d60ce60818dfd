package model

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"
)

// World is a system whose states are searched. S is the whole state; two states are the same
// if they are equal, so a world brings what makes no difference into one form.
type World[S comparable] interface {
	// Start returns the first states.
	Start() []S
	// Steps calls next with every state that one step from s leads to, and what the step
	// is: a verb and numbers that Say turns into words.
	Steps(s *S, next func(S, Step))
	// Wrong says what must never be about s, "" for nothing.
	Wrong(s *S) string
	// Say describes a step and the state after it.
	Say(step Step, after *S) string
}

// Step names a step.
type Step struct {
	Verb string
	A, B uint8
}

// Result is what came of a search.
type Result struct {
	States  int
	Steps   int
	Depth   int
	Wrong   string   // what was found, "" for nothing
	Trace   []string // a shortest way there
	Whole   bool     // every state was looked at
	Elapsed time.Duration
}

// String is one line.
func (r Result) String() string {
	rate := float64(r.States) / max(r.Elapsed.Seconds(), 1e-9)
	what := "nothing found, search complete"
	if r.Wrong != "" {
		what = fmt.Sprintf("%s in %d steps", r.Wrong, len(r.Trace))
	} else if !r.Whole {
		what = "nothing found, search CUT SHORT"
	}
	return fmt.Sprintf("%d states, %d steps, depth %d, %.0f states/s: %s", r.States, r.Steps, r.Depth, rate, what)
}

// chunk is how many states are kept in one piece of memory: growing never copies them.
const chunk = 1 << 14

// search is the set of states that were seen, in the order in which they were.
type search[S comparable] struct {
	chunks  [][]S
	parents []uint32
	table   []uint32 // open addressing: index + 1 of a state
	seed    maphash.Seed
}

func (x *search[S]) at(i int) *S { return &x.chunks[i/chunk][i%chunk] }

// add enters s unless it was seen. States are compared, not only their hashes.
func (x *search[S]) add(s *S, parent uint32) bool {
	n := len(x.parents)
	if 2*n >= len(x.table) {
		x.grow()
	}
	mask := uint64(len(x.table) - 1)
	h := maphash.Comparable(x.seed, *s) & mask
	for ; x.table[h] != 0; h = (h + 1) & mask {
		if *x.at(int(x.table[h] - 1)) == *s {
			return false
		}
	}
	x.table[h] = uint32(n + 1)
	if n%chunk == 0 {
		x.chunks = append(x.chunks, make([]S, 0, chunk))
	}
	c := &x.chunks[n/chunk]
	*c = append(*c, *s)
	x.parents = append(x.parents, parent)
	return true
}

func (x *search[S]) grow() {
	x.table = make([]uint32, max(1<<12, 2*len(x.table)))
	mask := uint64(len(x.table) - 1)
	for i := range x.parents {
		h := maphash.Comparable(x.seed, *x.at(i)) & mask
		for x.table[h] != 0 {
			h = (h + 1) & mask
		}
		x.table[h] = uint32(i + 1)
	}
}

// noParent is the parent of a first state.
const noParent = ^uint32(0)

// Explore searches breadth-first, until something is wrong, all states were looked at, or
// there are more than most.
func Explore[S comparable](w World[S], most int) Result {
	began := time.Now()
	x := &search[S]{seed: maphash.MakeSeed()}
	var r Result
	bad := -1
	enter := func(s *S, parent uint32) {
		if bad < 0 && x.add(s, parent) {
			if r.Wrong = w.Wrong(s); r.Wrong != "" {
				bad = len(x.parents) - 1
			}
		}
	}
	for _, s := range w.Start() {
		enter(&s, noParent)
	}
	level, i := len(x.parents), 0
	for ; i < len(x.parents) && bad < 0 && len(x.parents) <= most; i++ {
		if i == level {
			level = len(x.parents)
			r.Depth++
		}
		s := *x.at(i)
		w.Steps(&s, func(t S, _ Step) {
			r.Steps++
			enter(&t, uint32(i))
		})
	}
	r.States, r.Whole, r.Elapsed = len(x.parents), bad < 0 && i == len(x.parents), time.Since(began)
	if bad >= 0 {
		r.Trace = x.trace(w, bad)
	}
	return r
}

// trace tells the way to a state. The names of the steps were not kept: they are found again.
func (x *search[S]) trace(w World[S], last int) []string {
	var lines []string
	for i := uint32(last); x.parents[i] != noParent; i = x.parents[i] {
		after, line := x.at(int(i)), ""
		w.Steps(x.at(int(x.parents[i])), func(t S, step Step) {
			if t == *after && line == "" {
				line = w.Say(step, after)
			}
		})
		lines = append(lines, line)
	}
	for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
		lines[i], lines[j] = lines[j], lines[i]
	}
	return lines
}

// Story is the trace, a line a step.
func (r Result) Story() string {
	var b strings.Builder
	for i, line := range r.Trace {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, line)
	}
	return b.String()
}
