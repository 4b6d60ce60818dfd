package mysqllock

import (
	"fmt"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/valuetable"
)

// The table of values has a row for each name. A row without data holds nothing: its value was
// deleted, or it was made for one that is going to be written. The row with the empty name is
// the floor: every row begins with its version, which is not below that of any row that was
// taken away.

// quotedValues returns the name of the table of values for use in statements.
func (c Config) quotedValues() (string, error) {
	const most, suffix = 64, "_values"
	schema, table, ok := cutSchema(c.Table)
	if !ok {
		table = schema
	}
	if len(table)+len(suffix) > most {
		return "", driver.Failf(driver.Invalid, "Table is %.64q, and values are in a table of that name and %q, which may have %d characters: shorten it to %d",
			c.Table, suffix, most, most-len(suffix))
	}
	c.Table += suffix
	return c.quoted(), nil
}

func createValues(table string) string {
	return "CREATE TABLE IF NOT EXISTS " + table + ` (
  name VARBINARY(512) NOT NULL PRIMARY KEY COMMENT 'empty: the floor of versions',
  version BIGINT NOT NULL,
  fence BIGINT NOT NULL COMMENT 'the highest that wrote it',
  until BIGINT NOT NULL COMMENT 'microseconds since 1970; 0: for ever',
  data MEDIUMBLOB COMMENT 'NULL: nothing',
  KEY (until)
) ENGINE=InnoDB`
}

func createFloor(table string) string {
	return "INSERT IGNORE INTO " + table + " (name,version,fence,until) VALUES ('',0,0,0)"
}

const (
	// serverMicros is the server's clock, bounded as for fences.
	serverMicros = "CAST(UNIX_TIMESTAMP(SYSDATE(6))*1000000 AS SIGNED)"

	// stands is true for rows that hold something.
	stands = "(data IS NOT NULL AND (until=0 OR until>" + serverMicros + "))"
)

func readValueText(table, name string) string {
	return fmt.Sprintf("SELECT %s,version,fence,until,data FROM (SELECT 1) AS o LEFT JOIN %s ON name=x'%x'", serverMicros, table, name)
}

// allows is the condition under which w may happen.
func allows(w *driver.Write) string {
	fenced := "TRUE"
	if w.Fence != 0 {
		fenced = fmt.Sprintf("fence<=%d", w.Fence)
	}
	switch {
	case w.If == 0:
		return "NOT " + stands
	case w.If == driver.AnyVersion && w.Delete:
		return stands + " AND " + fenced
	case w.If == driver.AnyVersion:
		return "(NOT " + stands + " OR " + fenced + ")"
	}
	return fmt.Sprintf("%s AND version=%d AND %s", stands, w.If, fenced)
}

// updateValueText returns the statement that stores. Its columns are computed from left to
// right, once the row is locked. Its answer is twice the version, and one more where the
// version is the clock and the fence the one given; otherwise these are in @n and @f.
func updateValueText(table string, w *driver.Write) string {
	fence := fmt.Sprintf("GREATEST(fence,%d)", w.Fence)
	switch w.If {
	case 0:
		fence = fmt.Sprint(w.Fence)
	case driver.AnyVersion:
		fence = fmt.Sprintf("IF(%s,%s,%d)", stands, fence, w.Fence)
	}
	until := "0"
	if w.TTL > 0 {
		until = fmt.Sprintf("@n+%d", w.TTL.Microseconds())
	}
	return fmt.Sprintf("UPDATE %s SET fence=(@f:=%s),"+
		"version=LAST_INSERT_ID(2*(@h:=GREATEST(version+1,@n:=LEAST(%s,%d)))+(@h=@n AND @f=%d)) DIV 2,"+
		"until=%s,data=x'%x' WHERE name=x'%x' AND %s",
		table, fence, serverMicros, int64(maxClock), w.Fence, until, w.Data, w.Name, allows(w))
}

// deleteValueText returns the statement that deletes. Its answer is the clock.
func deleteValueText(table string, w *driver.Write) string {
	return fmt.Sprintf("UPDATE %s SET data=NULL,fence=0,until=LAST_INSERT_ID(%s) WHERE name=x'%x' AND %s",
		table, serverMicros, w.Name, allows(w))
}

// insertValueText returns the statement that makes a row, which locks the floor.
func insertValueText(table, name string) string {
	return fmt.Sprintf("INSERT IGNORE INTO %[1]s (name,version,fence,until) "+
		"SELECT x'%[2]x',COALESCE(MAX(version),0),0,%[3]s FROM %[1]s WHERE name='' LOCK IN SHARE MODE", table, name, serverMicros)
}

func pollValuesText(table string, names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = fmt.Sprintf("x'%x'", name)
	}
	return fmt.Sprintf("SELECT name,%s,version,until,data IS NULL FROM %s WHERE name IN (%s)", serverMicros, table, strings.Join(quoted, ","))
}

// spentValuesText returns the query for rows that hold nothing, and have not for a while.
func spentValuesText(table string) string {
	return fmt.Sprintf("SELECT name,version FROM %s WHERE until>0 AND until<CAST(UNIX_TIMESTAMP(NOW(6))*1000000 AS SIGNED)-%d ORDER BY until LIMIT %d",
		table, valuetable.SweepAfter.Microseconds(), valuetable.SweepMost)
}

func raiseFloorText(table string, version int64) string {
	return fmt.Sprintf("INSERT INTO %s (name,version,fence,until) VALUES ('',%d,0,0) ON DUPLICATE KEY UPDATE version=GREATEST(version,VALUES(version))", table, version)
}

// sweepValuesText returns the statement that takes rows away, unless they were written since.
func sweepValuesText(table string, these []string) string {
	return fmt.Sprintf("DELETE FROM %s WHERE until>0 AND (%s)", table, strings.Join(these, " OR "))
}
