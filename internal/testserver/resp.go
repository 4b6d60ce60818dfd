package testserver

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// ReplyError is an error that a Redis server sent as its reply.
type ReplyError string

func (e ReplyError) Error() string { return string(e) }

// Conn is a connection to a Redis server or Sentinel. It speaks RESP2 and is meant for tests
// that look at a server from outside, past every client library. One goroutine at a time uses
// it.
type Conn struct {
	conn  net.Conn
	in    *bufio.Reader
	limit time.Duration
}

// Dial connects to the server at addr.
func Dial(addr string) (*Conn, error) { return dial(addr, nil, patience) }

// dial connects, over TLS if security is not nil. The limit holds for this and for each
// exchange afterwards.
func dial(addr string, security *tls.Config, limit time.Duration) (*Conn, error) {
	d := net.Dialer{Timeout: limit}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if security != nil {
		c = tls.Client(c, security) // the handshake is part of the first exchange
	}
	return &Conn{conn: c, in: bufio.NewReader(c), limit: limit}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Do sends a command and returns its reply: a string (simple or bulk), an int64, nil, or a
// []any of these. An error that the server sent is a ReplyError, returned as err or standing
// in the array. After any other error the connection is of no use any more.
func (c *Conn) Do(args ...string) (any, error) {
	if err := c.Send(args...); err != nil {
		return nil, err
	}
	return c.Receive()
}

// Send sends a command and does not wait for the reply.
func (c *Conn) Send(args ...string) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	_, err := io.WriteString(c.conn, b.String())
	return err
}

// Receive waits for the next reply, or for the next message of a subscription.
func (c *Conn) Receive() (any, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return nil, err
	}
	reply, err := readReply(c.in)
	if err != nil {
		return nil, err
	}
	if e, ok := reply.(ReplyError); ok {
		return nil, e
	}
	return reply, nil
}

// readReply returns a ReplyError as a reply: it may stand within an array.
func readReply(in *bufio.Reader) (any, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("testserver: empty line in a reply")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return ReplyError(rest), nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	switch {
	case err != nil:
		return nil, fmt.Errorf("testserver: reply %q: %w", line, err)
	case kind == ':':
		return n, nil
	case n == -1 && (kind == '$' || kind == '*'):
		return nil, nil
	case kind == '$':
		data := make([]byte, n+2)
		if _, err := io.ReadFull(in, data); err != nil {
			return nil, err
		}
		return string(data[:n]), nil
	case kind == '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = readReply(in); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("testserver: reply %q is not RESP2", line)
}
