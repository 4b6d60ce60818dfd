package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// wire is a bare connection to a redis-server: no pool, no goroutine, as little as it takes.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func dialWire(addr string) (*wire, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (w *wire) close() error { return w.conn.Close() }

// do sends a command and returns the reply: of an array, its last element.
func (w *wire) do(args ...string) (string, error) {
	b := append(w.out[:0], '*')
	b = append(strconv.AppendInt(b, int64(len(args)), 10), '\r', '\n')
	for _, a := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), '\r', '\n')
		b = append(append(b, a...), '\r', '\n')
	}
	w.out = b
	if _, err := w.conn.Write(b); err != nil {
		return "", err
	}
	return w.read()
}

func (w *wire) read() (string, error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < 3 {
		return "", fmt.Errorf("reply %q", line)
	}
	kind, text := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+', ':':
		return text, nil
	case '$', '*':
	default:
		return "", fmt.Errorf("server: %s", text)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return "", err
	}
	if kind == '*' {
		for range n {
			if text, err = w.read(); err != nil {
				break
			}
		}
		return text, err
	}
	body := make([]byte, n+2)
	for got := 0; got < len(body); {
		m, err := w.in.Read(body[got:])
		if err != nil {
			return "", err
		}
		got += m
	}
	return string(body[:n]), nil
}

// interruptible lets the end of ctx end what the connection waits for, and the connection.
func (w *wire) interruptible(ctx context.Context) {
	context.AfterFunc(ctx, func() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) })
}

// counters are what a server has done so far.
type counters struct {
	Processor time.Duration
	Calls     map[string]int64         // by command, those of scripts included
	Spent     map[string]time.Duration // in them; in a script with all that it calls
}

func newCounters() counters {
	return counters{Calls: map[string]int64{}, Spent: map[string]time.Duration{}}
}

func (c *counters) add(d counters) {
	c.Processor += d.Processor
	for name, n := range d.Calls {
		c.Calls[name] += n
		c.Spent[name] += d.Spent[name]
	}
}

func (w *wire) counters() (counters, error) {
	c := newCounters()
	text, err := w.do("INFO", "everything")
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name, isCommand := strings.CutPrefix(k, "cmdstat_"); {
		case isCommand:
			n, rest, _ := strings.Cut(strings.TrimPrefix(v, "calls="), ",")
			c.Calls[name], _ = strconv.ParseInt(n, 10, 64)
			us, _, _ := strings.Cut(strings.TrimPrefix(rest, "usec="), ",")
			spent, _ := strconv.ParseInt(us, 10, 64)
			c.Spent[name] = time.Duration(spent) * time.Microsecond
		case k == "used_cpu_sys" || k == "used_cpu_user":
			s, _ := strconv.ParseFloat(v, 64)
			c.Processor += time.Duration(s * float64(time.Second))
		}
	}
	return c, nil
}

// since is what was done after before.
func (c counters) since(before counters) counters {
	d := newCounters()
	d.Processor = c.Processor - before.Processor
	for name, n := range c.Calls {
		if n -= before.Calls[name]; n > 0 && name != "info" {
			d.Calls[name], d.Spent[name] = n, c.Spent[name]-before.Spent[name]
		}
	}
	return d
}
