package pglock

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wire is a connection of the caller's pool, taken out of it for good, with the calls of its
// driver: a statement and its rows, without what database/sql does around them. One goroutine
// uses it.
type wire struct {
	conn     sqldriver.Conn
	net      net.Conn        // below it, nil where that cannot be had
	express  *express        // over that, nil: there is none
	life     context.Context // of statements: ends with the session, or never where endWith sees to that
	prompt   bool            // a statement returns as soon as the session ends
	prepared map[string]sqldriver.StmtQueryContext
	args     []sqldriver.NamedValue // of the statement under way
	row      []sqldriver.Value
}

// newWire returns the wire over what sql.Conn.Raw hands out.
func newWire(conn any) (*wire, error) {
	c, ok := conn.(sqldriver.Conn)
	_, prepares := conn.(sqldriver.ConnPrepareContext)
	if !ok || !prepares {
		return nil, fmt.Errorf("the database driver's connection is a %T, which cannot prepare under a context: use pgx or lib/pq", conn)
	}
	w := &wire{conn: c, prepared: make(map[string]sqldriver.StmtQueryContext)}
	w.net, w.express = below(conn)
	return w, nil
}

// below returns the network connection below one of pgx, which gives up reading when the deadline
// of that is over, and what carries statements over it past the driver: stdlib.Conn.Conn, pgx.Conn.PgConn
// and pgconn.PgConn.Conn, whose types are not known here. lib/pq does not hand its own out.
func below(conn any) (net.Conn, *express) {
	v := reflect.ValueOf(conn)
	call := func(method reflect.Value) bool {
		ok := method.IsValid() && method.Type().NumIn() == 0 && method.Type().NumOut() == 1
		if ok {
			v = method.Call(nil)[0]
			ok = v.Kind() != reflect.Pointer || !v.IsNil()
		}
		return ok
	}
	if t := v.Type(); t.Kind() != reflect.Pointer || !strings.HasPrefix(t.Elem().PkgPath(), "github.com/jackc/pgx/") || !call(v.MethodByName("Conn")) {
		return nil, nil
	}
	traced := isTraced(v)
	if !call(v.MethodByName("PgConn")) {
		return nil, nil
	}
	owner, shares := v.Interface().(synced)
	if !call(v.MethodByName("Conn")) {
		return nil, nil
	}
	n, ok := v.Interface().(net.Conn)
	if !ok || !shares || traced {
		return n, nil
	}
	return n, newExpress(n, owner)
}

// isTraced reports whether the user has pgx tell of every statement, which is to go on: ConnConfig.Tracer
// of a pgx.Conn. Where that is not known, it is taken for so.
func isTraced(conn reflect.Value) bool {
	config := conn.MethodByName("Config")
	if !config.IsValid() || config.Type().NumIn() != 0 || config.Type().NumOut() != 1 {
		return true
	}
	v := reflect.Indirect(config.Call(nil)[0])
	if v.Kind() != reflect.Struct {
		return true
	}
	tracer := v.FieldByName("Tracer")
	return !tracer.IsValid() || tracer.Kind() != reflect.Interface || !tracer.IsNil()
}

// goodbye is how long the driver may take to end the connection of a session that is over.
const goodbye = 5 * time.Second

// endWith has the end of life end what is read and written, until the function that it returns is
// called. Where the network connection can be had that is its deadline, which is set once: a context
// that may end costs every statement of the driver a watcher of its own.
func (w *wire) endWith(life context.Context) (stop func()) {
	if w.life = life; w.net == nil {
		return func() {}
	}
	w.life, w.prompt = context.Background(), true
	over := make(chan struct{})
	ignored := context.AfterFunc(life, func() { _ = w.net.SetDeadline(time.Unix(1, 0)); close(over) })
	return func() {
		if !ignored() {
			<-over
			_ = w.net.SetDeadline(time.Now().Add(goodbye)) // in which the driver may end it in good form
		}
	}
}

// query carries out one statement, which is prepared at its first use: from then on it is one
// round trip. Arguments are strings, int64, bool and
// bytes, which the caller leaves alone from then on.
func (w *wire) query(ctx context.Context, text string, args ...any) ([][]sqldriver.Value, error) {
	var all [][]sqldriver.Value
	err := w.each(ctx, text, args, func(row []sqldriver.Value) { all = append(all, slices.Clone(row)) })
	return all, err
}

// ask carries out a statement of one key that answers with one number, or with nothing.
func (w *wire) ask(ctx context.Context, text string, key int64) (answer, error) {
	if w.express != nil {
		return w.express.ask(ctx, text, key)
	}
	return w.queryNumber(ctx, text, key)
}

// queryNumber is ask with any arguments.
func (w *wire) queryNumber(ctx context.Context, text string, args ...any) (a answer, err error) {
	rows := 0
	err = w.each(ctx, text, args, func(row []sqldriver.Value) {
		rows++
		if len(row) > 0 {
			a.n, a.ok = number(row[0])
		}
	})
	if err == nil && rows != 1 {
		err = errGarbled
	}
	return a, err
}

// each calls f with every row of a statement. The row is used again for the next one.
func (w *wire) each(ctx context.Context, text string, args []any, f func([]sqldriver.Value)) error {
	stmt, err := w.prepare(ctx, text)
	if err != nil {
		return err
	}
	w.args = w.args[:0]
	for i, arg := range args {
		w.args = append(w.args, sqldriver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	rows, err := stmt.QueryContext(ctx, w.args)
	if err != nil {
		return err
	}
	w.row = slices.Grow(w.row[:0], len(rows.Columns()))[:len(rows.Columns())]
	for {
		err := rows.Next(w.row)
		if err == io.EOF {
			return rows.Close()
		}
		if err != nil {
			_ = rows.Close() // the first error tells more
			return err
		}
		for i, v := range w.row { // what is in the driver's buffer is gone with the next row
			if b, ok := v.([]byte); ok {
				w.row[i] = string(b)
			}
		}
		f(w.row)
	}
}

func (w *wire) prepare(ctx context.Context, text string) (sqldriver.StmtQueryContext, error) {
	if stmt, ok := w.prepared[text]; ok {
		return stmt, nil
	}
	stmt, err := w.conn.(sqldriver.ConnPrepareContext).PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	q, ok := stmt.(sqldriver.StmtQueryContext)
	if !ok {
		return nil, fmt.Errorf("the database driver's statement is a %T, which cannot query under a context: use pgx or lib/pq", stmt)
	}
	w.prepared[text] = q
	return q, nil
}

var errGarbled = errors.New("the server's reply cannot be read")

// number reads what drivers make of integers and booleans. Nothing is not a number.
func number(v sqldriver.Value) (n int64, ok bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// text reads what drivers make of text. Nothing is empty.
func text(v sqldriver.Value) string {
	s, _ := v.(string)
	return s
}
