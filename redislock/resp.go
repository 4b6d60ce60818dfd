package redislock

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// What a wire says and hears: commands, and replies that are strings or arrays of them. See the
// specification of RESP, versions 2 and 3.

// answerError is an error that the server answers. It is told apart from what breaks the
// connection as the errors of go-redis are.
type answerError string

var _ redis.Error = answerError("")

func (e answerError) Error() string { return string(e) }

// RedisError implements redis.Error.
func (answerError) RedisError() {}

// do makes a call, and returns the strings of the reply, which are valid until the next call. An
// error other than answerError ends the wire's use.
func (w *wire) do(args []any) ([]string, error) {
	w.out = appendCommand(w.out[:0], args)
	if _, err := w.Write(w.out); err != nil {
		return nil, err
	}
	clear(w.reply)
	reply, err := w.read(w.reply[:0])
	w.reply = reply
	return reply, err
}

// appendCommand appends a command whose parts are what calls have for arguments, see frame.encode.
func appendCommand(b []byte, args []any) []byte {
	b = appendHead(b, '*', len(args))
	for _, a := range args {
		switch a := a.(type) {
		case *string:
			b = appendHead(b, '$', len(*a))
			b = append(b, *a...)
		case *int:
			b = appendNumber(b, int64(*a))
		case *int64:
			b = appendNumber(b, *a)
		case string:
			b = appendHead(b, '$', len(a))
			b = append(b, a...)
		default:
			panic(fmt.Sprintf("redislock: an argument of type %T", a))
		}
		b = append(b, '\r', '\n')
	}
	return b
}

func appendHead(b []byte, kind byte, n int) []byte {
	return append(strconv.AppendInt(append(b, kind), int64(n), 10), '\r', '\n')
}

func appendNumber(b []byte, n int64) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], n, 10)
	return append(appendHead(b, '$', len(text)), text...)
}

// read reads a reply. Nothing else comes on a wire: it asks for nothing that servers push.
func (w *wire) read(to []string) ([]string, error) {
	kind, head, err := w.head()
	if err != nil {
		return to, err
	}
	if kind != '*' {
		return w.item(to, kind, head)
	}
	n, err := length(head)
	if err != nil || n > maxReply {
		return to, errGarbled
	}
	for range n {
		if kind, head, err = w.head(); err != nil {
			return to, err
		}
		if kind == '-' || kind == '!' {
			return to, errGarbled // no script of ours answers so, and what follows was not read
		}
		if to, err = w.item(to, kind, head); err != nil {
			return to, err
		}
	}
	return to, nil
}

// maxReply is more than the strings of any reply: a head, and two for each request of a call.
const maxReply = 1 << 16

// item reads what follows the head of a string, and appends it.
func (w *wire) item(to []string, kind byte, head []byte) ([]string, error) {
	switch kind {
	case '$':
		text, err := w.text(head)
		return append(to, text), err
	case '+', ':':
		return append(to, string(head)), nil
	case '-':
		return to, answerError(head)
	case '!':
		text, err := w.text(head)
		if err == nil {
			err = answerError(text)
		}
		return to, err
	}
	return to, errGarbled
}

// head reads the first line of what comes next. It is valid until more is read.
func (w *wire) head() (kind byte, rest []byte, err error) {
	b, err := w.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(b) < 3 || b[len(b)-2] != '\r' {
		return 0, nil, errGarbled
	}
	return b[0], b[1 : len(b)-2], nil
}

// text reads a string of the length that its head says.
func (w *wire) text(head []byte) (string, error) {
	n, err := length(head)
	if err != nil {
		return "", err
	}
	if b, err := w.in.Peek(n + len(end)); err == nil { // most of them are shorter than the buffer
		text := string(b[:n])
		if string(b[n:]) != end {
			return "", errGarbled
		}
		_, err = w.in.Discard(len(b))
		return text, err
	}
	var text strings.Builder
	if _, err := io.CopyN(&text, w.in, int64(n)); err != nil {
		return "", err
	}
	if b, err := w.in.Peek(len(end)); err != nil || string(b) != end {
		return "", cmp.Or(err, errGarbled)
	}
	_, err = w.in.Discard(len(end))
	return text.String(), err
}

// end ends every line and every string.
const end = "\r\n"

// length reads a length, which may not be left out.
func length(head []byte) (n int, err error) {
	if len(head) > len("536870912") { // no string is longer
		return 0, errGarbled
	}
	for _, c := range head {
		if c < '0' || c > '9' {
			return 0, errGarbled
		}
		n = n*10 + int(c-'0')
	}
	return n, nil
}
