package model

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file is what the scripts of redislock/lua do, in Go: Call answers
// with the words that lock.lua documents. A differential test in redislock holds both against
// each other, on a real server.
//
// Not mirrored: the audit list, keys of Redis types other
// than string (they are Wrong, whatever their type), and the payloads of errors.

// run is a call being carried out.
type run struct {
	*Server
	call        *Call
	ms, sec, us int64 // the server's clock
	phase       phase
	left, quiet int64
	now, limit  int64
	waited      []bool
	words       []string
	payload     []string
	slow        []int
	odd         bool   // not everything was granted as asked, given back and renewed
	first       string // fence of what was granted at once
}

type phase uint8

const (
	open phase = iota
	grace
	quiet
	cutOff
)

// The constants of queue.lua.
const (
	silentFor = 3000
	offerFor  = 3000
	keepFor   = 60000
	longest   = 10000
)

// Call carries out a call.
func (s *Server) Call(c *Call) Reply {
	r := &run{Server: s, call: c, ms: s.Micros / 1000, sec: s.Micros / 1e6, us: s.Micros % 1e6}
	s.Published = s.Published[:0]
	s.expire(r.ms)
	if refused := r.gate(); refused != "" {
		return Reply{Refused: refused}
	}
	r.words, r.payload = make([]string, len(c.Requests)), make([]string, len(c.Requests))
	r.limit = (r.sec + 86400) * 1000000
	r.now = min(c.Micros, r.limit)
	reply := Reply{Words: r.words}
	r.first = "0"
	switch {
	case r.single():
	case r.pass():
		reply.All = r.first
	default:
		r.fast()
		r.rest()
		if !r.odd && len(r.slow) == 0 {
			reply.All = r.first
		}
	}
	if c.Constants != "" && (r.phase != cutOff || s.Flaws.Has(TermWhenCutOff)) {
		reply.Term = s.Term
	}
	for i, w := range r.words {
		if len(w) > 0 && strings.IndexByte("qhsb!", w[0]) >= 0 {
			reply.Payloads = append(reply.Payloads, r.payload[i])
		}
	}
	return reply
}

// gate is gate.lua. It returns what the call is refused with, if it is.
func (r *run) gate() string {
	c := r.call
	if c.Constants == "" {
		return ""
	}
	if r.Replica {
		return "READONLY"
	}
	if r.acks() < c.Limits.Replicas {
		r.phase = cutOff
		return ""
	}
	silence, hold := c.Limits.Silence().Milliseconds(), c.Limits.Grace().Milliseconds()
	if r.Flaws.Has(NoQuietPhase) {
		silence = 0
	}
	if r.Flaws.Has(ShortSilence) {
		silence, hold = c.Limits.Lag.Milliseconds(), hold-silence+c.Limits.Lag.Milliseconds()
	}
	if r.Flaws.Has(GraceOfMaxTTL) {
		hold = c.Limits.MaxTTL.Milliseconds()
	}
	e := &r.Epoch
	if e.Set && e.Term != "" && e.Constants != c.Constants {
		return "!constants " + e.Constants
	}
	if !e.Set || (e.Term != r.Term && !r.Flaws.Has(OwnGraceKey)) || e.Start > r.ms {
		start := r.ms
		known, since, _ := strings.Cut(c.Known, " ")
		if ms, err := strconv.ParseInt(since, 10, 64); !e.Set && err == nil && known == r.Term && ms >= hold {
			start = r.ms - hold
		}
		if !e.Set && r.Flaws.Has(MissingIsOpen) {
			start = r.ms - hold
		}
		*e = Epoch{Set: true, Term: r.Term, Start: start, Constants: c.Constants}
	}
	switch {
	case r.ms < e.Start+silence:
		r.phase, r.left, r.quiet = quiet, e.Start+hold-r.ms, e.Start+silence-r.ms
	case r.ms < e.Start+hold:
		r.phase, r.left = grace, e.Start+hold-r.ms
	}
	return ""
}

// acks counts the replicas whose acknowledgement shows that they follow.
func (r *run) acks() (acks int) {
	limits := r.call.Limits
	if limits.Replicas == 0 {
		return 0
	}
	since := r.Began
	if r.Flaws.Has(OldAcksCount) {
		since = 0
	}
	if r.Marks != nil {
		since = r.mark(int64(limits.Lag/time.Millisecond) + 1000)
	}
	for _, a := range r.Replicas {
		if a.Online && a.Lag <= int64(limits.Lag/time.Second) && a.Offset >= since {
			acks++
		}
	}
	return acks
}

// mark marks how far the server has written, unless it has done so just now. It returns what a
// replica must have acknowledged for that to be of something written in the last window ms.
func (r *run) mark(window int64) (since int64) {
	if r.Marks.Term != r.Term {
		*r.Marks = Marks{Term: r.Term}
	}
	marks := slices.DeleteFunc(slices.Clone(r.Marks.List), func(m Mark) bool { return m.At > r.ms || r.ms-m.At >= window })
	since = math.MaxInt64
	if n := len(marks); n > 0 {
		since = marks[0].Offset + 1
		if float64(r.ms-marks[n-1].At) < float64(window)/16 {
			return since
		}
	}
	r.Marks.List, r.Marks.Ends = append(marks, Mark{At: r.ms, Offset: r.Offset}), r.ms+window
	return since
}

// fast is lock.lua: requests that nobody stands in the way of. What is left over is slow.
func (r *run) fast() {
	requests := r.call.Requests
	var takes, frees []int
	r.waited = make([]bool, len(requests))
	most := int64(1)
	for i := range requests {
		q := &requests[i]
		r.waited[i] = len(r.lock(q.Key).Queue) > 0
		letter := q.Op[0]
		switch {
		case r.phase != open || strings.IndexByte("xXre", letter) < 0:
			r.slow = append(r.slow, i)
		case letter == 'x' || letter == 'X':
			takes = append(takes, i)
			most = max(most, parseInt(q.Op[1:]))
		default:
			frees = append(frees, i)
		}
	}
	var gone []*Lock
	for _, i := range frees {
		q := &requests[i]
		if l := r.lock(q.Key); r.giveOrRenew(i, q, l) && q.Op == "r" {
			gone = append(gone, l)
		}
	}
	for _, l := range gone {
		l.dissolve()
	}
	r.take(takes, most)
}

// giveOrRenew answers a release or a renewal in an open phase, and reports whether it found
// what it was for.
func (r *run) giveOrRenew(i int, q *Request, l *Lock) bool {
	release := q.Op == "r"
	switch {
	case l.Kind == Group || r.waited[i] && release:
		r.slow = append(r.slow, i)
		return false
	case !l.owns(tokenOf(q.ID)):
		r.words[i], r.odd = "-", true
		return false
	}
	r.words[i] = "="
	if !release {
		l.Ends = r.ms + q.TTL
	}
	return true
}

// take answers requests for exclusive locks in an open phase, all with one block of numbers.
func (r *run) take(takes []int, most int64) {
	if len(takes) == 0 {
		return
	}
	top, whole := r.now, true
	if r.Counter+most > r.now {
		top, most, whole = max(r.Counter+1, r.now), 1, false
	}
	r.Counter = top
	first := top - most + 1
	r.first = itoa(first)
	for _, i := range takes {
		q := &r.call.Requests[i]
		l, span := r.lock(q.Key), parseInt(q.Op[1:])
		switch {
		case r.waited[i]:
			r.slow = append(r.slow, i)
		case r.Full:
			r.words[i], r.odd = "!", true
		case l.Kind != Free:
			r.slow = append(r.slow, i)
		case span > 1 && !whole:
			l.take(r.value(q.ID, first, 1), r.ms+q.TTL)
			r.words[i], r.odd = r.first+"/1", true
		default:
			l.take(r.value(q.ID, first, span), r.ms+q.TTL)
			r.words[i] = r.first
		}
	}
}

// rest answers what is slow, in the order of slow.lua.
func (r *run) rest() {
	for _, i := range r.slow {
		if q := &r.call.Requests[i]; strings.IndexByte("rcd", q.Op[0]) >= 0 {
			r.words[i], r.payload[i] = r.answer(i, q)
		}
	}
	for _, i := range r.slow {
		if r.words[i] == "" {
			r.words[i], r.payload[i] = r.answer(i, &r.call.Requests[i])
		}
	}
}

func (r *run) value(id string, first, span int64) Value {
	return Value{ID: id, First: first, More: span - 1, Sec: r.sec, Micro: r.us}
}

// fence is that of group.lua.
func (r *run) fence(span int64) (first, got int64) {
	span = max(1, min(span, r.now-r.Counter))
	r.Counter = max(r.Counter+span, r.now)
	return r.Counter - span + 1, span
}

func granted(first, span, asked int64) string {
	if span != asked {
		return itoa(first) + "/" + itoa(span)
	}
	return itoa(first)
}

// take makes the lock exclusively held.
func (l *Lock) take(v Value, ends int64) {
	l.dissolve()
	l.Kind, l.Value, l.Ends = Exclusive, v, ends
}

// From here on: slow.lua.

func (r *run) holder(l *Lock) string {
	switch {
	case l.Kind == Group && len(l.Members) > 0:
		return l.byEnd()[0].String()
	case l.Kind == Exclusive:
		return "x 1 " + l.Value.String()
	}
	return "x 1 "
}

func (r *run) pttl(l *Lock) int64 {
	switch {
	case l.Kind == Free:
		return 0
	case l.Kind == Group && len(l.Members) > 0:
		return max(0, l.byEnd()[0].Ends-r.ms)
	case l.Ends == 0:
		return -1
	}
	return l.Ends - r.ms
}

func (r *run) held(l *Lock, wait bool) (word, payload string) {
	if !r.Brief {
		payload = r.holder(l)
	}
	if !wait {
		return "h" + itoa(r.pttl(l)), payload
	}
	return "q" + itoa(r.pttl(l)) + "," + itoa(r.Counter), payload
}

// parseOp reads an op that asks.
func parseOp(op string) (mode byte, wait bool, span, limit, weight int64) {
	mode, weight = op[0], 1
	if mode < 'a' {
		mode, wait = mode+'a'-'A', true
	}
	numbers, more, _ := strings.Cut(op[1:], " ")
	span = parseInt(numbers)
	if more != "" {
		numbers, more, _ = strings.Cut(more, " ")
		limit, weight = parseInt(numbers), parseInt(more)
	}
	return mode, wait, span, limit, weight
}

func (r *run) acquire(i int, q *Request, l *Lock) (string, string) {
	mode, wait, span, limit, weight := parseOp(q.Op)
	switch r.phase {
	case cutOff:
		return "n", ""
	case quiet:
		return "w" + itoa(r.left), ""
	}
	r.look(l)
	if l.Kind == Wrong {
		return "!", ""
	}
	token := tokenOf(q.ID)
	mine := l.owns(token)
	switch {
	case mode == 'g' && !mine:
		return "-", ""
	case mine && (mode != 'g' || l.Kind != Group):
		return r.again(l, q.ID, q.TTL, span), ""
	case mode == 'g' && l.Up != token:
		return "-", ""
	case r.phase == grace:
		return "w" + itoa(r.left), ""
	}
	e := Entry{Inbox: r.call.Inbox, Mode: mode, Cap: limit, Weight: weight, TTL: q.TTL, Span: span, ID: q.ID}
	if len(l.Queue) > 0 && !wait && mode != 'g' {
		r.serve(l, q.Key, nil)
	}
	room, inuse := l.fits(mode, limit, weight)
	if mode == 'g' {
		room, inuse = l.alone(token), 0
	}
	if inuse > 0 {
		return "l" + itoa(inuse), ""
	}
	if room && (len(l.Queue) == 0 || mode == 'g') {
		return r.grant(l, e), ""
	}
	if !wait {
		return r.held(l, false)
	}
	if mode != 'g' {
		e.Order = r.sec*1000000 + r.us + int64(i) + 1
	}
	if !r.enqueue(l, e) {
		return "f", ""
	}
	if l.Kind == Free || l.Kind == Group {
		if word := r.serve(l, q.Key, &e); word != "" {
			return word, ""
		}
	}
	return r.held(l, true)
}

// grant enters what e asks for, which fits.
func (r *run) grant(l *Lock, e Entry) string {
	first, s := r.fence(e.Span)
	if e.Mode == 'g' {
		l.leave(e)
		r.promote(l, e.ID, e.TTL, first, s)
	} else if !r.put(l, e.Mode, e.Cap, e.Weight, e.ID, e.TTL, first, s) {
		return "!"
	}
	return granted(first, s, e.Span)
}

// free gives back what the token holds, if anything.
func (l *Lock) free(token string) bool {
	if !l.owns(token) {
		return false
	}
	if l.Kind == Group {
		l.strike(token)
	} else {
		l.dissolve()
	}
	return true
}

func (r *run) settle(l *Lock, key string) {
	if (r.phase == open || r.Flaws.Has(HandOverInGrace)) && len(l.Queue) > 0 {
		r.serve(l, key, nil)
	}
}

func (r *run) over(l *Lock, key string, changed bool) string {
	if !changed {
		return "-"
	}
	r.settle(l, key)
	return "="
}

func (r *run) release(q *Request, l *Lock) string {
	r.look(l)
	token, group := tokenOf(q.ID), l.Kind == Group
	unheard := l.Kind == Free && r.phase != open
	done := l.free(token)
	waiting := (group || !done) && l.forget(token)
	return r.over(l, q.Key, done || waiting || unheard)
}

func (r *run) cancel(q *Request, l *Lock) string {
	mode, _, span, limit, weight := parseOp(q.Op[1:])
	r.look(l)
	token := tokenOf(q.ID)
	waiting := l.leave(Entry{Inbox: r.call.Inbox, Mode: mode, Cap: limit, Weight: weight, TTL: q.TTL, Span: span, ID: q.ID})
	if mode == 'g' {
		if r.phase == open && l.Kind != Group && l.owns(token) {
			return r.again(l, q.ID, q.TTL, span)
		}
		r.settle(l, q.Key)
		return "="
	}
	done := l.free(token)
	return r.over(l, q.Key, done || waiting)
}

func (r *run) decline(q *Request, l *Lock) string {
	r.look(l)
	v := l.Value
	if m := l.find(q.ID); m != nil {
		v = m.Value
	}
	if !l.owns(q.ID) || v.Foreign || itoa(v.First) != q.Op[1:] {
		return "-"
	}
	l.free(q.ID)
	r.settle(l, q.Key)
	return "="
}

func (r *run) renew(q *Request, l *Lock) string {
	phase := r.phase
	if r.Flaws.Has(RenewalSkipsGate) {
		phase = open
	}
	switch phase {
	case cutOff:
		return "n"
	case quiet:
		return "w" + itoa(r.quiet)
	}
	r.look(l)
	token := tokenOf(q.ID)
	if l.owns(token) {
		if m := l.find(token); m != nil {
			m.Ends = r.ms + q.TTL
			l.Ends = max(l.Ends, m.Ends)
		} else {
			l.Ends = r.ms + q.TTL
		}
		return "="
	}
	if phase != grace || l.Kind == Wrong {
		return "-"
	}
	top, more, _ := strings.Cut(q.Op[1:], " ")
	numbers := strings.Split(more[2:], " ")
	mode, limit, weight := more[0], parseInt(numbers[0]), parseInt(numbers[1])
	room, _ := l.fits(mode, limit, weight)
	if !room && !r.Flaws.Has(ReassertOverwrites) {
		return "-"
	}
	first := min(parseInt(top), r.limit)
	r.Counter = max(r.Counter, first)
	if !r.put(l, mode, limit, weight, q.ID, q.TTL, first, 1) {
		return "!"
	}
	return "="
}

func (r *run) breakUp(q *Request, l *Lock) (string, string) {
	switch {
	case r.phase == cutOff:
		return "n", ""
	case r.phase != open:
		return "w" + itoa(r.left), ""
	}
	r.look(l)
	if l.Kind == Wrong {
		return "!", ""
	}
	if l.Kind == Free {
		return "-", ""
	}
	all, fence, has := "x 1 "+l.Value.String(), parseInt(q.Op[1:]), false
	values := []Value{l.Value}
	if l.Kind == Group {
		all, values = "", nil
		for _, m := range l.byEnd() {
			all, values = all+"\n"+m.String(), append(values, m.Value)
		}
		all = strings.TrimPrefix(all, "\n")
	}
	for _, v := range values {
		has = has || !v.Foreign && v.First <= fence && fence <= v.First+v.More
	}
	if fence > 0 && !has {
		return "s", all
	}
	l.dissolve()
	r.settle(l, q.Key)
	return "b", all
}

func (r *run) answer(i int, q *Request) (word, payload string) {
	l := r.lock(q.Key)
	switch q.Op[0] {
	case 'r':
		return r.release(q, l), ""
	case 'c':
		return r.cancel(q, l), ""
	case 'd':
		return r.decline(q, l), ""
	case 'e':
		return r.renew(q, l), ""
	case 'b':
		return r.breakUp(q, l)
	}
	return r.acquire(i, q, l)
}
