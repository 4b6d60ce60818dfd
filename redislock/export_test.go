package redislock

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// Needs returns the commands that Diagnose tries by scripts.
func Needs(e *Engine) []string {
	var names []string
	for _, n := range e.needs("holdfast:x", "") {
		names = append(names, n[0])
	}
	return names
}

// Near tells the engine how long its nodes take to answer, and returns whether that majority is asked first.
func (q *Quorum) Near(majority []int, took ...time.Duration) bool {
	for i, d := range took {
		q.nodes[i].took.Store(int64(d))
	}
	return q.near(majority)
}

// Attempts returns how often the engine has tried to get a majority.
func (q *Quorum) Attempts() uint64 { return q.attempts.Load() }

// Serving returns how many nodes said last that they take part, in the epoch of a majority.
func (q *Quorum) Serving() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, h := range q.heads {
		if h.State == protocol.Serving && h.Epoch == q.epoch {
			n++
		}
	}
	return n
}

// Look asks all nodes how they are.
func (q *Quorum) Look(ctx context.Context) { q.statuses(ctx) }

// SetWall gives the engine another clock to propose fences by. It comes before its first call.
func (q *Quorum) SetWall(wall func() time.Time) { q.wall = wall }

// Wires returns how many of the engine's senders have a connection of their own.
func Wires(e *Engine) int {
	n := 0
	e.each(func(c *combiner) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, l := range c.lines {
			if l != nil && l.wire.Load() != nil {
				n++
			}
		}
	})
	return n
}
