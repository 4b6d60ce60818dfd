package redislock

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAppendCommand(t *testing.T) {
	text, n, m := "a\r\nb", -7, int64(1<<62)
	got := string(appendCommand(nil, []any{&text, &n, &m, ""}))
	want := "*4\r\n$4\r\na\r\nb\r\n$2\r\n-7\r\n$19\r\n4611686018427387904\r\n$0\r\n\r\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReply(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, c := range []struct {
		in    string
		reply []string
		err   error // errGarbled, io.EOF for the end in the middle, an answer, or nil
	}{
		{"*0\r\n", nil, nil},
		{"*2\r\n$1\r\n=\r\n$3\r\na\r\n\r\n", []string{"=", "a\r\n"}, nil},
		{"*1\r\n$2\r\nabc\r\n", nil, errGarbled},
		{"*1\r\n$5000\r\n" + long[:5001] + "\r\n", nil, errGarbled},
		{"*2\r\n$1\r\n=\r\n$4\r\na\r\nb\r\n", []string{"=", "a\r\nb"}, nil},
		{"*2\r\n:17\r\n+OK\r\n", []string{"17", "OK"}, nil},
		{"*1\r\n$10000\r\n" + long + "\r\n", []string{long}, nil},
		{"$0\r\n\r\n", []string{""}, nil},
		{"-NOSCRIPT none\r\n", nil, answerError("NOSCRIPT none")},
		{"!5\r\nERR x\r\n", nil, answerError("ERR x")},
		{"*1\r\n-ERR in the middle\r\n", nil, errGarbled},
		{"*1\r\n*1\r\n$1\r\nx\r\n", nil, errGarbled},
		{"*-1\r\n", nil, errGarbled},
		{"$-1\r\n", nil, errGarbled},
		{"*99999999\r\n", nil, errGarbled},
		{"$9999999999\r\n", nil, errGarbled},
		{">1\r\n$1\r\nx\r\n", nil, errGarbled},
		{"_\r\n", nil, errGarbled},
		{"\r\n", nil, errGarbled},
		{"*1\n", nil, errGarbled},
		{"*2\r\n$1\r\nx\r\n", nil, io.EOF},
		{"$5\r\nabc", nil, io.EOF},
		{"$5000\r\nabc", nil, io.EOF},
		{"$3\r\nabc", nil, io.EOF},
		{"*1", nil, io.EOF},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
			w := &wire{in: bufio.NewReader(r)}
			reply, err := w.read(nil)
			if !errors.Is(err, c.err) && !(c.err == io.EOF && errors.Is(err, io.ErrUnexpectedEOF)) {
				t.Errorf("%.40q: error %v, want %v", c.in, err, c.err)
			}
			if c.err == nil && !slices.Equal(reply, c.reply) {
				t.Errorf("%.40q: %.40q, want %.40q", c.in, reply, c.reply)
			}
		}
	}
}
