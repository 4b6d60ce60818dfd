package pglock

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"strconv"
)

// express carries the commonest statements past the driver, in PostgreSQL's own protocol: those that
// take a key and answer with one number. A driver asks what columns will come, looks for codecs and
// makes rows, for each of them; between processes that pass a lock on, whose caches are cold, that is
// a third of what the client does.
//
// The driver has opened the connection, secured it and logged in, and goes on to carry out everything
// else. pgx lets others use what is below it while nothing of its own is under way, as long as it was
// asked by SyncConn before, which sees to it that it has read nothing ahead. Nor does express: it
// returns when nothing is left to be read.
type express struct {
	conn  net.Conn
	owner synced
	texts map[string][]byte // of statements that the server has: what carries them out
	in    []byte            // what was read and not yet looked at
	room  []byte            // of in
}

// synced is a connection of the driver that others may use, after this, what is below of.
type synced interface{ SyncConn(context.Context) error }

func newExpress(conn net.Conn, owner synced) *express {
	return &express{conn: conn, owner: owner, texts: make(map[string][]byte)}
}

// protocol 3.0's numbers for what express sends.
const (
	oidBigint  = 20
	formBinary = 1
)

// maxMessage is how long a message of the server may be: those that come here are short.
const maxMessage = 1 << 16

// serverError is the server's refusal.
type serverError struct{ severity, state, message string }

func (e *serverError) Error() string {
	return e.severity + ": " + e.message + " (SQLSTATE " + e.state + ")"
}
func (e *serverError) SQLState() string { return e.state }

// ends reports whether the server has ended the session with it.
func (e *serverError) ends() bool { return e.severity == "FATAL" || e.severity == "PANIC" }

// ask carries out a statement whose only argument is key, and which answers with one number, or
// with nothing.
func (x *express) ask(ctx context.Context, text string, key int64) (answer, error) {
	if err := x.owner.SyncConn(ctx); err != nil {
		return answer{}, err
	}
	out, known := x.texts[text]
	var name string
	if !known {
		name = "holdfast_" + strconv.Itoa(len(x.texts))
		out = carryOut(name)
	}
	binary.BigEndian.PutUint64(out[keyAt(len(out)):], uint64(key))
	first := out
	if !known {
		first = append(parse(name, text), out...)
	}
	if _, err := x.conn.Write(first); err != nil {
		return answer{}, err
	}
	return x.answer(func() { x.texts[text] = out })
}

// message appends a message of that kind, whose body write appends.
func message(to []byte, kind byte, write func([]byte) []byte) []byte {
	start := len(to) + 1
	to = write(append(to, kind, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(to[start:], uint32(len(to)-start))
	return to
}

func cstring(to []byte, s string) []byte { return append(append(to, s...), 0) }

// parse is the message that gives a statement a name, with a bigint for its argument.
func parse(name, text string) []byte {
	return message(nil, 'P', func(b []byte) []byte {
		b = cstring(cstring(b, name), text)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, 1), oidBigint)
	})
}

// tail is what follows the key in the messages of carryOut.
var tail = func() []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 1), formBinary)
	b = message(b, 'E', func(b []byte) []byte { return append(b, 0, 0, 0, 0, 0) }) // all rows of the portal without a name
	return message(b, 'S', func(b []byte) []byte { return b })
}()

// carryOut is the messages that carry out a statement: bind, execute and sync. They do not ask for a
// description of the answer.
func carryOut(name string) []byte {
	b := message(nil, 'B', func(b []byte) []byte {
		b = cstring(cstring(b, ""), name)
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, 1), formBinary)
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, 1), 8)
		b = append(b, make([]byte, 8)...)
		return append(b, tail[:4]...)
	})
	return append(b, tail[4:]...)
}

// keyAt is where the key stands in so many bytes of carryOut.
func keyAt(length int) int { return length - len(tail) - 8 }

// answer reads what the server answers to one statement, to its end. It calls parsed when the server
// has the statement from now on, though it may fail to carry it out.
func (x *express) answer(parsed func()) (a answer, err error) {
	rows := 0
	var refused *serverError
	for {
		kind, body, err := x.next()
		if err != nil {
			// What fails within an answer is the end of the session, whatever was refused in it.
			if refused != nil && refused.ends() {
				err = refused
			}
			return answer{}, err
		}
		switch kind {
		case '1':
			parsed()
		case '2', 'C', 'N', 'S', 'A': // bound, complete; what the server may say at any time
		case 'D':
			rows++
			if a, err = numberOf(body); err != nil {
				return answer{}, err
			}
		case 'E':
			if refused, err = refusal(body); err != nil {
				return answer{}, err
			}
		case 'Z':
			idle := string(body) == "I"
			switch err := x.rest(); {
			case err != nil:
				return answer{}, err
			case !idle || refused == nil && rows != 1:
				return answer{}, errGarbled
			case refused != nil:
				return answer{}, refused
			}
			return a, nil
		default:
			return answer{}, errGarbled
		}
	}
}

// rest reads what has come after the end of an answer, and belongs to none.
func (x *express) rest() error {
	for len(x.in) > 0 {
		kind, body, err := x.next()
		switch {
		case err != nil:
			return err
		case kind == 'E': // the server says good-bye
			if refused, err := refusal(body); err == nil {
				return refused
			}
			return errGarbled
		case kind != 'N' && kind != 'S' && kind != 'A':
			return errGarbled
		}
	}
	return nil
}

// next reads one message. Its body is good until the next call.
func (x *express) next() (kind byte, body []byte, err error) {
	const head = 5
	if err := x.fill(head); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(x.in[1:])) + 1
	if n < head || n > maxMessage {
		return 0, nil, errGarbled
	}
	if err := x.fill(n); err != nil {
		return 0, nil, err
	}
	kind, body, x.in = x.in[0], x.in[head:n], x.in[n:]
	return kind, body, nil
}

// fill reads until there are n bytes.
func (x *express) fill(n int) error {
	if len(x.in) >= n {
		return nil
	}
	if n > len(x.room) {
		x.room = make([]byte, max(n, 1024))
	}
	have := copy(x.room, x.in)
	for have < n {
		got, err := x.conn.Read(x.room[have:])
		have += got
		if err != nil && have < n {
			return err
		}
	}
	x.in = x.room[:have]
	return nil
}

// numberOf reads a row of one integer, or of nothing.
func numberOf(row []byte) (answer, error) {
	const head = 6 // how many columns, and how long the first is
	if len(row) < head || binary.BigEndian.Uint16(row) != 1 {
		return answer{}, errGarbled
	}
	switch length, value := int32(binary.BigEndian.Uint32(row[2:])), row[head:]; {
	case length == -1 && len(value) == 0:
		return answer{}, nil
	case length == 8 && len(value) == 8:
		return answer{int64(binary.BigEndian.Uint64(value)), true}, nil
	case length == 4 && len(value) == 4:
		return answer{int64(int32(binary.BigEndian.Uint32(value))), true}, nil
	}
	return answer{}, errGarbled
}

// refusal reads the server's error.
func refusal(body []byte) (*serverError, error) {
	e := new(serverError)
	for _, field := range bytes.Split(body, []byte{0}) {
		if len(field) == 0 {
			break
		}
		switch value := string(field[1:]); field[0] {
		case 'V':
			e.severity = value
		case 'C':
			e.state = value
		case 'M':
			e.message = value
		}
	}
	if e.state == "" {
		return nil, errGarbled
	}
	return e, nil
}
