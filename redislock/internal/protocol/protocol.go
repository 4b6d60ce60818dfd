// Package protocol is what the client of redislock decides by: the meaning of the words that
// the scripts answer, when a push is believed and for how long, and how long a new master
// holds back. Nothing here does I/O or reads a clock, so that the model checker in
// internal/model runs the very functions that the engine runs.
package protocol

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// The kinds of answers, see lua/lock.lua.
const (
	Granted    = '+'
	Queued     = 'q'
	Held       = 'h'
	Done       = '='
	Nothing    = '-' // the token holds nothing, or no longer
	Wait       = 'w' // failover grace
	CutOff     = 'n' // too few replicas acknowledge
	OtherLimit = 'l'
	QueueFull  = 'f'
	Stale      = 's'
	Broken     = 'b'
	Failed     = '!'
	HalfDone   = '?' // failed in the middle
)

// Answer is a word, parsed.
type Answer struct {
	Kind  byte  // one of the constants; 0 for no word at all
	N     int64 // of a grant the first fence, otherwise what the word says
	Span  int   // of a grant
	Count int64 // of Queued: the fence counter
}

// Parse reads the word that answered a request for so many numbers.
func Parse(word string, span int) Answer {
	if word == "" {
		return Answer{}
	}
	a := Answer{Kind: word[0]}
	body := word[1:]
	if a.Kind >= '0' && a.Kind <= '9' {
		a.Kind, a.Span, body = Granted, span, word
		if first, less, ok := strings.Cut(word, "/"); ok {
			a.Span, _ = strconv.Atoi(less)
			body = first
		}
	}
	if body == "" { // errors of the parser cost an allocation
		return a
	}
	body, count, queued := strings.Cut(body, ",")
	a.N, _ = strconv.ParseInt(body, 10, 64)
	if queued {
		a.Count, _ = strconv.ParseInt(count, 10, 64)
	}
	return a
}

// Grant is what an answer to a request that was made at sent grants, if it does.
func (a Answer) Grant(sent driver.Instant) (driver.Grant, bool) {
	if a.Kind != Granted {
		return driver.Grant{}, false
	}
	return driver.Grant{Fence: a.N, FenceSpan: a.Span, Sent: sent}, true
}

// Verdict is what the answer to a renewal says about the share.
type Verdict uint8

// The verdicts.
const (
	Unsure  Verdict = iota // nothing: ask again until the deadline
	Renewed                // its TTL counts from when the renewal was made
	Lost                   // it is gone
)

// Renewal is the verdict of an answer to a renewal.
func (a Answer) Renewal() Verdict {
	switch a.Kind {
	case Done:
		return Renewed
	case Nothing:
		return Lost
	}
	return Unsure
}

// Push is a message that a waiter was granted its share: the scripts enter the share before
// they send it. It may arrive late, twice, or for a wait that is long over.
type Push struct {
	Fence int64
	Span  int
	TTL   time.Duration
}

// Place is what a waiter knows of its place in the queue: the last answer that said "queued".
type Place struct {
	Known bool // there was one
	Sent  driver.Instant
	Count int64 // the fence counter
}

// Note takes down an answer to a poll that was made at sent.
func (p *Place) Note(a Answer, sent driver.Instant) {
	if a.Kind == Queued {
		*p = Place{Known: true, Sent: sent, Count: a.Count}
	}
}

// Believes reports whether a waiter may take up the push now. Two things make it so: its
// fence is larger than the counter was when the waiter was last told that it is queued, so it
// was granted after that poll had left, not for an earlier place in the queue; and the share
// cannot have run out even if it was granted right then. How long the message was under way
// is not known, so the time of its arrival says nothing.
func (p Place) Believes(push Push, now driver.Instant) bool {
	usable := push.TTL - push.TTL/20 - 2*time.Millisecond
	return p.Known && push.Fence > p.Count && now.Sub(p.Sent) < usable-push.TTL/4
}

// Grant is what a push that is believed grants.
func (p Place) Grant(push Push) driver.Grant {
	return driver.Grant{Fence: push.Fence, FenceSpan: push.Span, Sent: p.Sent, TTL: push.TTL}
}

// Constants are what all clients of a deployment have to agree on.
type Constants struct {
	MaxTTL   time.Duration // the longest TTL of a lease
	Replicas int           // how many have to acknowledge
	Lag      time.Duration // how old the last acknowledgement of a replica may be
}

// Majority is how many replicas have to acknowledge for a master and them to be a majority of
// so many data nodes.
func Majority(dataNodes int) int { return dataNodes / 2 }

// String is how the scripts are told.
func (c Constants) String() string {
	return fmt.Sprintf("%d %d %d", c.MaxTTL.Milliseconds(), c.Replicas, int(c.Lag/time.Second))
}

// Silence is how long a predecessor may go on answering after its successor's first answer:
// the lag that is allowed, the second more for which the gate lets an acknowledgement count,
// and one to spare. In it nothing is confirmed.
func (c Constants) Silence() time.Duration {
	if c.Replicas == 0 {
		return 0
	}
	return c.Lag + 2*time.Second
}

// Grace is how long a master grants nothing new after its first answer, computed as the
// scripts do.
func (c Constants) Grace() time.Duration {
	ms := float64((c.MaxTTL + c.Silence()).Milliseconds())
	return time.Duration(math.Ceil(ms*1.01)+2) * time.Millisecond
}

// Term is for how long a node has answered without a change of its mastership. In a Cluster
// it stands in for the epochs of slots that nobody has locked anything in so far, which would
// each have to wait out a grace otherwise. That is right as long as a slot comes to a master
// with its keys, the epoch among them, and not from one that was promoted or restarted less
// than a grace before: assumption A6 of docs/guarantees.md, which the model shows to be needed.
type Term struct {
	name  string
	since driver.Instant
}

// Heard takes down an answer that came at that time.
func (t *Term) Heard(name string, at driver.Instant) {
	if t.name != name {
		t.name, t.since = name, at
	}
}

// Known is how the scripts are told.
func (t *Term) Known(now driver.Instant) string {
	if t.name == "" {
		return ""
	}
	return t.name + " " + strconv.FormatInt(now.Sub(t.since).Milliseconds(), 10)
}
