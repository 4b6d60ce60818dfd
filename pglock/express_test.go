package pglock

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// wired is a server of express's that says what the test has it say, and keeps what it hears.
type wired struct {
	t *testing.T
	*express
	far    net.Conn
	synced int
}

func (w *wired) SyncConn(context.Context) error { w.synced++; return nil }

func newWired(t *testing.T) *wired {
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	w := &wired{t: t, far: far}
	w.express = newExpress(near, w)
	return w
}

// exchange asks, answers with those bytes, a few at a time, and returns what was heard: the kinds of the
// messages.
func (w *wired) exchange(text string, key int64, says []byte) (heard string, a answer, err error) {
	kinds := make(chan string, 1)
	go func() {
		var all []byte
		for {
			var head [5]byte
			if _, err := io.ReadFull(w.far, head[:]); err != nil {
				break
			}
			body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
			if _, err := io.ReadFull(w.far, body); err != nil {
				break
			}
			if all = append(all, head[0]); head[0] == 'B' && !bytes.Contains(body, binary.BigEndian.AppendUint64(nil, uint64(key))) {
				w.t.Errorf("key %d is not in the arguments %q", key, body)
			}
			if head[0] == 'S' {
				break
			}
		}
		kinds <- string(all)
		for rest := says; len(rest) > 0; {
			n := min(3, len(rest))
			if _, err := w.far.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		if says == nil {
			_ = w.far.Close()
		}
	}()
	a, err = w.ask(context.Background(), text, key)
	return <-kinds, a, err
}

func says(kind byte, body ...byte) []byte {
	return message(nil, kind, func(b []byte) []byte { return append(b, body...) })
}

var (
	parsed, bound, ready = says('1'), says('2'), says('Z', 'I')
	complete             = says('C', []byte("SELECT 1\x00")...)
	seven                = says('D', 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7)
	notice               = says('N', []byte("SWARNING\x00\x00")...)
)

func refuses(severity, state string) []byte {
	return says('E', []byte("S"+severity+"\x00V"+severity+"\x00C"+state+"\x00Mno\x00\x00")...)
}

func joined(all ...[]byte) []byte { return bytes.Join(all, nil) }

// TestExpressAnswers: numbers of both sizes and nothing are told apart, and whatever is no whole answer to
// one statement is none.
func TestExpressAnswers(t *testing.T) {
	for what, c := range map[string]struct {
		says []byte
		want answer
		err  error
	}{
		"a number":            {joined(parsed, bound, seven, complete, ready), answer{7, true}, nil},
		"a negative one":      {joined(parsed, bound, says('D', 0, 1, 0, 0, 0, 4, 255, 255, 255, 255), complete, ready), answer{-1, true}, nil},
		"nothing":             {joined(parsed, bound, says('D', 0, 1, 255, 255, 255, 255), complete, ready), answer{}, nil},
		"beside notices":      {joined(notice, parsed, bound, says('S', 'a', 0, 'b', 0), seven, complete, notice, ready), answer{7, true}, nil},
		"no row":              {joined(parsed, bound, complete, ready), answer{}, errGarbled},
		"two rows":            {joined(parsed, bound, seven, seven, complete, ready), answer{}, errGarbled},
		"two columns":         {joined(parsed, bound, says('D', 0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255), complete, ready), answer{}, errGarbled},
		"a short number":      {joined(parsed, bound, says('D', 0, 1, 0, 0, 0, 2, 0, 7), complete, ready), answer{}, errGarbled},
		"more than it says":   {joined(parsed, bound, says('D', 0, 1, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0), complete, ready), answer{}, errGarbled},
		"in a transaction":    {joined(parsed, bound, seven, complete, says('Z', 'T')), answer{}, errGarbled},
		"unknown message":     {joined(parsed, bound, says('T', 0, 0)), answer{}, errGarbled},
		"too long a message":  {[]byte{'D', 127, 0, 0, 0}, answer{}, errGarbled},
		"too short a message": {[]byte{'D', 0, 0, 0, 3}, answer{}, errGarbled},
		"the end":             {nil, answer{}, io.EOF},
	} {
		w := newWired(t)
		if _, a, err := w.exchange("text", 42, c.says); a != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: answers %v, %v", what, a, err)
		}
	}
}

// TestExpressParses: a statement is sent once for as long as the server has it. It has it also when it has
// failed to carry it out, and would refuse to take it twice.
func TestExpressParses(t *testing.T) {
	w := newWired(t)
	for i, c := range []struct {
		text  string
		says  []byte
		heard string
		state string
	}{
		{"one", joined(refuses("ERROR", "42P01"), ready), "PBES", "42P01"}, // it could not be taken
		{"one", joined(parsed, bound, refuses("ERROR", "57014"), ready), "PBES", "57014"},
		{"one", joined(bound, seven, complete, ready), "BES", ""},
		{"two", joined(parsed, bound, seven, complete, ready), "PBES", ""},
		{"one", joined(bound, seven, complete, ready), "BES", ""},
	} {
		heard, a, err := w.exchange(c.text, int64(1000+i), c.says)
		if heard != c.heard || stateOf(err) != c.state || (c.state == "") != (a == answer{7, true}) {
			t.Errorf("exchange %d: the server hears %s and says %v, %v", i, heard, a, err)
		}
		if w.synced != i+1 {
			t.Errorf("exchange %d: the driver was asked %d times", i, w.synced)
		}
	}
}

// TestExpressLeavesNothing: what the server says between statements is not left for the driver to stumble
// over, not even in part, and its good-bye is not taken for the next answer.
func TestExpressLeavesNothing(t *testing.T) {
	w := newWired(t)
	done := joined(parsed, bound, seven, complete, ready)
	// All in one piece, so that it is there when the answer is.
	go func() {
		_, _ = io.ReadFull(w.far, make([]byte, len(parse("holdfast_0", "text"))+len(carryOut("holdfast_0"))))
		_, _ = w.far.Write(joined(done, notice[:4]))
		_, _ = w.far.Write(notice[4:])
	}()
	if a, err := w.ask(context.Background(), "text", 1); err != nil || a.n != 7 || len(w.in) > 0 {
		t.Errorf("answers %v, %v and leaves %q", a, err, w.in)
	}
	go func() {
		_, _ = io.ReadFull(w.far, make([]byte, len(carryOut("holdfast_0"))))
		_, _ = w.far.Write(joined(bound, seven, complete, ready, refuses("FATAL", "57P01")))
	}()
	if a, err := w.ask(context.Background(), "text", 1); stateOf(err) != "57P01" || a.ok {
		t.Errorf("before the server's end: %v, %v", a, err)
	}
}

// TestExpressEnds: a server that ends the session tells why, and that is what is reported. What breaks off
// after a mere refusal is not taken for a session that has refused something and lives.
func TestExpressEnds(t *testing.T) {
	for what, c := range map[string]struct {
		says  []byte
		state string
	}{
		"the server's end": {refuses("FATAL", "57P05"), "57P05"},
		"a broken refusal": {joined(parsed, bound, refuses("ERROR", "57014")), ""},
		"a transaction":    {joined(parsed, bound, refuses("ERROR", "57014"), says('Z', 'E')), ""},
		"without a code":   {joined(parsed, says('E', 0), ready), ""},
	} {
		w := newWired(t)
		go func() {
			_, _ = io.ReadFull(w.far, make([]byte, len(parse("holdfast_0", "text"))+len(carryOut("holdfast_0"))))
			_, _ = w.far.Write(c.says)
			_ = w.far.Close()
		}()
		_, err := w.ask(context.Background(), "text", 1)
		if stateOf(err) != c.state || !isOver(err) {
			t.Errorf("%s: reported is %v", what, err)
		}
	}
}
