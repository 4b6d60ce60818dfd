package pglock

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// wire is a connection of the caller's pool, taken out of it for good, with the calls of its
// driver: a statement and its rows, without what database/sql does around them. One goroutine
// uses it.
type wire struct {
	conn     sqldriver.Conn
	prepared map[string]sqldriver.StmtQueryContext
}

// newWire returns the wire over what sql.Conn.Raw hands out.
func newWire(conn any) (*wire, error) {
	c, ok := conn.(sqldriver.Conn)
	_, prepares := conn.(sqldriver.ConnPrepareContext)
	if !ok || !prepares {
		return nil, fmt.Errorf("the database driver's connection is a %T, which cannot prepare under a context: use pgx or lib/pq", conn)
	}
	return &wire{conn: c, prepared: make(map[string]sqldriver.StmtQueryContext)}, nil
}

// query carries out one statement, which is prepared at its first use: from then on it is one
// round trip. Arguments are strings, int64, bool and
// bytes, which the caller leaves alone from then on.
func (w *wire) query(ctx context.Context, text string, args ...any) ([][]sqldriver.Value, error) {
	stmt, err := w.prepare(ctx, text)
	if err != nil {
		return nil, err
	}
	named := make([]sqldriver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = sqldriver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	rows, err := stmt.QueryContext(ctx, named)
	if err != nil {
		return nil, err
	}
	var all [][]sqldriver.Value
	for {
		row := make([]sqldriver.Value, len(rows.Columns()))
		err := rows.Next(row)
		if err == io.EOF {
			return all, rows.Close()
		}
		if err != nil {
			_ = rows.Close() // the first error tells more
			return nil, err
		}
		for i, v := range row { // what is in the driver's buffer is gone with the next row
			if b, ok := v.([]byte); ok {
				row[i] = string(b)
			}
		}
		all = append(all, row)
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
