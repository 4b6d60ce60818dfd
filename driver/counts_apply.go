package driver

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// CheckCount returns nil for a step that every engine takes.
func CheckCount(c Count) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	limited := c.Rule == FixedWindow || c.Rule == SlidingWindow || c.Rule == Pace
	switch {
	case c.Rule < Total || c.Rule > Forget:
		return fmt.Errorf("rule is %v: there is none of that number", c.Rule)
	case c.N < -MaxTotal || c.N > MaxTotal, c.N < 0 && c.Rule != Window:
		return fmt.Errorf("count is %d: it must be 0 to %d", c.N, int64(MaxTotal))
	case limited && (c.Limit < 1 || c.Limit > MaxLimit):
		return fmt.Errorf("limit is %d: it must be 1 to %d", c.Limit, MaxLimit)
	case c.Times < 0 || c.N != 0 && c.Times > MaxTotal/max(c.N, -c.N), c.Times > MaxTotal:
		return fmt.Errorf("a count of %d %d times: together it must be at most %d", c.N, c.Times, int64(MaxTotal))
	case limited && c.N > c.Limit, c.Rule == Pace && c.N > c.Burst:
		return fmt.Errorf("count is %d: the limit never lets that pass at once", c.N)
	case c.Rule == Pace && (c.Burst < 1 || c.Burst > c.Limit):
		return fmt.Errorf("burst is %d: it must be 1 to the limit of %d", c.Burst, c.Limit)
	case c.Rule == Pace && c.Window/time.Microsecond < time.Duration(c.Limit):
		return fmt.Errorf("limit is %d in %v: a pace is at most one a microsecond", c.Limit, c.Window)
	case (limited || c.Rule == Window) &&
		(c.Window < MinWindow || c.Window > MaxWindow || c.Window%time.Millisecond != 0):
		return fmt.Errorf("window is %v: it must be %v to %v, in whole milliseconds", c.Window, MinWindow, MaxWindow)
	}
	return nil
}

// Apply carries out one step on data, which is what an earlier Apply returned or nil, at the
// time now. It returns what to keep instead, and for how long: 0 for ever; nil data keeps
// nothing. Engines that can read and write in one undivided step need no more than this to
// have [Counters]; those that count in a language of their server answer the same.
//
// Data is text: a letter for the kind and decimal numbers, times in µs since 1970.
func (c Count) Apply(data []byte, now time.Time) (keep []byte, ttl time.Duration, _ Counted) {
	t, err := parseTally(data)
	if err == nil && c.Rule != Forget && len(data) > 0 && t.kind != c.kind() {
		err = Failf(Invalid, "something is counted here under another rule: give every use a name of its own")
	}
	if err != nil && c.Rule != Forget {
		return data, 0, Counted{Err: err}
	}
	micros := now.UnixMicro()
	var answer Counted
	switch c.Rule {
	case Total, Raise:
		answer = c.total(&t, len(data) > 0)
	case Window, FixedWindow:
		answer = c.window(&t, micros)
	case SlidingWindow:
		answer = c.sliding(&t, micros)
	case Pace:
		answer = c.pace(&t, micros)
	case Forget:
		return nil, 0, Counted{}
	}
	if t.kind == 0 {
		return nil, 0, answer
	}
	return t.append(nil), answer.ResetAfter, answer
}

// Nth returns the answer of the i-th time, 1 to Times, that the step was carried out, where
// all is the answer to the step: as if each time had been a step of its own.
func (c Count) Nth(all Counted, i int64) Counted {
	switch c.Rule {
	case Total, Window:
		if all.Err == nil && !all.Unproven {
			all.Total -= c.N * (c.times() - i)
		}
		return all
	case FixedWindow, SlidingWindow, Pace:
		if all.Err != nil {
			return all
		}
	default:
		return all
	}
	if i > all.Passed {
		all.Passed = 0 // the last one was refused as well
		return all
	}
	later := c.N * (all.Passed - i)
	all.Allowed, all.Passed, all.RetryAfter = true, 1, 0
	all.Remaining += later
	if c.Rule == Pace {
		all.ResetAfter -= c.step(later)
	} else {
		all.Total -= later
	}
	return all
}

func (c Count) times() int64 { return max(1, c.Times) }

// fit returns how many of Times find room, where each takes up so much of it.
func (c Count) fit(room, each int64) int64 {
	switch {
	case room < 0:
		return 0
	case each == 0:
		return c.times()
	}
	return min(c.times(), room/each)
}

// kind is the letter that stored data of the rule begins with.
func (c Count) kind() byte {
	switch c.Rule {
	case Total, Raise:
		return 't'
	case Window, FixedWindow:
		return 'w'
	case SlidingWindow:
		return 's'
	default:
		return 'p'
	}
}

func (c Count) total(t *tally, known bool) Counted {
	n := c.N * c.times()
	switch {
	case c.Rule == Raise:
		t.kind, t.a = 't', max(t.a, c.N)
	case !known:
		return Counted{Unproven: true}
	case t.a > MaxTotal-n:
		return Counted{Total: t.a, Err: Failf(Invalid, "the total would exceed %d", int64(MaxTotal))}
	default:
		t.a += n
	}
	return Counted{Total: t.a}
}

// window: a is the total, b the end of the window. An end that is further away than a window
// is long was written before the clock went back.
func (c Count) window(t *tally, now int64) Counted {
	span := c.Window.Microseconds()
	if t.kind == 0 || t.b <= now {
		*t = tally{kind: 'w', b: now + span}
		switch { // a look does not begin a window
		case c.N == 0 && c.Rule == Window:
			*t = tally{}
			return Counted{}
		case c.N == 0:
			*t = tally{}
			return Counted{Allowed: true, Passed: c.times(), Remaining: c.Limit}
		}
	}
	t.b = min(t.b, now+span)
	left := time.Duration(t.b-now) * time.Microsecond
	if c.Rule == Window {
		sum := t.a + c.N*c.times()
		if sum > MaxTotal || sum < -MaxTotal {
			return Counted{Total: t.a, ResetAfter: left, Err: Failf(Invalid, "the total would exceed %d", int64(MaxTotal))}
		}
		t.a = sum
		return Counted{Total: t.a, ResetAfter: left}
	}
	answer := Counted{Passed: c.fit(c.Limit-t.a, c.N), ResetAfter: left}
	t.a += c.N * answer.Passed
	if answer.Allowed = answer.Passed == c.times(); !answer.Allowed {
		answer.RetryAfter = left
	}
	answer.Total, answer.Remaining = t.a, max(0, c.Limit-t.a)
	return answer
}

// sliding: a is the count of the window before, b of this one, c its beginning. All times
// are in ms, so that a count times a window is exact.
func (c Count) sliding(t *tally, micros int64) Counted {
	now, span := micros/1000, c.Window.Milliseconds()
	switch age := now - t.c; {
	case t.kind == 0 || age >= 2*span || age < 0:
		*t = tally{kind: 's', c: now}
	case age >= span:
		t.a, t.b, t.c = t.b, 0, t.c+span
	}
	into := now - t.c
	before := ceilDiv(t.a*(span-into), span) // of the window before, what is still covered
	answer := Counted{Passed: c.fit(c.Limit-before-t.b, c.N)}
	t.b += c.N * answer.Passed
	if answer.Allowed = answer.Passed == c.times(); !answer.Allowed {
		answer.RetryAfter = time.Duration(c.slideUntil(t, span)-now) * time.Millisecond
	}
	answer.Total = before + t.b
	answer.Remaining = max(0, c.Limit-answer.Total)
	switch {
	case t.b > 0:
		answer.ResetAfter = time.Duration(2*span-into) * time.Millisecond
	case t.a > 0:
		answer.ResetAfter = time.Duration(span-into) * time.Millisecond
	default:
		*t = tally{}
	}
	return answer
}

// slideUntil is when N passes if nothing else is counted until then.
func (c Count) slideUntil(t *tally, span int64) int64 {
	room, start, before := c.Limit-c.N-t.b, t.c, t.a
	if room < 0 { // not within this window: in the next one it is this one that fades
		room, start, before = c.Limit-c.N, t.c+span, t.b
	}
	return start + span - room*span/max(1, before)
}

// pace: a is when somebody who kept to the pace would have done everything admitted so far.
func (c Count) pace(t *tally, now int64) Counted {
	step := c.step(1).Microseconds()
	ahead := step * c.Burst
	due := max(t.a, now)
	if due > now+ahead { // written before the clock went back
		due = now + ahead
	}
	answer := Counted{Passed: c.fit(now+ahead-due, step*c.N)}
	due += step * c.N * answer.Passed
	if answer.Allowed = answer.Passed == c.times(); !answer.Allowed {
		answer.RetryAfter = time.Duration(due+step*c.N-ahead-now) * time.Microsecond
	}
	*t = tally{}
	if due > now {
		*t = tally{kind: 'p', a: due}
	}
	answer.Remaining = (now + ahead - due) / step
	answer.ResetAfter = time.Duration(due-now) * time.Microsecond
	return answer
}

// step is how much time so many take up at the pace.
func (c Count) step(n int64) time.Duration {
	return time.Duration(n*ceilDiv(c.Window.Microseconds(), c.Limit)) * time.Microsecond
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// tally is what is kept between steps: a kind and up to three numbers.
type tally struct {
	kind    byte // 0: nothing is kept
	a, b, c int64
}

// numbers is how many numbers a kind has.
func (t *tally) numbers() []*int64 {
	switch t.kind {
	case 't', 'p':
		return []*int64{&t.a}
	case 'w':
		return []*int64{&t.a, &t.b}
	case 's':
		return []*int64{&t.a, &t.b, &t.c}
	}
	return nil
}

func (t *tally) append(to []byte) []byte {
	to = append(to, t.kind)
	for _, n := range t.numbers() {
		to = strconv.AppendInt(append(to, ' '), *n, 10)
	}
	return to
}

func parseTally(data []byte) (tally, error) {
	if len(data) == 0 {
		return tally{}, nil
	}
	fields := strings.Split(string(data), " ")
	t := tally{kind: data[0]}
	numbers := t.numbers()
	if len(fields[0]) != 1 || len(numbers) == 0 || len(fields) != len(numbers)+1 {
		return tally{}, errTally
	}
	for i, n := range numbers {
		var err error
		if *n, err = strconv.ParseInt(fields[i+1], 10, 64); err != nil || *n > math.MaxInt64/1024 || *n < -MaxTotal {
			return tally{}, errTally
		}
	}
	return t, nil
}

var errTally = Failf(Invalid, "what is stored here was not counted by holdfast")
