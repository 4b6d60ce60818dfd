package protocol

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// The kinds of answers that only nodes of a quorum give, see lua/quorum.lua.
const (
	Higher     = 'c' // no vouch: larger numbers were given out since
	OtherEpoch = 'e' // the node is in another epoch
	Forgot     = 'f' // the node has to be seeded
)

// What a client makes of a node that did not answer.
const (
	Pending = byte(0)   // not yet: the zero Answer
	Silent  = byte('.') // failed, and it is not known whether the request was carried out
)

// Quorum is a deployment of so many independent nodes.
type Quorum int

// Majority is how many nodes have to vouch.
func (q Quorum) Majority() int { return int(q)/2 + 1 }

// Blocking is how many nodes are in every majority with at least one of theirs.
func (q Quorum) Blocking() int { return int(q) - q.Majority() + 1 }

// QuorumConstants are what all clients of a quorum have to agree on.
type QuorumConstants struct {
	MaxTTL time.Duration // the longest TTL of a lease
	Nodes  Quorum
	Group  string // which nodes: a word
}

// String is how the scripts are told.
func (c QuorumConstants) String() string {
	return fmt.Sprintf("%d %d %s", c.MaxTTL.Milliseconds(), c.Nodes, c.Group)
}

// Grace is how long a node grants and vouches nothing once it was seeded, as the scripts
// compute it.
func (c QuorumConstants) Grace() time.Duration {
	return time.Duration(math.Ceil(float64(c.MaxTTL.Milliseconds())*1.01)+2) * time.Millisecond
}

// Result is what the answers to a round mean so far.
type Result uint8

// The results.
const (
	Undecided  Result = iota // too few have answered
	Won                      // a majority has vouched for one fence
	Split                    // a majority has granted, but not the same: a second round has to vouch
	Conflicted               // others hold too many nodes, or what was granted is gone
	NoQuorum                 // too few nodes answered in a usable way
	Moved                    // too many are in another epoch: learn it, and make another attempt
)

// Acquired is what the answers of all nodes to the first round of an attempt mean: one answer
// a node, to requests that carried the same token, TTL, span and epoch. With Won, last is the
// attempt's fence and the span that ends with it is the attempt's too; with Split they are what
// the second round has to vouch for. That round starts at once and not when the others have
// answered: they may never.
func (q Quorum) Acquired(answers []Answer) (r Result, last int64, span int) {
	granted := 0
	for _, a := range answers {
		if a.Kind != Granted {
			continue
		}
		granted++
		same, least := 0, a.Span
		for _, b := range answers {
			if b.Kind == Granted && b.last() == a.last() {
				same++
				least = min(least, b.Span)
			}
		}
		if same >= q.Majority() {
			return Won, a.last(), least
		}
		if a.last() > last {
			last = a.last()
		}
		if span == 0 || a.Span < span {
			span = a.Span
		}
	}
	if granted >= q.Majority() {
		return Split, last, span
	}
	return q.hopeless(answers), 0, 0
}

func (a Answer) last() int64 { return a.N + int64(a.Span) - 1 }

// Vouched is what the answers to a second round mean: Won, or the attempt is over.
func (q Quorum) Vouched(answers []Answer) Result {
	if count(answers, Done) >= q.Majority() {
		return Won
	}
	return q.hopeless(answers)
}

func count(answers []Answer, kinds ...byte) (n int) {
	for _, a := range answers {
		if strings.IndexByte(string(kinds), a.Kind) >= 0 {
			n++
		}
	}
	return n
}

// hopeless says why no majority can come any more, if that is so.
func (q Quorum) hopeless(answers []Answer) Result {
	refused := count(answers, Held, Nothing, Higher)
	moved := count(answers, OtherEpoch)
	down := len(answers) - count(answers, Pending, Granted, Done) - refused - moved
	switch {
	case refused+moved+down < q.Blocking():
		return Undecided
	case down >= q.Blocking():
		return NoQuorum
	case down+moved >= q.Blocking():
		return Moved
	}
	return Conflicted
}

// Renewal is the verdict of the answers of all nodes to a renewal. Nodes that forgot will not
// vouch for the lease again; of those in another epoch nothing is known.
func (q Quorum) Renewal(answers []Answer) Verdict {
	switch {
	case count(answers, Done) >= q.Majority():
		return Renewed
	case count(answers, Nothing, Higher, Forgot, Wait) >= q.Blocking():
		return Lost
	}
	return Unsure
}

// Left is how long a lease is valid that was asked for at sent and is looked at now, by a
// clock that is off by 1 %: what is not positive is not valid. The time of the first request
// of the round that won counts, and now is after its last answer.
func Left(sent, now driver.Instant, ttl time.Duration) time.Duration {
	return ttl - now.Sub(sent) - ttl/100 - 2*time.Millisecond
}

// Order is the fixed order in which all clients take the nodes for a name after a collision:
// the first of those that are up decides, for who holds it may go on and nobody else.
func (q Quorum) Order(name string) []int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	order := make([]int, q)
	for i := range order {
		order[i] = (int(h.Sum32()%uint32(q)) + i) % int(q)
	}
	return order
}

// Pause is how long to wait after so many collisions in a row, one or more: a random time up
// to a bound that doubles each time. Trip is about how long a round takes.
func Pause(collisions int, trip time.Duration) time.Duration {
	bound := min(max(trip, time.Millisecond)<<min(collisions, 8), 500*time.Millisecond)
	return trip/2 + rand.N(bound)
}
