package mysqllock

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// maxTries is how many names one statement tries. Its answer is one number of 63 bits: a fence
// takes 53, each name a bit, and two are about the statement as a whole.
const maxTries = 8

const (
	bitSpans   = 1 << maxTries // everybody got as many numbers as were asked for, otherwise one
	bitPermits = 2 << maxTries // the table has, or had, permits
	bits       = 4 << maxTries
)

// maxClock bounds what the server's clock may drive the counter to, so that a clock that was
// absurdly wrong for a moment leaves numbers to count on with.
const maxClock = ledger.MaxFence - 1<<50

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
	permits bool // there may be permits of that name
	fence   int64
	got     int // how many numbers from fence on
}

// tryText returns the statement that tries for shares, waits for up to so many seconds for each,
// and enters those that it gets.
//
// The first row that it inserts is the counter, which is there already. Its values are computed
// before the row is locked: that is where GET_LOCK is called and waited for, and which locks
// were granted is the number to insert. The update in its place then raises the counter, now
// under the row's lock, and puts the answer into LAST_INSERT_ID, where the driver finds it, and
// into @h for the rows that follow. So every number is drawn after the lock was taken, whoever
// gets a lock later draws a larger one, and the statement commits before the lock can be given
// back. A lock that was not granted makes a row that changes nothing.
//
// If the counter is not there, the answer is the locks alone, and less than any fence.
//
// Texts of users travel in hex; keys need no quoting, see keyOf.
func tryText(table string, conn uint64, seconds int, all []*wanted) string {
	const clock = "CAST(UNIX_TIMESTAMP(SYSDATE(6))*1000000 AS SIGNED)"
	total, anyPermit := 0, 0
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + columns + ") VALUES ('',LAST_INSERT_ID(@h:=IF(CONNECTION_ID()=")
	b.WriteString(strconv.FormatUint(conn, 10))
	for i, w := range all {
		sep := "+"
		if i == 0 {
			sep = ","
		}
		if w.held {
			fmt.Fprintf(&b, "%s%d", sep, 1<<i)
		} else {
			fmt.Fprintf(&b, "%s%d*COALESCE(GET_LOCK('%s',%d),0)", sep, 1<<i, w.key, seconds)
		}
		total += w.span
		if w.group != "" {
			anyPermit = 1
		}
	}
	fmt.Fprintf(&b, ",0)),LEAST(%s,%d),0,'',%d,0,0,'','')", clock, int64(maxClock), anyPermit)
	before := 0
	for i, w := range all {
		before += w.span
		fmt.Fprintf(&b, ",(IF(@h&%[1]d,'%[2]s',''),IF(@h&%[1]d,(@h DIV %[3]d)-IF(@h&%[4]d,%[5]d,%[6]d),0),%[7]s,"+
			"IF(@h&%[1]d,%[8]d,0),'%[9]s',%[10]d,%[11]d,IF(@h&%[4]d,%[12]d,1),x'%[13]x',x'%[14]x')",
			1<<i, w.key, bits, bitSpans, total-before, len(all)-1-i, clock,
			conn, w.group, w.weight, w.limit, w.span, w.owner, w.name)
	}
	fmt.Fprintf(&b, " ON DUPLICATE KEY UPDATE fence=IF(k<>'',VALUES(fence),IF(VALUES(fence)=0,fence,"+
		"LAST_INSERT_ID(@h:=GREATEST(fence+IF(VALUES(since)-fence>=%[1]d,%[1]d,%[2]d),VALUES(since))*%[3]d"+
		"+VALUES(fence)+IF(VALUES(since)-fence>=%[1]d,%[4]d,0)+IF(weight>0,%[5]d,0)) DIV %[3]d)),"+
		"since=IF(k='' AND VALUES(fence)=0,since,VALUES(since)),conn=VALUES(conn),"+
		"weight=IF(k='',GREATEST(weight,VALUES(weight)),VALUES(weight)),"+
		"span=IF(k='',span,VALUES(span)),owner=IF(k='',owner,VALUES(owner)),name=IF(k='',name,VALUES(name)),broken=0",
		total, len(all), bits, bitSpans, bitPermits)
	return b.String()
}

// readTry gives each share its part of the answer of tryText. It reports false when the locks
// that were granted have no numbers, because the counter was not there.
func readTry(answer int64, all []*wanted) bool {
	top, flags := answer/bits, answer%bits
	total, before := 0, 0
	for _, w := range all {
		total += w.span
	}
	for i, w := range all {
		w.granted, w.permits = flags&(1<<i) != 0, flags&bitPermits != 0
		if flags&bitSpans != 0 {
			w.fence, w.got = top-int64(total-before)+1, w.span
		} else {
			w.fence, w.got = top-int64(len(all)-1-i), 1
		}
		before += w.span
	}
	return top > 0 || flags == 0
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
