package model

import (
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// Server is a Redis server that locks are kept on. What the scripts do on it is in scripts.go.
type Server struct {
	// What the scripts ask the server for.
	Micros   int64 // TIME
	Replica  bool  // INFO: role
	Term     string
	Began    int64 // second_repl_offset
	Offset   int64 // master_repl_offset
	Replicas []Acks
	Marks    *Marks                  // nil: an acknowledgement counts by its lag, and if it was given in this term
	Listens  func(inbox string) bool // PUBLISH: somebody does
	Full     bool                    // writes of lock keys that a pcall guards fail

	Epoch   Epoch
	Counter int64 // of fences
	Locks   map[string]*Lock

	Published []Message // by the last call
	Flaws     Flaws     // planted
	Brief     bool      // payloads are not wanted
}

// Acks is what INFO says of a replica.
type Acks struct {
	Online bool
	Offset int64
	Lag    int64 // s
}

// Marks are how far the server had written, and when: what the gate tells the age of an
// acknowledgement by.
type Marks struct {
	Term string
	List []Mark
	Ends int64 // ms
}

// Mark is one of them.
type Mark struct{ At, Offset int64 }

// Epoch is the value of the epoch key.
type Epoch struct {
	Set       bool
	Term      string
	Start     int64 // ms
	Constants string
}

// Message is a push.
type Message struct {
	Inbox, Token, Key string
	Fence, Span, TTL  int64
}

// Kind is what a lock's key holds.
type Kind uint8

// The kinds.
const (
	Free Kind = iota
	Exclusive
	Group
	Wrong // another type
)

// Lock is the key of a name, and its companions.
type Lock struct {
	Kind  Kind
	Value Value // of Exclusive
	Ends  int64 // ms; 0 for never

	Limit, Held int64 // of Group
	Up          string
	Members     []Member

	Queue     []Entry
	QueueEnds int64
}

// Value is what the key of an exclusive lock has as its value.
type Value struct {
	ID          string // 'owner token', or all of another client's value
	Foreign     bool
	First, More int64
	Sec, Micro  int64
}

func (v Value) String() string {
	if v.Foreign {
		return v.ID
	}
	numbers := itoa(v.First)
	if v.More > 0 {
		numbers += "+" + itoa(v.More)
	}
	return v.ID + " " + numbers + " " + itoa(v.Sec) + "." + itoa(v.Micro)
}

// Member is a share of a group.
type Member struct {
	Token  string
	Mode   byte
	Weight int64
	Value  Value
	Ends   int64 // ms
}

func (m Member) String() string {
	return string(m.Mode) + " " + itoa(m.Weight) + " " + m.Value.String()
}

// Entry is a place in the queue.
type Entry struct {
	Inbox                  string
	Mode                   byte
	Cap, Weight, TTL, Span int64
	ID                     string
	Order                  int64 // us; 0 for upgrades
	Seen                   int64 // ms; 0 for not since it came
}

func (e Entry) String() string {
	return "PUBLISH " + e.Inbox + " " + string(e.Mode) + " " + itoa(e.Cap) + " " + itoa(e.Weight) + " " + itoa(e.TTL) + " " + itoa(e.Span) + " " + e.ID
}

func (e Entry) same(o Entry) bool { o.Order, o.Seen, e.Order, e.Seen = 0, 0, 0, 0; return e == o }

// Request is one request of a call: the op, and whom it is from.
type Request struct {
	Key, Op, ID string
	TTL         int64 // ms
}

// Call is a script call.
type Call struct {
	Constants string // '' for no gate
	Limits    protocol.Constants
	Known     string
	Micros    int64 // the caller's clock
	Inbox     string
	Requests  []Request
}

// Reply is what came of a call: Refused instead of anything else, or a word for each request
// and the payloads of those that have one. Term is ” where there is no gate.
type Reply struct {
	Refused  string
	Term     string
	Words    []string
	All      string // not '' where the scripts say '+All' for all words
	Payloads []string
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func parseInt(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func tokenOf(id string) string { return id[max(0, len(id)-22):] }

// lock returns the lock of a key.
func (s *Server) lock(key string) *Lock {
	l := s.Locks[key]
	if l == nil {
		l = new(Lock)
		if s.Locks == nil {
			s.Locks = make(map[string]*Lock)
		}
		s.Locks[key] = l
	}
	return l
}

// expire removes keys whose time is over, as the server does before it looks.
func (s *Server) expire(ms int64) {
	if s.Marks != nil && ms > s.Marks.Ends {
		*s.Marks = Marks{}
	}
	for _, l := range s.Locks {
		if l.Ends > 0 && ms > l.Ends {
			l.dissolve()
		}
		if len(l.Queue) > 0 && ms > l.QueueEnds {
			l.Queue = l.Queue[:0]
		}
	}
}

func (l *Lock) dissolve() {
	*l = Lock{Members: l.Members[:0], Queue: l.Queue, QueueEnds: l.QueueEnds}
}

// Describe writes down what the server keeps about a key.
func (s *Server) Describe(key string) string {
	l := s.lock(key)
	var b strings.Builder
	switch l.Kind {
	case Wrong:
		b.WriteString("wrong")
	case Exclusive:
		b.WriteString(l.Value.String())
	case Group:
		b.WriteString("group " + itoa(l.Limit) + " " + itoa(l.Held) + " " + l.Up)
		for _, m := range l.byEnd() {
			b.WriteString("|" + m.String() + " until " + itoa(m.Ends))
		}
	}
	if l.Kind != Free {
		b.WriteString(" ends " + itoa(l.Ends))
	}
	if l.Kind == Group {
		b.WriteString(strings.Repeat(" ends "+itoa(l.Ends), 2)) // of its companions
	}
	for _, e := range l.Queue {
		seen := e.Seen
		if seen*1000 < e.Order-999 {
			seen = 0 // it says nothing
		}
		b.WriteString("\n" + itoa(e.Order) + " " + itoa(seen) + " " + e.String())
	}
	return b.String()
}
