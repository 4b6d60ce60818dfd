package mysqllock

import (
	"fmt"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// maxTries is how many names one statement tries: more would keep releases and renewals waiting.
const maxTries = 32

// wanted is one share to be tried for, and what came of it.
type wanted struct {
	key   string
	again *share // what the token holds already, and is to get new numbers for
	held  bool   // the session has the lock: again is still in the books
	span  int
	owner string
	name  string

	// Of a permit.
	group         string
	weight, limit int

	sent    driver.Instant // before the statement left
	granted bool
	fence   int64
	got     int  // how many numbers from fence on
	told    bool // its row is written
	blocked bool // of one that was waited for: somebody was in the way
}

// tryText returns the statement that tries for shares and waits for up to so many seconds for each.
// Its answer has a column for each: the ticket that was drawn, 0 where the lock was refused, and
// nothing where another session answers than the one that was asked. IF evaluates what it needs and
// nothing else: tickets are drawn after the lock was taken. The last column says whether the server
// is a replica by then. Who waits does so for one share, and has a column in front that says whether
// somebody was in the way.
//
// Keys need no quoting, see keyOf.
func tryText(conn uint64, seconds int, all []*wanted) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	if seconds > 0 {
		b.WriteString("IS_USED_LOCK('" + all[0].key + "') IS NOT NULL,")
	}
	for _, w := range all {
		draw := "UUID_SHORT()"
		if !w.held {
			draw = fmt.Sprintf("IF(GET_LOCK('%s',%d)=1,UUID_SHORT(),0)", w.key, seconds)
		}
		fmt.Fprintf(&b, "IF(CONNECTION_ID()=%d,%s,NULL),", conn, draw)
	}
	b.WriteString("@@GLOBAL.read_only")
	return b.String()
}

// tryOneText is tryText for one share, without waiting; the key is an argument.
func tryOneText(conn uint64) string {
	return fmt.Sprintf("SELECT IF(CONNECTION_ID()=%d,IF(GET_LOCK(?,0)=1,UUID_SHORT(),0),NULL),@@GLOBAL.read_only", conn)
}

// waitOneText is tryText for one share that is waited for; the key is both arguments.
func waitOneText(conn uint64, seconds int) string {
	return fmt.Sprintf("SELECT IS_USED_LOCK(?) IS NOT NULL,IF(CONNECTION_ID()=%d,IF(GET_LOCK(?,%d)=1,UUID_SHORT(),0),NULL),@@GLOBAL.read_only", conn, seconds)
}

// releaseOneText is releaseText for one key, which is an argument.
const releaseOneText = "SELECT COALESCE(RELEASE_LOCK(?),'-')"

// tellText returns the statement that writes the rows of shares.
func tellText(table string, rows []entry) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + columns + ") VALUES ")
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "('%s',%d,%s-%d,%d,'%s',%d,%d,%d,x'%x',x'%x')",
			r.key, r.fence, serverMicros, r.age, r.conn, r.group, r.weight, r.limit, r.span, r.owner, r.name)
	}
	b.WriteString(" ON DUPLICATE KEY UPDATE broken=0")
	for column := range strings.SplitSeq(columns, ",") {
		b.WriteString("," + column + "=VALUES(" + column + ")")
	}
	return b.String()
}

// releaseText returns the statement that frees locks. Its answer has a character for each, 1
// for a lock that the session held.
func releaseText(keys []string) string {
	var b strings.Builder
	b.WriteString("SELECT CONCAT(")
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("COALESCE(RELEASE_LOCK('" + k + "'),'-')")
	}
	b.WriteByte(')')
	return b.String()
}

// live is true for rows of shares that are held.
const live = "conn=COALESCE(IS_USED_LOCK(k),0) AND k<>''"

// entry is a row of a share that is held.
type entry struct {
	key, group    string
	fence, since  int64
	age           int64 // in microseconds, of a row that is to be written
	conn          uint64
	weight, limit int
	span          int
	owner, name   string
}

func entriesText(table, where string) string {
	return "SELECT " + columns + " FROM " + table + " WHERE (" + where + ") AND " + live
}

// list returns keys as the list of an IN.
func list(keys []string) string { return "('" + strings.Join(keys, "','") + "')" }

// forgetText returns the statement that takes away rows of shares that are over: those that
// still have the fence given.
func forgetText(table string, spent map[string]int64) string {
	var b strings.Builder
	b.WriteString("DELETE FROM " + table + " WHERE ")
	sep := ""
	for key, fence := range spent {
		fmt.Fprintf(&b, "%s(k='%s' AND fence=%d)", sep, key, fence)
		sep = " OR "
	}
	return b.String()
}

// sweepText returns the statement that takes away rows that holders have left behind who died.
// A holder that has its lock and is about to write its row waits for this statement, and then
// writes a new one.
func sweepText(table string) string {
	return "DELETE FROM " + table + " WHERE k<>'' AND COALESCE(IS_USED_LOCK(k),0)<>conn LIMIT 10000"
}
